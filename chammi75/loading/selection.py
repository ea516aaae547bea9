"""What filters have left of a layout, and its samples, made in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiWarning, FilterError, StoreError, warn
from chammi75.loading.channels import keep_channels
from chammi75.loading.columns import image_ids, repeated_ids
from chammi75.loading.filters import Filters
from chammi75.loading.layouts import Layout, StoreLayout
from chammi75.loading.query import rows_where

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa


_BLOCK = 1024
"""Samples that ``Selection.stream`` makes at once, unless told otherwise."""

_SHOWN = 3
"""URLs that a warning names."""

_KEPT_BYTES = 64 * 10**6
"""Blocks of at most this size are kept for the next samples: all of a hundred thousand images, nearly."""


class Chosen(Protocol):
    """What ``select_all`` asks of a subset."""

    @property
    def name(self) -> str | None:
        """What it is called."""

    @property
    def masks(self) -> Sequence[NDArray[np.bool_]]:
        """Which images of each layout belong to it."""

    @property
    def filters(self) -> Filters:
        """Its filters; of them, ``select_channels`` counts."""


class WithdrawnWarning(ChammiWarning):
    """Images that were chosen are withdrawn, and are left out."""


class RepeatedImagesWarning(ChammiWarning):
    """Images are in two of the datasets that are loaded together."""


class Selection:
    """Rows of a layout.

    It can be pickled: what travels is a bit for each row of the layout at most, and nothing where they follow one
    another.

    Parameters
    ----------
    layout : Layout
    rows : range or ndarray of int64
        Ascending.
    channel_types : tuple of str, optional
        Keep only planes of these types; each row has at least one.
    """

    def __init__(
        self, layout: Layout, rows: range | NDArray[np.int64], channel_types: tuple[str, ...] | None = None
    ) -> None:
        if not isinstance(rows, range) and len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            rows = range(int(rows[0]), int(rows[-1]) + 1)
        self.layout, self.rows, self.channel_types = layout, rows, channel_types
        self._blocks: dict[int, _Blocks] = {}  # of this process; a fork makes its own

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.rows, range):
            return type(self), (self.layout, self.rows, self.channel_types)
        bits = np.zeros(len(self.layout), bool)
        bits[self.rows] = True
        return _unpacked, (self.layout, np.packbits(bits), self.channel_types)

    def samples(self, first: int = 0, end: int | None = None) -> pa.Table:
        """Samples of some of the rows, by their place in the selection; of all by default."""
        samples = self.layout.samples(np.asarray(self.rows[first:end], np.int64))
        return samples if self.channel_types is None else keep_channels(samples, self.channel_types)

    def block(self, first: int, end: int, *, keep: bool = False) -> pa.Table:
        """The same, in one piece. With ``keep`` the latest blocks are kept, for who wants slices of one again."""
        return _reading_thread(os.getpid()).submit(self._block, first, end, keep).result()

    def _block(self, first: int, end: int, keep: bool) -> pa.Table:
        blocks = self._blocks.get(os.getpid())
        if blocks is None:
            layout = self.layout.anew() if self._blocks else self.layout
            blocks = _Blocks(Selection(layout, self.rows, self.channel_types))
            self._blocks[os.getpid()] = blocks
        return blocks.table(first, end, keep)

    def stream(self, first: int, end: int, rows: int = _BLOCK) -> Iterator[pa.Table]:
        """The same, in tables of at most so many rows."""
        for start in range(first, end, rows):
            yield self.block(start, min(start + rows, end))


class _Blocks:
    """The latest blocks of a selection, in one process."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._tables: dict[tuple[int, int], pa.Table] = {}
        self._bytes = 0

    def table(self, first: int, end: int, keep: bool) -> pa.Table:
        """A block."""
        block = self._tables.pop((first, end), None)
        if block is None:
            block = self._selection.samples(first, end).combine_chunks()
            if not keep:
                return block
            self._bytes += block.nbytes
            while self._tables and self._bytes > _KEPT_BYTES:
                self._bytes -= self._tables.pop(next(iter(self._tables))).nbytes
        self._tables[first, end] = block  # the latest stands last
        return block


@lru_cache(maxsize=1)
def _reading_thread(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that makes blocks.

    A shuffled stream of datasets reads in ten threads. Files of a store are read by one at a time, and Arrow keeps
    what it has freed for the thread that freed it: in ten threads that is ten times as much, 100 MB in each worker.
    """
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, thread_name_prefix="chammi75-records")


def _unpacked(layout: Layout, bits: NDArray[np.uint8], channel_types: tuple[str, ...] | None) -> Selection:
    return Selection(layout, np.flatnonzero(np.unpackbits(bits, count=len(layout))), channel_types)


def select(layout: Layout, filters: Filters, where: str | None = None, split: str | None = None) -> Selection:
    """Rows of a layout that pass all filters.

    Raises
    ------
    FilterError
        If ``where`` is refused, or names what is not there.
    """
    mask = matching(layout, filters, where, split)
    (selection,) = _selections([layout], [mask], filters.kept_channel_types())
    return selection


def select_all(
    layouts: Sequence[Layout],
    filters: Filters,
    where: str | None = None,
    split: str | None = None,
    subset: Chosen | None = None,
) -> list[Selection]:
    """Rows of several layouts that pass all filters and belong to ``subset``; layouts without any are left out.

    Parameters
    ----------
    layouts : sequence of Layout
    filters, where, split
        As for ``load_dataset``.
    subset : Subset, optional
        A subset of these layouts; it brings its ``select_channels`` along.

    Raises
    ------
    FilterError
        If a filter names what is nowhere, or no image passes.

    Warns
    -----
    WithdrawnWarning
        If images that pass are withdrawn.
    RepeatedImagesWarning
        If two of the layouts have the same images.
    """
    masks = matching_all(layouts, filters, where, split)
    kept = filters.kept_channel_types()
    if subset is not None:
        masks = [mask & within for mask, within in zip(masks, subset.masks, strict=True)]
        kept = both_channel_types(kept, subset.filters.kept_channel_types())
        if kept is not None:
            trimmed = Filters(select_channels=kept)
            masks = [
                mask & trimmed.mask(layout.facet, len(layout)) for mask, layout in zip(masks, layouts, strict=True)
            ]
    if not any(mask.any() for mask in masks):
        raise FilterError(nothing_passes(filters, where, (subset.name or "unnamed") if subset is not None else None))
    found = [selection for selection in _selections(layouts, masks, kept) if len(selection)]
    if not found:
        raise FilterError("every image that passes is withdrawn: chammi75 audit says why")
    _warn_of_repeated(found)
    return found


def _selections(
    layouts: Sequence[Layout], masks: Sequence[NDArray[np.bool_]], channel_types: tuple[str, ...] | None
) -> list[Selection]:
    """What is loaded of the images that passed: those that nobody has withdrawn."""
    from chammi75.loading.withdrawn import withdrawn

    selections, hit, left_out = [], [], 0
    for layout, mask in zip(layouts, masks, strict=True):
        gone = withdrawn(layout)
        if gone is not None and (count := int(np.count_nonzero(mask & gone))):
            hit.append(layout.url)
            left_out += count
            mask = mask & ~gone
        selections.append(Selection(layout, np.flatnonzero(mask), channel_types))
    if left_out:
        images = "1 image is" if left_out == 1 else f"{left_out} images are"
        warn(f"{images} withdrawn and left out ({_few(hit)}); chammi75 audit says why", WithdrawnWarning)
    return selections


def _warn_of_repeated(selections: Sequence[Selection]) -> None:
    """Images that are loaded twice, unless all come from one store, whose parts share none."""
    outermost = {_outermost(selection.layout) for selection in selections}
    if len(selections) < 2 or (len(outermost) == 1 and None not in outermost):
        return
    repeated = repeated_ids([image_ids(selection.layout, selection.rows) for selection in selections])
    if len(repeated):
        more = f" and {len(repeated) - 1} more images are" if len(repeated) > 1 else " is"
        urls = _few([selection.layout.url for selection in selections])
        text = f"{repeated[0].as_py()}{more} in two of these datasets, and loaded from both ({urls})"
        warn(text, RepeatedImagesWarning)


def _outermost(layout: Layout) -> str | None:
    """The store that a layout was opened as a part of; None if it is none."""
    collections = layout.store.collections if isinstance(layout, StoreLayout) else ()
    return collections[0][0] if collections else None


def _few(urls: Sequence[str]) -> str:
    return ", ".join(urls[:_SHOWN]) + (f" and {len(urls) - _SHOWN} more" if len(urls) > _SHOWN else "")


def matching(layout: Layout, filters: Filters, where: str | None = None, split: str | None = None) -> NDArray[np.bool_]:
    """Which images of a layout pass all filters, shape (images,).

    Raises
    ------
    FilterError
        If there is no such split, or ``where`` is refused.
    """
    try:
        ranges = layout.rows_of_split(split)
    except StoreError as error:  # nothing is read for that: it can only be the split
        raise FilterError(str(error)) from error
    mask = filters.mask(layout.facet, len(layout))
    within = np.zeros(len(layout), bool)
    for rows in ranges:
        within[rows.start : rows.stop] = True
    mask &= within
    if where is not None:
        passing = np.zeros(len(layout), bool)
        passing[rows_where(layout.searchable(), where)] = True
        mask &= passing
    return mask


def matching_all(
    layouts: Sequence[Layout], filters: Filters, where: str | None = None, split: str | None = None
) -> list[NDArray[np.bool_]]:
    """The same for several. A value, column or split that one of several layouts has need not be in the others.

    Raises
    ------
    FilterError
        If a filter names what is nowhere.
    """
    filters.check(lambda name: list(dict.fromkeys(value for layout in layouts for value in layout.facet(name).values)))
    masks: list[NDArray[np.bool_]] = []
    failures: list[FilterError] = []
    for layout in layouts:
        try:
            masks.append(matching(layout, filters, where, split))
        except FilterError as error:
            failures.append(error)
            masks.append(np.zeros(len(layout), bool))
    if len(failures) == len(layouts):
        raise failures[0]
    return masks


def nothing_passes(filters: Filters, where: str | None, subset: str | None = None) -> str:
    """The message where no image passes."""
    stated = {**filters.stated(), "where": where, "subset": subset}
    words = ", ".join(f"{name}={value!r}" for name, value in stated.items() if value is not None)
    return f"no image passes all of {words}" if words else "there is no image in this split"


def both_channel_types(first: tuple[str, ...] | None, second: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Channel types that two ``select_channels`` keep.

    Raises
    ------
    FilterError
        If none is left.
    """
    if first is None or second is None:
        return second if first is None else first
    both = tuple(word for word in first if word in second)
    if not both:
        raise FilterError(
            f"select_channels={list(first)!r} leaves no channel: the subset keeps {', '.join(second)} alone"
        )
    return both
