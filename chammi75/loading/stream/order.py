"""The order of an epoch: which unit stands at each position, for any position alone.

Units (images, or planes of them) are numbered in the order of the store, and each shard holds a run of them. The order
is endless and made of cycles. Without shares a cycle is every unit once, and epochs are stretches of it, one cycle each
or ``samples`` units each: no unit comes a second time before all came once. With shares a cycle is an epoch, in which
each group has its number of draws, and goes on through its own units from one epoch to the next.

One mechanism makes all of them. The shards of a cycle are permuted; so many of them as ``shuffle`` says, one after the
other, are a window; the cells of a window (units of one group in one shard, see ``chammi75.loading.stream.cells``) have
their draws side by side, and a permutation of the window mixes them; a cell's draws go through its units by a
permutation that is another one each time round. ``"global"`` takes the whole store for one shard, so that there is one
window; ``"none"`` has windows of one shard and permutes nothing.

All permutations are keyed by the seed and computed for single positions (``chammi75.loading.stream.permutation``). What
is kept is a few numbers for each cell; only with groups also a list of the units, group by group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chammi75.errors import ChammiError
from chammi75.loading.stream.cells import Cells, lay_out
from chammi75.loading.stream.permutation import permuted
from chammi75.loading.stream.shares import apportion

_Integers = NDArray[np.int64]

_SHARDS, _SLOTS, _UNITS = 1, 2, 3
"""What a permutation is for, as the second part of its key."""

_KEPT = 2
"""Cycles whose layout is kept: an epoch's end and the next one's beginning."""

_MOST = 2**62


@dataclass(frozen=True)
class Shuffle:
    """What is mixed with what.

    Attributes
    ----------
    text : str
        As it was given.
    shards : int or None
        Shards of a window; None for the whole store.
    permutes : bool
        Whether anything is.
    """

    text: str
    shards: int | None
    permutes: bool

    @classmethod
    def parse(cls, text: str) -> Shuffle:
        """From ``"global"``, ``"none"`` or ``"window:N"``.

        Raises
        ------
        ChammiError
            If it is none of these.

        Examples
        --------
        >>> Shuffle.parse("window:16").shards
        16
        """
        if text == "global":
            return cls(text, None, True)
        if text == "none":
            return cls(text, 1, False)
        window = re.fullmatch(r"window:0*([1-9][0-9]{0,8})", text, re.ASCII) if isinstance(text, str) else None
        if window is None:
            raise ChammiError(
                f"shuffle={text!r} is not known: it can be 'global' (any unit beside any other), 'none' (the order of "
                f"the store) or 'window:N' (units of N shards are mixed at a time), such as 'window:16', with N at "
                f"least 1"
            )
        return cls(text, int(window[1]), True)


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of positions, and the shards that hold its units.

    Attributes
    ----------
    number : int
        Counted from the epoch's first.
    start, stop : int
        Positions in the epoch, without ``stop``.
    shards : ndarray of int64
        In the order of the cycle. All of them are in use throughout the window. For ``"global"`` these are all shards
        that have units, of which one with units of undrawn groups alone is not used.
    """

    number: int
    start: int
    stop: int
    shards: _Integers


@dataclass(frozen=True, eq=False)
class _Layout:
    """One cycle: its shards and cells in order, and the slots where their draws end."""

    cycle: int
    blocks: _Integers
    sequence: _Integers
    first_draws: _Integers
    draws: _Integers
    ends: _Integers
    window_ends: _Integers


@dataclass(frozen=True, eq=False)
class Order:
    """The units of every epoch; made by ``plan_order``. It can be pickled.

    Attributes
    ----------
    length : int
        Positions of an epoch.
    draws : tuple of int or None
        How many positions of an epoch each group has; None without shares.
    """

    length: int
    draws: tuple[int, ...] | None
    seed: int
    shuffle: Shuffle
    shard_units: _Integers = field(repr=False)
    cycle_length: int = field(repr=False)
    cells: Cells = field(repr=False)
    _layouts: dict[int, _Layout] = field(default_factory=dict, init=False, repr=False)

    @property
    def is_sequential(self) -> bool:
        """Whether nothing is shuffled."""
        return not self.shuffle.permutes

    def units(self, epoch: int, positions: ArrayLike) -> _Integers:
        """The unit at each position of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        positions : array of int, shape (N,)
            From 0; one behind the last is a repeat of the epoch's beginning (it is taken modulo ``length``).

        Returns
        -------
        ndarray of int64, shape (N,)

        Raises
        ------
        ChammiError
            If the epoch or a position is not a whole number of at least 0.
        """
        cycles, slots = self._places(epoch, positions)
        if not slots.size:
            return slots
        first, last = int(cycles.min()), int(cycles.max())
        if first == last:
            return self._drawn(first, slots)
        found = np.empty_like(slots)
        for cycle in range(first, last + 1):
            here = np.flatnonzero(cycles == cycle)
            if here.size:
                found[here] = self._drawn(cycle, slots[here])
        return found

    def window_of(self, epoch: int, positions: ArrayLike) -> _Integers:
        """The number of each position's window, counted from the epoch's first; int64, shape (N,)."""
        cycles, slots = self._places(epoch, positions)
        numbers = np.empty_like(slots)
        for cycle in np.unique(cycles):
            layout = self._layout(int(cycle))
            here = cycles == cycle
            numbers[here] = np.searchsorted(layout.window_ends, slots[here], side="right")
            numbers[here] += (cycle - self._first_window(epoch)[0]) * len(layout.window_ends)
        return numbers - self._first_window(epoch)[1]

    def windows(self, epoch: int, position: int = 0) -> Iterator[Window]:
        """The windows of an epoch in turn, from the one with this position on.

        They are what has to be at hand while positions from ``start`` to ``stop`` are read, and so the order in which
        to fetch shards ahead. Where epochs are not whole cycles, the first and the last window may be cut. There is
        none from behind the epoch's last position on.

        Examples
        --------
        >>> order = plan_order([4, 4, 4], shuffle="window:2", seed=1)
        >>> [(window.start, window.stop, window.shards.tolist()) for window in order.windows(0)]
        [(0, 8, [1, 2]), (8, 12, [0])]
        """
        first_cycle, first_window = self._first_window(epoch)
        begin = epoch * self.length
        place = begin + max(int(position), 0)
        while place < begin + self.length:
            cycle, slot = divmod(place, self.cycle_length)
            layout = self._layout(cycle)
            number = int(np.searchsorted(layout.window_ends, slot, side="right"))
            low = int(layout.window_ends[number - 1]) if number else 0
            start = max(cycle * self.cycle_length + low, begin)
            place = min(cycle * self.cycle_length + int(layout.window_ends[number]), begin + self.length)
            counted = (cycle - first_cycle) * len(layout.window_ends) + number - first_window
            yield Window(counted, start - begin, place - begin, self._shards(layout, number))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layouts": {}}

    def _places(self, epoch: int, positions: ArrayLike) -> tuple[_Integers, _Integers]:
        """The cycle and the slot in it of each position of an epoch."""
        begin = self._begin(epoch)
        numbers = np.atleast_1d(np.asarray(positions))
        if numbers.size and (numbers.dtype.kind not in "iu" or numbers.ndim > 1 or numbers.min() < 0):
            raise ChammiError("positions must be whole numbers, at least 0, in one dimension")
        places = numbers.astype(np.int64) % self.length + begin
        cycles = places // self.cycle_length
        return cycles, places - cycles * self.cycle_length

    def _begin(self, epoch: int) -> int:
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or epoch < 0:
            raise ChammiError(f"epoch={epoch!r} must be a whole number, at least 0")
        if (int(epoch) + 2) * max(self.length, self.cycle_length) >= _MOST:
            raise ChammiError(f"epoch={epoch} is too far: positions of all epochs together must stay below 2**62")
        return int(epoch) * self.length

    def _first_window(self, epoch: int) -> tuple[int, int]:
        cycle, slot = divmod(self._begin(epoch), self.cycle_length)
        return cycle, int(np.searchsorted(self._layout(cycle).window_ends, slot, side="right"))

    def _shards(self, layout: _Layout, number: int) -> _Integers:
        if self.shuffle.shards is None:
            return np.flatnonzero(self.shard_units)
        blocks = layout.blocks[number * self.shuffle.shards : (number + 1) * self.shuffle.shards]
        used = np.zeros(len(self.shard_units), bool)
        used[self.cells.blocks[layout.draws > 0]] = True
        found: _Integers = blocks[used[blocks]]
        return found

    def _drawn(self, cycle: int, slots: _Integers) -> _Integers:
        """The units at slots of one cycle."""
        layout, cells = self._layout(cycle), self.cells
        if self.shuffle.permutes:
            slots = self._mixed(layout, slots)
        places = np.searchsorted(layout.ends, slots, side="right")
        chosen = layout.sequence[places]
        draws = slots - (layout.ends[places] - layout.draws[chosen]) + layout.first_draws[chosen]
        counts = cells.counts[chosen]
        rounds = draws // counts
        within = draws - rounds * counts
        if (
            self.shuffle.permutes and self.draws is not None
        ):  # else a cycle takes whole cells, and mixing them is enough
            within = permuted(within, counts, self.seed, _UNITS, chosen, rounds)
        found: _Integers = cells.starts[chosen] + within
        return found if cells.members is None else cells.members[found].astype(np.int64)

    def _mixed(self, layout: _Layout, slots: _Integers) -> _Integers:
        ends = layout.window_ends
        if len(ends) == 1:
            return permuted(slots, self.cycle_length, self.seed, _SLOTS, layout.cycle, 0)
        windows = np.searchsorted(ends, slots, side="right")
        starts = np.where(windows > 0, ends[windows - 1], 0)
        return starts + permuted(slots - starts, ends[windows] - starts, self.seed, _SLOTS, layout.cycle, windows)

    def _layout(self, cycle: int) -> _Layout:
        found = self._layouts.get(cycle)
        if found is None:
            found = self._laid_out(cycle)
            kept = list(self._layouts.items())[-(_KEPT - 1) :]
            object.__setattr__(self, "_layouts", dict([*kept, (cycle, found)]))  # other threads have the old one whole
        return found

    def _laid_out(self, cycle: int) -> _Layout:
        cells = self.cells
        blocks = np.unique(cells.blocks)
        if self.shuffle.permutes and len(blocks) > 1:
            blocks = blocks[permuted(np.arange(len(blocks)), len(blocks), self.seed, _SHARDS, cycle)]
        ranks = np.empty(int(blocks.max()) + 1, np.int64)
        ranks[blocks] = np.arange(len(blocks))
        sequence = np.argsort(ranks[cells.blocks], kind="stable")
        first_draws = cells.drawn_before(cycle)
        draws = cells.drawn_before(cycle + 1) - first_draws
        ends = np.cumsum(draws[sequence])
        windows = ranks[cells.blocks[sequence]] // (self.shuffle.shards or 1)
        last = np.flatnonzero(np.diff(windows, append=windows[-1] + 1))
        return _Layout(cycle, blocks, sequence, first_draws, draws, ends, ends[last])


def plan_order(
    shard_units: ArrayLike,
    *,
    groups: NDArray[Any] | None = None,
    shares: ArrayLike | None = None,
    samples: int | None = None,
    shuffle: str = "global",
    seed: int = 0,
) -> Order:
    """The order of all epochs over a store.

    Parameters
    ----------
    shard_units : array of int, shape (S,)
        Units in each shard: U in all, numbered shard by shard.
    groups : ndarray of int, shape (U,), optional
        The group of each unit, below 0 for none. Given with ``shares``.
    shares : array of float, shape (G,), optional
        Each group's share of an epoch, in proportion (see ``chammi75.loading.stream.shares``): positions are shared out
        by largest remainder, the same numbers in every epoch. Units of no group, or of one with the share 0, are never
        drawn. A group of few units repeats them evenly; one of many is covered over the epochs, no unit of it twice
        before all of it came once.
    samples : int, optional
        Positions of an epoch. By default as many as there are units (that belong to a group with a share).
    shuffle : str
        ``"global"``, ``"window:N"`` or ``"none"``. ``"none"`` with shares goes shard by shard, in each group by group.
    seed : int
        From 0.

    Raises
    ------
    ChammiError
        If there is no unit, or an argument is out of range or does not fit the others.

    Examples
    --------
    >>> order = plan_order([3, 5], seed=1)
    >>> order.length, sorted(order.units(0, range(8)).tolist())
    (8, [0, 1, 2, 3, 4, 5, 6, 7])
    >>> shares = plan_order([3, 5], groups=np.array([0, 0, 0, 0, 0, 0, 1, 1]), shares=[1.0, 1.0], samples=4)
    >>> shares.draws, sorted(shares.units(0, range(4)).tolist())[2:]
    ((2, 2), [6, 7])
    """
    parsed = Shuffle.parse(shuffle)
    units = _whole_numbers(shard_units, "shard_units")
    total = int(units.sum())
    if not total:
        raise ChammiError("there is no unit to put into an order: nothing is selected")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ChammiError(f"seed={seed!r} must be a whole number from 0 to 2**64 - 1")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1):
        raise ChammiError(f"samples={samples!r} must be a whole number, at least 1, or None for all units")
    draws = None
    if groups is not None or shares is not None:
        draws = _draws(total, groups, shares, samples)
    length = sum(draws) if draws is not None else int(samples) if samples is not None else total
    if max(length, total) > 2**40:
        raise ChammiError(f"an epoch of {length} positions over {total} units is too long: at most 2**40 are possible")
    blocks = np.array([total], np.int64) if parsed.shards is None else units
    return Order(
        length=length,
        draws=draws,
        seed=int(seed),
        shuffle=parsed,
        shard_units=units,
        cycle_length=total if draws is None else length,
        cells=lay_out(blocks, None if draws is None else groups, [total] if draws is None else draws, int(seed)),
    )


def _draws(total: int, groups: NDArray[Any] | None, shares: ArrayLike | None, samples: int | None) -> tuple[int, ...]:
    """How many positions of an epoch each group has."""
    if groups is None or shares is None:
        given, lacking = ("groups", "shares") if shares is None else ("shares", "groups")
        raise ChammiError(f"{given} are given without {lacking}: weighting needs both")
    owners = np.asarray(groups)
    weights = np.asarray(shares, np.float64)
    if owners.dtype.kind not in "iu" or owners.shape != (total,):
        raise ChammiError(f"groups must be one whole number for each of the {total} units, not of shape {owners.shape}")
    if total >= 2**31:
        raise ChammiError(f"{total} units are too many for weighting: fewer than 2**31 are possible")
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ChammiError("shares must be one number for each group, none below 0, and at least one above it")
    if int(owners.max()) >= len(weights):
        raise ChammiError(f"a unit is of group {int(owners.max())}, and there are shares for {len(weights)} groups")
    counts = np.bincount(owners[owners >= 0], minlength=len(weights))
    empty = np.flatnonzero((weights > 0) & (counts == 0))
    if empty.size:
        raise ChammiError(f"group {int(empty[0])} has a share of each epoch and no unit: leave it out, or give it 0")
    return tuple(apportion(int(counts[weights > 0].sum()) if samples is None else samples, weights.tolist()))


def _whole_numbers(values: ArrayLike, name: str) -> _Integers:
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.ndim != 1 or array.min() < 0):
        raise ChammiError(f"{name} must be whole numbers, at least 0, in one dimension")
    return array.astype(np.int64)
