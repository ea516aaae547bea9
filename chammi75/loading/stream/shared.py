"""Where a stream stands, in memory that it shares with its workers: what ``set_epoch`` says reaches them all.

The memory has no name. It is passed on as an open file that is in no folder any more, so that nothing is left of it
when the last process ends, however that ends.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
from typing import Any

_EPOCH, _POSITION, _MOVES, _REPLACED = range(4)
_FINISHED = 4
_WORKERS = 256
"""Workers of which it is known whether they came to an end; beyond that nobody is warned."""


class SharedPlace:
    """Epoch and position from which the next iteration goes on, the same for all processes that share a stream.

    It can be pickled. A process that is being started by ``multiprocessing`` shares it; any other copy stands where
    the original stood, and then goes its own way.

    Parameters
    ----------
    epoch, position : int
    """

    def __init__(self, epoch: int = 0, position: int = 0) -> None:
        self._values: Any = multiprocessing.get_context("spawn").RawArray("q", _FINISHED + _WORKERS)
        self.move(epoch, position)

    def __getstate__(self) -> dict[str, Any]:
        if multiprocessing.context.get_spawning_popen() is not None:
            return {"values": self._values}
        return {"place": self.read()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "values" in state:
            self._values = state["values"]
        else:
            SharedPlace.__init__(self, *state["place"])

    def read(self) -> tuple[int, int]:
        """Epoch and position."""
        return int(self._values[_EPOCH]), int(self._values[_POSITION])

    def move(self, epoch: int, position: int) -> None:
        """Go on from there with the next iteration."""
        self._values[_EPOCH], self._values[_POSITION] = epoch, position
        self._values[_MOVES] += 1

    @property
    def moves(self) -> int:
        """How often somebody moved: what tells one iteration from the next."""
        return int(self._values[_MOVES])

    @property
    def replaced(self) -> int:
        """Samples that others stood in for, in all processes."""
        return int(self._values[_REPLACED])

    def count_replaced(self) -> None:
        """One more. Two processes that count at the same moment may count one."""
        self._values[_REPLACED] += 1

    def finish(self, worker: int, moves: int) -> None:
        """A worker came to the end of the iteration that it began after so many moves."""
        if worker < _WORKERS:
            self._values[_FINISHED + worker] = moves

    def is_finished(self, worker: int) -> bool:
        """Whether that worker has come to its end before, and nobody moved since."""
        return worker < _WORKERS and self._values[_FINISHED + worker] == self._values[_MOVES]
