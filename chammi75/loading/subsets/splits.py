"""Splits without leaks: whole studies, plates or wells go to one part.

What stays whole is a *unit*. A well is a well of its plate in its study: A01 of another plate is another unit. Images
whose plate (well) is unknown are together the unit "unknown" of their study (plate): nothing tells them apart. Where
curation has found near-duplicates (``curation.duplicate_of``), the units of both images count as one.

Units are taken in the order of their SipHash-2-4 under the seed; each goes to the part that lacks most images of its
share. So shares are met as nearly as whole units allow, and the same everywhere; where images are added to a store, its
units may go elsewhere (the hash in a saved subset tells).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import FilterError
from chammi75.loading.subsets.draws import Groups, ranks
from chammi75.loading.subsets.pool import Pool
from chammi75.schemas.subset import SubsetPart

_HIERARCHY = ("experiment.study", "experiment.plate", "experiment.well", "microscopy.fov")
"""A name in one of these means something within those before it alone."""

_DUPLICATE_OF = "curation.duplicate_of"
_SCALE = 10**12


@dataclass(frozen=True)
class Leak:
    """Something that two subsets share.

    Attributes
    ----------
    kind : {"unit", "near-duplicate"}
    what : str
        The unit's values as JSON (``["idr0001","P1","A01"]``), or the id of the image that both have or have
        near-duplicates of.
    """

    kind: str
    what: str


def fields_of_unit(by: str | Sequence[str]) -> list[str]:
    """The fields that tell units apart.

    Examples
    --------
    >>> fields_of_unit("experiment.well")
    ['experiment.study', 'experiment.plate', 'experiment.well']
    >>> fields_of_unit("biology.cell_line")
    ['biology.cell_line']
    """
    stated = [by] if isinstance(by, str) else list(by)
    if not stated:
        raise FilterError("by must name what stays whole: a field of the record (experiment.plate), or several")
    paths: list[str] = []
    for path in stated:
        level = _HIERARCHY.index(path) + 1 if path in _HIERARCHY else 0
        paths += [*_HIERARCHY[:level]] if level else [path]
    return list(dict.fromkeys(paths))


def units(pool: Pool, by: str | Sequence[str]) -> Groups:
    """The images by unit; near-duplicates are not joined yet.

    Raises
    ------
    FilterError
        If a field of ``by`` is none of the record, or unknown for every image.
    """
    for path in [by] if isinstance(by, str) else by:
        pool.facet(path)  # unknown throughout is an error for these, not for the study or plate above them
    return pool.groups(fields_of_unit(by), required=False)


def partition(pool: Pool, part: SubsetPart) -> NDArray[np.int64]:
    """Which part each image goes to, as its place in ``part.fractions``.

    Raises
    ------
    FilterError
        If there are fewer units than parts.
    """
    groups = units(pool, part.by)
    unit_of_group = _joined_by_duplicates(pool, groups)
    names = list(part.fractions)
    numbers, unit = np.unique(unit_of_group[groups.codes], return_inverse=True)
    if len(numbers) < len(names):
        by = part.by if isinstance(part.by, str) else " + ".join(part.by)
        raise FilterError(
            f"the images have {len(numbers)} different {by}, too few for {len(names)} parts ({', '.join(names)}): split"
            " by something finer, or into fewer parts"
        )
    strata = (
        np.zeros(len(pool), np.int64) if part.stratify is None else pool.facet(part.stratify).codes.astype(np.int64) + 1
    )
    width = int(strata.max()) + 1
    cells, counts = np.unique(unit * width + strata, return_counts=True)
    content: list[list[tuple[int, int]]] = [[] for _ in numbers]
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        content[cell // width].append((cell % width, count))
    texts = [groups.texts[number] for number in numbers]  # a joined unit has the key of its first
    rank = ranks(texts, part.seed, "split")
    order = sorted(range(len(numbers)), key=lambda k: (rank[k], texts[k]))
    places = _filled(order, content, list(part.fractions.values()))
    return np.asarray(places, np.int64)[unit]


def _joined_by_duplicates(pool: Pool, groups: Groups) -> NDArray[np.int64]:
    """For each group, the first of those that near-duplicates tie it to."""
    parent = list(range(len(groups.keys)))
    duplicates = pool.facet(_DUPLICATE_OF, required=False)
    marked = np.flatnonzero(duplicates.codes >= 0)
    if len(marked):
        import pyarrow as pa
        import pyarrow.compute as pc

        def root(k: int) -> int:
            while parent[k] != k:
                parent[k] = parent[parent[k]]
                k = parent[k]
            return k

        originals = pa.array(duplicates.values, pa.large_string())
        at = pc.index_in(originals, pool.ids().cast(pa.large_string())).to_pylist()
        anchor = [None if k is None else int(groups.codes[k]) for k in at]  # the group of the original, if it is here
        for image in marked:
            group, original = int(groups.codes[image]), int(duplicates.codes[image])
            other = anchor[original]
            if other is None:
                anchor[original] = group  # the original is not here: its duplicates still belong together
                continue
            first, second = sorted((root(group), root(other)))
            parent[second] = first
        parent = [root(k) for k in range(len(parent))]
    return np.asarray(parent, np.int64)


def _filled(
    order: Sequence[int], content: Sequence[Sequence[tuple[int, int]]], fractions: Sequence[float]
) -> list[int]:
    """The part of each unit; ``content`` has the images of each, per stratum. Integers: the same on every machine."""
    shares = [Fraction(str(fraction)) for fraction in fractions]
    denominator = lcm(*(share.denominator for share in shares))
    weights = [int(share * denominator) for share in shares]
    images: dict[int, int] = {}
    for unit in content:
        for stratum, count in unit:
            images[stratum] = images.get(stratum, 0) + count
    lacking = [{stratum: weight * number for stratum, number in images.items()} for weight in weights]
    scale = {stratum: _SCALE // number for stratum, number in images.items()}
    whole = sum(weights)
    places = [0] * len(content)
    empty = set(range(len(weights)))
    for done, k in enumerate(order):
        candidates = sorted(empty) if len(order) - done <= len(empty) else range(len(weights))
        need = [sum(count * lacking[part][s] * scale[s] for s, count in content[k]) for part in candidates]
        place = candidates[need.index(max(need))]
        places[k] = place
        empty.discard(place)
        for stratum, count in content[k]:
            lacking[place][stratum] -= whole * count
    return places


def leaks(first: Pool, second: Pool, by: str | Sequence[str]) -> list[Leak]:
    """What two pools of images share that a split by ``by`` must keep apart.

    Parameters
    ----------
    first, second : Pool
    by : str or sequence of str
        As for ``Subset.split``.

    Returns
    -------
    list of Leak
        Units that both have images of, and images that both are near-duplicates of.
    """
    pools = (first, second)
    paths = fields_of_unit(by)
    texts = [set(pool.groups(paths, required=False).texts) for pool in pools]
    found = [Leak("unit", text) for text in sorted(texts[0] & texts[1])]
    originals = []
    for pool in pools:
        facet = pool.facet(_DUPLICATE_OF, required=False)
        originals.append({facet.values[code] for code in np.unique(facet.codes[facet.codes >= 0])})
    tied = originals[0] & originals[1]
    for one, other in ((0, 1), (1, 0)):
        if originals[one]:
            import pyarrow as pa
            import pyarrow.compute as pc

            wanted = pa.array(sorted(originals[one]), pa.large_string())
            here = pc.is_in(wanted, pools[other].ids().cast(pa.large_string()))
            tied |= set(wanted.filter(here).to_pylist())
    return found + [Leak("near-duplicate", image) for image in sorted(tied)]


def parts_of(
    fractions: Mapping[str, float], by: str | Sequence[str], seed: int, stratify: str | None
) -> list[SubsetPart]:
    """The recipe of each part.

    Raises
    ------
    RecipeError
        If the fractions are no shares of a whole.
    """
    from pydantic import ValidationError

    from chammi75.errors import RecipeError

    if not isinstance(fractions, Mapping) or not fractions:
        raise RecipeError(f"a split is a mapping of names to fractions ({json.dumps({'train': 0.8, 'test': 0.2})})")
    fields_of_unit(by)
    values = {"fractions": dict(fractions), "by": by if isinstance(by, str) else list(by)}
    try:
        return [
            SubsetPart.model_validate({"name": name, **values, "seed": seed, "stratify": stratify})
            for name in fractions
        ]
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(word) for word in problem["loc"])
        raise RecipeError(
            f"split: {f'{place}: ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
        ) from error
