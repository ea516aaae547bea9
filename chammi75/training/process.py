"""A process of a run: the signals that it hears, the group that it belongs to, and the folder that its run holds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from chammi75.errors import ChammiError
from chammi75.training.run_folder import folder_of, open_run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.devices import Ranks
    from chammi75.training.run_folder import RunFolder


class Stopping:
    """Hears SIGTERM and SIGINT; a second SIGINT stops at once.

    Attributes
    ----------
    signal : int
        The one that came; 0 if none.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signal = 0
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # others may not
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def process_group(fabric: Fabric) -> Iterator[None]:
    """The processes of a run, connected while it goes well; what failed is left for the system to tear down."""
    distributed = torch.distributed
    was_there = distributed.is_available() and distributed.is_initialized()
    fabric.launch()
    yield
    if not was_there and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def held(recipe: TrainingRecipe, ranks: Ranks) -> Iterator[RunFolder]:
    """The run's folder, held by the first rank; where that cannot, all ranks hear why."""
    if not ranks.is_first:
        words = ranks.share_failure(None)
        if words is not None:
            raise ChammiError(words)
        yield folder_of(recipe)
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(open_run(recipe))
        except ChammiError as error:
            ranks.share_failure(str(error))
            raise
        ranks.share_failure(None)
        yield folder


def say_nothing(line: str) -> None:
    """What processes but the first say."""
