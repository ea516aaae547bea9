"""``load_dataset``: filters go down to the index, and what comes back is a real Hugging Face dataset of references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from chammi75.files import StorageOptions
from chammi75.loading.filters import FilterOptions, Filters, Numbers, Words
from chammi75.loading.selection import Selection, select_all
from chammi75.loading.stores import open_stores

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from chammi75.loading.subsets import Subset

_PARTS = (20160, 2880, 960)
"""Parts that a stream is cut into: numbers of many divisors, so that ranks and workers get equal shares."""

_ROWS_OF_A_PART = 512
"""At least so many rows in a part, if there are more than 960.

Shuffled parts are read in any order, and each decodes a row group of the index (8192 rows, some 10 ms) for its own
rows: with 512 of them that is a tenth of what a sample costs anyway.
"""

_ROWS_AT_ONCE = 1024
"""Rows that are made at once: smaller parts are slices of what is made for their neighbours too."""

_ROWS_OF_A_CHUNK = 65536
"""Rows of a ``Dataset`` that are made at once: its memory while it is made stays near what it needs then, and a column
of words can't outgrow the 2 GiB of an Arrow array."""


class LoadOptions(FilterOptions, total=False):
    """The keywords of ``load_dataset`` but ``streaming``."""

    split: str | None
    where: str | None
    subset: Subset | str | PathLike[str] | None
    metadata: str | None
    storage_options: StorageOptions | None
    cache_dir: str | None


@overload
def load_dataset(
    path: str | Sequence[str], *, streaming: Literal[False] = ..., **options: Unpack[LoadOptions]
) -> datasets.Dataset: ...


@overload
def load_dataset(
    path: str | Sequence[str], *, streaming: Literal[True], **options: Unpack[LoadOptions]
) -> datasets.IterableDataset: ...


@overload
def load_dataset(
    path: str | Sequence[str], *, streaming: bool, **options: Unpack[LoadOptions]
) -> datasets.Dataset | datasets.IterableDataset: ...


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
    subset: Subset | str | PathLike[str] | None = None,
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
        embedded dataset, built into ``cache_dir`` on first use, ``"chammi75"`` the public bucket.
    split : str, optional
        ``"train"`` by default; None for all.
    streaming : bool
        True gives an ``IterableDataset``, False a ``Dataset``.
    organism, study, platform, cell_line, microscopy_type, license : str or list of str, optional
        Equal to a word, or to any of a list. A licence may be the name of a set (``"commercial"``).
    channel_type : str or list of str, optional
        Has a channel of this type, or of all these types.
    magnification, num_channels : number, list of numbers, or tuple (low, high), optional
        Equal to a number, to any of a list, or within a range with both ends (``{"min": …, "max": …}`` too).
    where : str, optional
        Anything else, as an SQL condition over the record (``"quality.focus > 0.3"``), in a DuckDB that can reach
        nothing else.
    subset : Subset, str or path, optional
        Only images of a subset: a ``Subset``, a recipe file (``"mine.yaml"``), or the name of a shipped recipe
        (``"fluorescence-only"``). Other filters narrow it further.
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
        If there is nothing to load, or a subset is one of another store.
    """
    import datasets

    layouts = open_stores(path, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
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
    taken = None
    if subset is not None:
        from chammi75.loading.subsets import subset_of

        taken = subset_of(subset, layouts)
    selections = select_all(layouts, filters, where, split, taken)
    info = datasets.DatasetInfo(features=_features(storage_options))
    named = datasets.NamedSplit(split) if split is not None else None
    if streaming:
        from datasets.iterable_dataset import ArrowExamplesIterable

        total = sum(len(selection) for selection in selections)
        count = part_count(total)
        kwargs = {"selections": tuple(selections), "count": count, "parts": list(range(count))}  # the list is dealt out
        return datasets.IterableDataset(ArrowExamplesIterable(_generate, kwargs), info=info, split=named)
    import pyarrow as pa

    tables = [table for selection in selections for table in selection.stream(0, len(selection), _ROWS_OF_A_CHUNK)]
    return datasets.Dataset(pa.concat_tables(tables), info=info, split=named, fingerprint=_fingerprint(selections))


def part_count(images: int) -> int:
    """Into how many parts a stream of so many images is cut, to be dealt out to ranks and workers."""
    return next((count for count in _PARTS if images >= count * _ROWS_OF_A_PART), min(images, _PARTS[-1]))


def _generate(selections: tuple[Selection, ...], count: int, parts: list[int]) -> Iterator[tuple[str, pa.Table]]:
    """Samples of some of ``count`` parts, as tables; runs in whatever process iterates."""
    ends = np.cumsum([len(selection) for selection in selections]).tolist()
    together = max(1, _ROWS_AT_ONCE * count // ends[-1])  # parts whose rows are made at once
    for part in parts:
        first = part // together * together
        edges = (part, part + 1, first, min(first + together, count))
        low, high, start, stop = (ends[-1] * edge // count for edge in edges)
        for number, (selection, end) in enumerate(zip(selections, ends, strict=True)):
            begin = end - len(selection)
            if max(low, begin) < min(high, end):
                block = selection.block(max(start, begin) - begin, min(stop, end) - begin, keep=together > 1)
                offset = max(low, begin) - max(start, begin)
                yield f"{part}-{number}", block.slice(offset, min(high, end) - max(low, begin))


def _features(storage_options: StorageOptions | None) -> datasets.Features:
    from datasets import Features

    from chammi75.loading.feature import CellsFeature, MultiChannelImageFeature
    from chammi75.schemas.arrow import record_schema

    features: Mapping[str, Any] = Features.from_arrow_schema(record_schema())
    image, cells = MultiChannelImageFeature(), CellsFeature()
    if storage_options:
        image, cells = image.with_storage_options(storage_options), cells.with_storage_options(storage_options)
    return Features({**features, "image": image, "annotation": cells})


def _fingerprint(selections: Sequence[Selection]) -> str:
    digest = hashlib.sha256()
    for selection in selections:
        digest.update(json.dumps([selection.layout.identity, selection.layout.url, selection.channel_types]).encode())
        digest.update(np.asarray(selection.rows, np.int64).tobytes())
    return digest.hexdigest()[:16]
