"""What a stream draws: planes (bag of channels) or whole images (multi-channel), numbered in the stores' order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from chammi75.loading.selection import Selection
    from chammi75.loading.stream.sources import Source

Mode = Literal["boc", "mca"]

UNKNOWN = "unknown"
"""The group of what the record does not say."""

_PIECE = 1 << 18
"""Rows that are looked at together: what is made of them meanwhile stays small."""


@dataclass(frozen=True)
class Drawn:
    """Some units, of several selections.

    Attributes
    ----------
    selection : ndarray of int64, shape (N,)
        Number of each one's selection.
    rows : ndarray of int64, shape (N,)
        Its row in that selection's layout.
    channels : ndarray of int64, shape (N,), or None
        Its channel, as stored; None in the mode ``mca``.
    """

    selection: NDArray[np.int64]
    rows: NDArray[np.int64]
    channels: NDArray[np.int64] | None


class Units:
    """The units of some selections.

    Memory: nothing where a selection is a range of rows of which every plane is taken and all images have equally
    many; else 8 bytes per image at most.

    Parameters
    ----------
    selections : sequence of Selection
    sources : sequence of Source
        One for each.
    mode : {"boc", "mca"}
        A unit is a plane, or an image.
    """

    def __init__(self, selections: Sequence[Selection], sources: Sequence[Source], mode: Mode) -> None:
        self.mode = mode
        self._parts = [_Part(selection, source) for selection, source in zip(selections, sources, strict=True)]
        counts = [part.planes if mode == "boc" else len(part.rows) for part in self._parts]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        selections, sources = zip(*((part.selection, part.source) for part in self._parts), strict=True)
        return type(self), (selections, sources, self.mode)

    def draw(self, units: NDArray[np.int64]) -> Drawn:
        """Where some units are."""
        selection = np.searchsorted(self._ends, units, side="right").astype(np.int64)
        rows = np.empty(len(units), np.int64)
        channels = np.empty(len(units), np.int64) if self.mode == "boc" else None
        for number in np.unique(selection).tolist():
            part = self._parts[number]
            at = np.flatnonzero(selection == number)
            within = units[at] - (int(self._ends[number - 1]) if number else 0)
            if channels is None:
                rows[at] = part.rows_at(within)
            else:
                rows[at], channels[at] = part.planes_at(within)
        return Drawn(selection, rows, channels)

    def channels_of(self, number: int, rows: NDArray[np.int64]) -> list[tuple[int, ...]]:
        """The channels of some images of a selection that are taken, as stored."""
        part = self._parts[number]
        return [part.kept[code] for code in part.source.channel_type_codes(rows).tolist()]

    def per_shard(self) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """Units of each shard that has some, in order, and which these are: (selection, shard)."""
        counts: list[int] = []
        shards: list[tuple[int, int]] = []
        for number, part in enumerate(self._parts):
            for rows, planes in part.pieces():
                own = part.source.shards(rows)
                firsts = np.flatnonzero(np.concatenate(([True], own[1:] != own[:-1])))
                sums = np.add.reduceat(planes if self.mode == "boc" else np.ones(len(rows), np.int64), firsts)
                for shard, count in zip(own[firsts].tolist(), sums.tolist(), strict=True):
                    if shards and shards[-1] == (number, shard):
                        counts[-1] += count
                    else:
                        shards.append((number, shard))
                        counts.append(count)
        return np.array(counts, np.int64), shards

    def groups(self, by: str) -> tuple[NDArray[np.int32], list[str]]:
        """The group of each unit, shape (units,), and the groups' names.

        Parameters
        ----------
        by : {"study", "channel_type"}
            What is not known is the group ``unknown``. In the mode ``mca`` the channel types of an image are one group:
            their different ones, sorted, joined by " + ".
        """
        names: dict[str, int] = {}
        pieces: list[NDArray[np.int32]] = []
        for part in self._parts:
            number = _numbering(part, by, self.mode, names)
            pieces += [number(rows, planes) for rows, planes in part.pieces()]
        return np.concatenate(pieces), list(names)


class _Part:
    """The units of one selection."""

    def __init__(self, selection: Selection, source: Source) -> None:
        self.selection, self.source = selection, source
        self.rows: range | NDArray[np.int64] = selection.rows
        wanted = selection.channel_types
        self.kept: list[tuple[int, ...]] = [
            tuple(k for k, word in enumerate(types) if wanted is None or word in wanted)
            for types in source.channel_type_lists
        ]
        self._counts = np.array([len(channels) for channels in self.kept], np.int64)
        self._table = np.zeros((len(self.kept), int(self._counts.max(initial=1))), np.int64)
        for code, channels in enumerate(self.kept):
            self._table[code, : len(channels)] = channels
        self._each = self._same()
        self.planes = self._each * len(self.rows) or sum(int(planes.sum()) for _, planes in self.pieces())
        self._ends = None if self._each else self._sums()

    def rows_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of some places in the selection."""
        if isinstance(self.rows, range):
            return places + self.rows.start
        return self.rows[places]

    def planes_at(self, planes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and stored channels of some planes, which are numbered over the selection."""
        if self._ends is None:
            places, slots = planes // self._each, planes % self._each
        else:
            places = np.searchsorted(self._ends, planes, side="right").astype(np.int64)
            slots = planes - np.where(places > 0, self._ends[places - 1], 0)
        rows = self.rows_at(places)
        return rows, self._table[self.source.channel_type_codes(rows), slots]

    def pieces(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows, some at a time, and how many planes of each are taken."""
        for start in range(0, len(self.rows), _PIECE):
            rows = np.asarray(self.rows[start : start + _PIECE], np.int64)
            yield rows, self._counts[self.source.channel_type_codes(rows)]

    def _same(self) -> int:
        """The number of planes that every image of the selection has; 0 if they differ."""
        found = {count for _, planes in self.pieces() for count in np.unique(planes).tolist()}
        return found.pop() if len(found) == 1 else 0

    def _sums(self) -> NDArray[Any]:
        kind = np.int32 if self.planes < 2**31 else np.int64
        ends = np.empty(len(self.rows), kind)
        done = total = 0
        for rows, planes in self.pieces():
            sums = np.cumsum(planes) + total
            ends[done : done + len(rows)] = sums
            done, total = done + len(rows), int(sums[-1])
        return ends


def _numbering(
    part: _Part, by: str, mode: Mode, names: dict[str, int]
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int32]]:
    """A function from rows and their numbers of planes to the groups of their units; new names are added."""

    def numbered(words: Sequence[str | None]) -> NDArray[np.int32]:
        return np.array([names.setdefault(word or UNKNOWN, len(names)) for word in words], np.int32)

    source = part.source
    if by == "study":
        studies = source.studies()

        def of_study(rows: NDArray[np.int64], planes: NDArray[np.int64]) -> NDArray[np.int32]:
            codes = source.study_codes(rows)
            own = _numbers_of([None if code < 0 else studies[code] for code in np.unique(codes)], codes, numbered)
            return np.repeat(own, planes) if mode == "boc" else own

        return of_study
    lists = source.channel_type_lists

    def of_channels(rows: NDArray[np.int64], planes: NDArray[np.int64]) -> NDArray[np.int32]:
        codes = source.channel_type_codes(rows)
        used = np.unique(codes)
        if mode == "mca":
            return _numbers_of([_joined(lists[code], part.kept[code]) for code in used], codes, numbered)
        table = np.full((len(lists), int(planes.max(initial=1))), -1, np.int32)
        for code in used.tolist():
            table[code, : len(part.kept[code])] = numbered([lists[code][channel] for channel in part.kept[code]])
        found: NDArray[np.int32] = table[codes][np.arange(table.shape[1]) < planes[:, None]]
        return found

    return of_channels


def _numbers_of(
    words: Sequence[str | None], codes: NDArray[np.int32], numbered: Callable[[Sequence[str | None]], NDArray[np.int32]]
) -> NDArray[np.int32]:
    """The numbers of words, for each of ``codes``, of which ``words`` has one per different value, in order."""
    numbers = numbered(words)
    return numbers[np.searchsorted(np.unique(codes), codes)]


def _joined(types: Sequence[str | None], kept: Sequence[int]) -> str | None:
    words = sorted({word for channel in kept if (word := types[channel]) is not None})
    return " + ".join(words) or None
