"""``load_dataset``: filters go down to the index, and what comes back is a real Hugging Face dataset of references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, FilterError
from chammi75.files import StorageOptions
from chammi75.loading.channels import keep_channels
from chammi75.loading.filters import Filters, Numbers, Words, channel_words
from chammi75.loading.layouts import Layout, open_layouts
from chammi75.loading.query import rows_where

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_MOST_RANGES = 20160
"""Parts that a stream is cut into, at most: a number of many divisors, so that ranks and workers get equal shares."""


@dataclass(frozen=True)
class Selection:
    """Rows of a layout: what filters have left of it.

    Attributes
    ----------
    layout : Layout
    rows : ndarray of int64
        Ascending.
    """

    layout: Layout
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def select(layout: Layout, filters: Filters, where: str | None = None, split: str | None = None) -> Selection:
    """Rows of a layout that pass all filters.

    Raises
    ------
    FilterError
        If a filter names what is not there.
    """
    mask = filters.mask(layout.facet, len(layout))
    within = np.zeros(len(layout), bool)
    within[layout.rows_of_split(split)] = True
    mask &= within
    if where is not None:
        matching = np.zeros(len(layout), bool)
        matching[rows_where(layout.searchable(), where)] = True
        mask &= matching
    return Selection(layout, np.flatnonzero(mask))


@overload
def load_dataset(
    path: str | Sequence[str],
    *,
    split: str | None = ...,
    streaming: Literal[False] = ...,
    organism: Words = ...,
    channel_type: Words = ...,
    study: Words = ...,
    platform: Words = ...,
    cell_line: Words = ...,
    microscopy_type: Words = ...,
    magnification: Numbers = ...,
    num_channels: Numbers = ...,
    license: Words = ...,
    where: str | None = ...,
    select_channels: Words = ...,
    metadata: str | None = ...,
    storage_options: StorageOptions | None = ...,
    cache_dir: str | None = ...,
) -> datasets.Dataset: ...


@overload
def load_dataset(
    path: str | Sequence[str],
    *,
    split: str | None = ...,
    streaming: Literal[True],
    organism: Words = ...,
    channel_type: Words = ...,
    study: Words = ...,
    platform: Words = ...,
    cell_line: Words = ...,
    microscopy_type: Words = ...,
    magnification: Numbers = ...,
    num_channels: Numbers = ...,
    license: Words = ...,
    where: str | None = ...,
    select_channels: Words = ...,
    metadata: str | None = ...,
    storage_options: StorageOptions | None = ...,
    cache_dir: str | None = ...,
) -> datasets.IterableDataset: ...


def load_dataset(
    path: str | Sequence[str],
    *,
    split: str | None = "train",
    streaming: bool = False,
    organism: Words = None,
    channel_type: Words = None,
    study: Words = None,
    platform: Words = None,
    cell_line: Words = None,
    microscopy_type: Words = None,
    magnification: Numbers = None,
    num_channels: Numbers = None,
    license: Words = None,
    where: str | None = None,
    select_channels: Words = None,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    cache_dir: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load images, filtered, as a Hugging Face dataset. Opening reads the index alone and writes nothing.

    Parameters
    ----------
    path : str or sequence of str
        A store, or a copy of the published CHAMMI-75 (local, or any fsspec URL), or several. ``"mini"`` is the
        embedded dataset, built into ``cache_dir`` on first use.
    split : str, optional
        ``"train"`` by default; None for all.
    streaming : bool
        True gives an ``IterableDataset``, False a ``Dataset``.
    organism, study, platform, cell_line, microscopy_type, license : str or list of str, optional
        Equal to a word, or to any of a list.
    channel_type : str or list of str, optional
        Has a channel of this type, or of all these types.
    magnification, num_channels : number, list of numbers, or tuple (low, high), optional
        Equal to a number, to any of a list, or within a range with both ends (``{"min": …, "max": …}`` too).
    where : str, optional
        Anything else, as an SQL condition over the record (``"quality.focus > 0.3"``), in a DuckDB that can reach
        nothing else.
    select_channels : str or list of str, optional
        Keep only planes of these types, in stored order; an image with none of them is left out.
    metadata : str, optional
        Metadata table of a published layout that has several.
    storage_options : mapping, optional
        For the fsspec filesystem.
    cache_dir : str, optional
        Where ``"mini"`` is built; a folder of the user's cache by default.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset
        Samples have ``image_id``, the record's groups, ``image`` (a ``MultiChannelImage``), and ``annotation``
        (cells per channel, or None).

    Raises
    ------
    FilterError
        If a filter names what is not there, or no image passes.
    StoreError, ChammiError
        If there is nothing to load.
    """
    import datasets

    layouts = open_layouts(_resolved(path, cache_dir), metadata=metadata, storage_options=storage_options)
    filters = Filters(
        organism=organism,
        channel_type=channel_type,
        study=study,
        platform=platform,
        cell_line=cell_line,
        microscopy_type=microscopy_type,
        magnification=magnification,
        num_channels=num_channels,
        license=license,
        select_channels=select_channels,
    )
    selections = _selections(layouts, filters, where, split)
    words = channel_words(select_channels) if select_channels is not None else None
    info = datasets.DatasetInfo(features=_features(storage_options))
    named = datasets.NamedSplit(split) if split is not None else None
    if streaming:
        from datasets.iterable_dataset import ArrowExamplesIterable

        kwargs = {"selections": tuple(selections), "words": words, "ranges": _ranges(selections)}
        return datasets.IterableDataset(ArrowExamplesIterable(_generate, kwargs), info=info, split=named)
    import pyarrow as pa

    tables = [_samples(selection.layout, selection.rows, words) for selection in selections]
    return datasets.Dataset(
        pa.concat_tables(tables), info=info, split=named, fingerprint=_fingerprint(selections, words)
    )


def _resolved(path: str | Sequence[str], cache_dir: str | None) -> list[str]:
    """Names turned into URLs."""
    from os import PathLike, fspath

    names = [path] if isinstance(path, str | PathLike) else list(path)
    resolved = []
    for name in names:
        if name == "mini":
            from chammi75.mini.dataset import mini_store

            resolved.append(str(mini_store(cache_dir)))
        elif name == "chammi75":
            raise ChammiError(
                "the public bucket is not read by its name yet: give the folder of a local copy of the published"
                " dataset, or 'mini'"
            )
        else:
            resolved.append(fspath(name))
    return resolved


def _selections(layouts: Sequence[Layout], filters: Filters, where: str | None, split: str | None) -> list[Selection]:
    """The rows of each layout. A value that one of several layouts has need not be in the others."""
    found: list[Selection] = []
    failures: list[FilterError] = []
    for layout in layouts:
        try:
            found.append(select(layout, filters, where, split))
        except FilterError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    if not any(len(selection) for selection in found):
        stated = {**filters.stated(), **({"where": where} if where is not None else {})}
        words = ", ".join(f"{name}={value!r}" for name, value in stated.items())
        raise FilterError(f"no image passes all of {words}" if words else "there is no image in this split")
    return [selection for selection in found if len(selection)]


def _ranges(selections: Sequence[Selection]) -> list[tuple[int, int, int]]:
    """Parts of a stream, as (selection, first row, end): what is dealt out to ranks and workers as shards."""
    total = sum(len(selection) for selection in selections)
    parts = min(total, _MOST_RANGES)
    edges = [total * k // parts for k in range(parts + 1)]
    starts = np.cumsum([0, *(len(selection) for selection in selections)])
    ranges = []
    for first, end in pairwise(edges):
        for number in range(len(selections)):
            low, high = max(first, int(starts[number])), min(end, int(starts[number + 1]))
            if low < high:
                ranges.append((number, low - int(starts[number]), high - int(starts[number])))
    return ranges


def _generate(
    selections: tuple[Selection, ...], words: list[str] | None, ranges: list[tuple[int, int, int]]
) -> Iterator[tuple[str, pa.Table]]:
    """Tables of samples for some ranges; runs in whatever process iterates."""
    for number, first, end in ranges:
        selection = selections[number]
        yield f"{number}-{first}", _samples(selection.layout, selection.rows[first:end], words)


def _samples(layout: Layout, rows: NDArray[np.int64], words: list[str] | None) -> pa.Table:
    samples = layout.samples(rows)
    return samples if words is None else keep_channels(samples, words)


def _features(storage_options: StorageOptions | None) -> datasets.Features:
    from datasets import Features

    from chammi75.loading.feature import CellsFeature, MultiChannelImageFeature
    from chammi75.schemas.arrow import record_schema

    features: Mapping[str, Any] = Features.from_arrow_schema(record_schema())
    image, cells = MultiChannelImageFeature(), CellsFeature()
    if storage_options:
        image, cells = image.with_storage_options(storage_options), cells.with_storage_options(storage_options)
    return Features({**features, "image": image, "annotation": cells})


def _fingerprint(selections: Sequence[Selection], words: list[str] | None) -> str:
    digest = hashlib.sha256(json.dumps(words).encode())
    for selection in selections:
        digest.update(selection.layout.identity.encode())
        digest.update(selection.layout.url.encode())
        digest.update(selection.rows.tobytes())
    return digest.hexdigest()[:16]


def samples_of(selection: Selection) -> list[dict[str, Any]]:
    """The selected samples as plain values, ``image`` and ``annotation`` as references."""
    rows: list[dict[str, Any]] = selection.layout.samples(selection.rows).to_pylist()
    return rows
