"""Random draws that depend on ids and a seed alone: not on machine, versions, workers, or the order of stores and rows.

The images of a group are ranked by SipHash-2-4 of their ``image_id``, keyed with the seed, and the first are taken. So
a larger draw holds every smaller one of the same seed, and an image that is added moves at most one other out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.loading.subsets.quotas import quotas
from chammi75.schemas.subset import Balance
from chammi75.store.facets import Facet

if TYPE_CHECKING:
    import pyarrow as pa

_PURPOSES = {"draw": 1, "split": 2}
"""The key's second half: what is drawn first of a plate says nothing of where the plate goes."""


@dataclass(frozen=True)
class Groups:
    """Groups of images.

    Attributes
    ----------
    keys : list of tuple
        Values of each group's fields, None where unknown; in the order of ``texts``.
    texts : list of str
        The same as JSON: the same everywhere.
    codes : ndarray of int64, shape (images,)
        Number of each image's group in ``keys``.
    """

    keys: list[tuple[Any, ...]]
    texts: list[str]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, facets: Sequence[Facet]) -> Groups:
        """The combinations of values that occur; of one facet or several."""
        codes = facets[0].codes.astype(np.int64) + 1  # 0 is unknown
        for facet in facets[1:]:
            _, codes = np.unique(codes, return_inverse=True)  # small again: no product of many sizes overflows
            codes = codes * (len(facet.values) + 1) + facet.codes + 1
        _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
        columns = [([*facet.values, None], facet.codes[first].tolist()) for facet in facets]  # -1 takes the last: None
        keys = list(zip(*([values[code] for code in numbers] for values, numbers in columns), strict=True))
        words = [([json.dumps(value, ensure_ascii=False) for value in values], numbers) for values, numbers in columns]
        parts = zip(*([values[code] for code in numbers] for values, numbers in words), strict=True)
        texts = [f"[{','.join(part)}]" for part in parts]
        order = sorted(range(len(keys)), key=texts.__getitem__)
        place = np.empty(len(keys), np.int64)
        place[order] = np.arange(len(keys))
        return cls([keys[k] for k in order], [texts[k] for k in order], place[codes])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Images of each group."""
        return np.bincount(self.codes, minlength=len(self.keys)).astype(np.int64)


def ranks(texts: pa.Array | Sequence[str], seed: int, purpose: Literal["draw", "split"]) -> NDArray[np.uint64]:
    """What texts are ranked by, shape (texts,)."""
    from chammi75.loading.subsets.siphash import siphash

    return siphash(texts, (seed, _PURPOSES[purpose]))


def draw(
    ids: pa.Array,
    groups: Groups | None,
    *,
    seed: int,
    balance: Balance = "none",
    per_group: int | None = None,
    total: int | None = None,
    largest_groups: int | None = None,
) -> NDArray[np.bool_]:
    """Which images are drawn.

    Parameters
    ----------
    ids : pyarrow.Array of string
        Their ids, all different.
    groups : Groups or None
        Their groups; None: all are one.
    seed : int
    balance, per_group, total
        See ``chammi75.loading.subsets.quotas``.
    largest_groups : int, optional
        Take so many groups only, those of most images; the unknown is no group then. Of groups of one size the first
        by its JSON text is taken.

    Returns
    -------
    ndarray of bool, shape (images,)
    """
    codes = groups.codes if groups is not None else np.zeros(len(ids), np.int64)
    sizes = groups.sizes.tolist() if groups is not None else [len(ids)]
    taken = range(len(sizes))
    if groups is not None and largest_groups is not None:
        known = [k for k in taken if None not in groups.keys[k]]
        taken = sorted(sorted(known, key=lambda k: -sizes[k])[:largest_groups])  # type: ignore[assignment]
    wanted = np.zeros(len(sizes), np.int64)
    wanted[list(taken)] = quotas([sizes[k] for k in taken], balance=balance, per_group=per_group, total=total)
    if (wanted == sizes).all():
        return np.ones(len(ids), bool)
    candidates = np.flatnonzero(wanted[codes] > 0)
    if not len(candidates):
        return np.zeros(len(ids), bool)
    order = _ranked(ids, codes, candidates, seed)
    ordered = codes[order]
    position = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    drawn = np.zeros(len(ids), bool)
    drawn[order[position < wanted[ordered]]] = True
    return drawn


def _ranked(ids: pa.Array, codes: NDArray[np.int64], candidates: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Candidates by group, and by rank within their group."""
    import pyarrow as pa

    texts = ids if len(candidates) == len(ids) else ids.take(pa.array(candidates))
    rank = ranks(texts, seed, "draw")
    order = np.lexsort((rank, codes[candidates]))
    same = (np.diff(rank[order]) == 0) & (np.diff(codes[candidates][order]) == 0)
    if same.any():  # one in ten million times for millions of images
        names = np.array(texts.to_pylist(), object)
        order = np.lexsort((np.argsort(np.argsort(names)), rank, codes[candidates]))
    return candidates[order]
