"""Who yields which positions: whole batches, dealt out to ranks and to the workers of each.

Batch b of what is left of an epoch is the positions from start + b B to start + (b + 1) B. At step t rank r of R takes
batch t R + r, and on that rank worker t mod W does its work; a DataLoader asks its workers in turn, so that batches
come in the order of steps. After step t all ranks together have had the positions before start + (t + 1) R B: a run
goes on there, on any ranks and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chammi75.errors import ChammiError

LAST = ("pad", "drop")


@dataclass(frozen=True)
class Deal:
    """The batches of one worker of one rank in one epoch. Every rank has the same number of whole batches.

    Parameters
    ----------
    length : int
        Positions of the epoch.
    batch_size : int or None
        Positions of a batch; None deals out single positions.
    rank, world_size : int
        Which rank this is, of how many.
    worker, workers : int
        Which worker of the rank this is, of how many; 0 of 1 without worker processes.
    start : int
        The first position that is left; at or behind ``length`` there is none.
    last : {"pad", "drop"}
        What becomes of positions that do not fill a batch on every rank: ``"pad"`` goes on behind the epoch's last
        position (repeats, which can be told by that), ``"drop"`` leaves them out.

    Raises
    ------
    ChammiError
        If a number is out of range.

    Examples
    --------
    >>> [batch.tolist() for batch in Deal(10, 2, rank=1, world_size=2)]
    [[2, 3], [6, 7], [10, 11]]
    >>> [batch.tolist() for batch in Deal(10, 2, rank=1, world_size=2, last="drop")]
    [[2, 3], [6, 7]]
    """

    length: int
    batch_size: int | None
    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1
    start: int = 0
    last: str = "pad"

    def __post_init__(self) -> None:
        for name, lowest in (("length", 0), ("batch_size", 1), ("world_size", 1), ("workers", 1), ("start", 0)):
            value = getattr(self, name)
            if not (value is None and name == "batch_size") and not _is_whole(value, lowest):
                raise ChammiError(f"{name}={value!r} must be a whole number, at least {lowest}")
        for name, total in (("rank", "world_size"), ("worker", "workers")):
            value = getattr(self, name)
            if not _is_whole(value, 0) or value >= getattr(self, total):
                raise ChammiError(
                    f"{name}={value!r} must be from 0 to {total} - 1, which is {getattr(self, total) - 1}"
                )
        if self.last not in LAST:
            raise ChammiError(f"last={self.last!r} must be one of {', '.join(map(repr, LAST))}")

    @property
    def steps(self) -> int:
        """Batches of each rank."""
        left = max(self.length - self.start, 0)
        return left // self._stride if self.last == "drop" else -(-left // self._stride)

    @property
    def batches(self) -> int:
        """Batches of this worker."""
        return max(-(-(self.steps - self.worker) // self.workers), 0)

    def positions(self, step: int) -> NDArray[np.int64]:
        """The positions that this rank has at a step; int64, shape (B,)."""
        size = self.batch_size or 1
        first = self.start + (step * self.world_size + self.rank) * size
        return np.arange(first, first + size, dtype=np.int64)

    def position_after(self, positions: ArrayLike) -> int:
        """Where all ranks go on behind the step that yielded these positions here.

        Parameters
        ----------
        positions : array of int, shape (B,)
            One batch of this rank, by whichever of its workers.

        Raises
        ------
        ChammiError
            If that is no batch of this rank.

        Examples
        --------
        >>> Deal(10, 2, rank=1, world_size=2).position_after([6, 7])
        8
        """
        given = np.atleast_1d(np.asarray(positions))
        step = -1
        if given.size and given.dtype.kind in "iu":
            step = (int(given[0]) - self.start) // self._stride
        if not 0 <= step < self.steps or not np.array_equal(given, self.positions(step)):
            shown = f"{given[:3].tolist()}{' and so on' if given.size > 3 else ''}"
            raise ChammiError(
                f"positions {shown} are no batch of rank {self.rank} of {self.world_size} from position {self.start} "
                f"on: give a batch that this stream yielded in this epoch"
            )
        return self.start + (step + 1) * self._stride

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for step in range(self.worker, self.steps, self.workers):
            yield self.positions(step)

    @property
    def _stride(self) -> int:
        """Positions of one step of all ranks."""
        return self.world_size * (self.batch_size or 1)


def _is_whole(value: object, lowest: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= lowest)
