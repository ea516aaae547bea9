"""Cells: the units of one group in one shard, and how many of them were drawn before each cycle.

A group has so many draws in each cycle, whole numbers that never change, and they are to be spread evenly over the
shards that hold its units, however thinly: a cell's part of one cycle is rarely a whole number. So the draws of a group
are numbered on from cycle to cycle. Lay its units out in a line, shard by shard; draw k falls on the place
(offset + k stride) mod n of the line, where the stride is near n divided by the golden ratio and has no common divisor
with n. Then

- n consecutive draws fall on every place once: no cell has its units drawn a second time before all cells of its group
  were drawn to the end;
- places of any stretch of draws are spread over the line about as evenly as can be (three-distance theorem), so that a
  cell's part of each cycle is within a few draws of its ideal, and every cell has its turn;
- the parts of the cells add up to the group's draws in each cycle, exactly;
- how many of the first k draws fell into a cell is a difference of sums of floor((stride i + b) / n), each of which
  takes as many steps as Euclid's algorithm: nothing has to be replayed to know it for any cycle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.loading.stream.permutation import permuted

_Integers = NDArray[np.int64]

_OFFSETS = 4
"""Keeps the keys of offsets apart from those of the order."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of all groups, group by group and in each by shard.

    Attributes
    ----------
    blocks : ndarray of int64, shape (C,)
        The shard of each cell.
    starts, counts : ndarray of int64, shape (C,)
        Where the cell's units begin in ``members``, or its first unit where there are no members; how many it has.
    groups : ndarray of int64, shape (C,)
        The group of each cell, counted among those that are drawn.
    members : ndarray of int, shape (M,), or None
        Units in the order of the cells; None where the units of each cell follow one another.
    sizes, draws, strides, offsets : ndarray of int64, shape (groups,)
        Units of each group, how many draws it has in a cycle, and how they walk over its line.
    """

    blocks: _Integers
    starts: _Integers
    counts: _Integers
    groups: _Integers
    members: NDArray[Any] | None
    sizes: _Integers
    draws: _Integers
    strides: _Integers
    offsets: _Integers

    def drawn_before(self, cycle: int) -> _Integers:
        """How many draws each cell had in all cycles before this one; int64, shape (C,)."""
        laps, rest = np.divmod(np.int64(cycle) * self.draws, self.sizes)
        found: _Integers = laps[self.groups] * self.counts
        if not rest.any():
            return found
        first = np.flatnonzero(np.diff(self.groups, prepend=-1))
        line_ends = np.cumsum(self.counts)
        line_ends -= (line_ends - self.counts)[first][self.groups]
        below = self._drawn_below(line_ends, rest)
        parts = np.diff(below, prepend=0)
        parts[first] = below[first]
        return found + parts

    def _drawn_below(self, line_ends: _Integers, rest: _Integers) -> _Integers:
        """How many of the first ``rest`` draws of a group fall on the line before each cell's end.

        A place y mod n is below t exactly where floor((y + n) / n) is one more than floor((y + n - t) / n).
        """
        zero = self.offsets + self.sizes
        whole = floor_sums(rest, self.sizes, self.strides, zero)
        groups = self.groups
        above = floor_sums(rest[groups], self.sizes[groups], self.strides[groups], zero[groups] - line_ends)
        return whole[groups] - above


def lay_out(block_units: _Integers, groups: NDArray[Any] | None, draws: Sequence[int], seed: int) -> Cells:
    """The cells of a store.

    Parameters
    ----------
    block_units : ndarray of int64, shape (S,)
        Units in each shard.
    groups : ndarray of int, shape (U,), or None
        The group of each unit; below 0 for units of none. None puts all units into group 0.
    draws : sequence of int, shape (G,)
        Draws of each group in a cycle; groups of none are left out.
    seed : int
        Where in its line a group begins.
    """
    drawn = np.array(draws, np.int64)
    if groups is None:
        blocks = np.flatnonzero(block_units)
        counts = block_units[blocks]
        members, owners = None, np.zeros(len(blocks), np.int64)
        starts = np.cumsum(counts) - counts
        names = np.zeros(1, np.int64)
    else:
        ordered, owners, blocks, starts, counts = _grouped(block_units, groups, drawn)
        steps = np.diff(ordered) != 1
        steps[starts[1:] - 1] = False
        members = ordered if steps.any() else None
        starts = starts if steps.any() else ordered[starts]
        names, owners = np.unique(owners, return_inverse=True)
    sizes = np.zeros(len(names), np.int64)
    np.add.at(sizes, owners, counts)
    return Cells(
        blocks=blocks.astype(np.int64),
        starts=starts.astype(np.int64),
        counts=counts.astype(np.int64),
        groups=owners.astype(np.int64),
        members=members,
        sizes=sizes,
        draws=drawn[names],
        strides=np.array([_stride(int(size)) for size in sizes], np.int64),
        offsets=permuted(np.zeros(len(names), np.int64), sizes, seed, _OFFSETS, names.astype(np.int64)),
    )


def floor_sums(terms: _Integers, moduli: _Integers, factors: _Integers, addends: _Integers) -> _Integers:
    """Sums of floor((factor i + addend) / modulus) over i from 0 to terms - 1, by Euclid's algorithm.

    Parameters
    ----------
    terms, moduli, factors, addends : ndarray of int64, shape (N,)
        At least 0, moduli at least 1; terms and moduli below 2**31.

    Examples
    --------
    >>> floor_sums(*(np.array([value]) for value in (4, 10, 6, 3)))
    array([3])
    """
    n, m, a, b = (np.array(part, np.int64) for part in (terms, moduli, factors, addends))
    found = np.zeros_like(n)
    while True:
        found += (n - 1) * n // 2 * (a // m) + n * (b // m)
        a %= m
        b %= m
        tops = a * n + b
        going = tops >= m
        if not going.any():
            return found
        n, b = np.where(going, tops // m, 0), tops % m
        m, a = np.where(going, a, 1), np.where(going, m, 0)


def _grouped(
    block_units: _Integers, groups: NDArray[Any], draws: _Integers
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Units by group and then by number, and the runs of one group and shard among them."""
    small = len(draws) < 2**16 - 1  # a stable sort of 16 bits is a radix sort
    none = len(draws)
    keys = np.where(groups < 0, none, groups).astype(np.uint16 if small else np.int64)
    unwanted = np.append(draws == 0, True)
    keys[unwanted[keys]] = none
    total = int(np.bincount(keys, minlength=none + 1)[:none].sum())
    members = np.argsort(keys, kind="stable")[:total].astype(np.int32 if len(groups) < 2**31 else np.int64)
    owners = keys[members]
    blocks = np.repeat(np.arange(len(block_units), dtype=np.int32), block_units)[members]
    new = np.ones(total, bool)
    new[1:] = (owners[1:] != owners[:-1]) | (blocks[1:] != blocks[:-1])
    starts = np.flatnonzero(new)
    return members, owners[starts].astype(np.int64), blocks[starts], starts, np.diff(starts, append=total)


def _stride(size: int) -> int:
    """The first number from size / 1.618 on that has no common divisor with the size."""
    stride = size * 0x9E3779B97F4A7C15 >> 64
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride
