"""Writes the source files of the embedded dataset: simulated microscopy that is built like anyone's own.

A study is a module of `chammi75.mini.studies` that says what it is called, how many images it has, and writes them; a
new one is one more file there and one more line in `STUDIES`.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from chammi75.errors import ChammiError
from chammi75.mini.sourcefiles import refuse_taken
from chammi75.mini.studies import (
    brightfield,
    histology,
    migration,
    organelles,
    plate,
    screen,
    timelapse,
    yeast,
)


class Study(Protocol):
    """What a module of `chammi75.mini.studies` must have."""

    STUDY: str

    def count_images(self, size: float) -> int:
        """How many images a study of ``size`` has; nothing is simulated."""

    def write(self, folder: Path, *, size: float, seed: int) -> Path:
        """Write the study below ``folder``, and return the path of its recipe."""


_MODULES: tuple[Study, ...] = (
    plate,
    timelapse,
    brightfield,
    screen,
    organelles,
    migration,
    histology,
    yeast,
)
STUDIES: dict[str, Study] = {study.STUDY: study for study in _MODULES}
"""Name -> study, in the order in which they are built."""


def count_images(size: float = 1.0) -> int:
    """How many images ``mini`` has at a ``size``, without simulating any.

    Examples
    --------
    >>> count_images() < count_images(10)
    True
    """
    return sum(study.count_images(size) for study in STUDIES.values())


def write_sources(folder: Path, *, size: float = 1.0, seed: int = 75, workers: int = 1) -> tuple[Path, ...]:
    """Simulate all studies into ``folder``.

    The same ``seed`` gives the same bytes on every run. A larger ``size`` adds images and leaves the first ones as they
    are.

    Parameters
    ----------
    folder : pathlib.Path
        Where the studies' folders are made: each gets ``images/``, ``guidance/``, ``recipe.yaml``, ``truth.json`` and,
        where there are wells, ``platemap.csv``.
    size : float
        Factor on the number of images, above 0: 1.0 gives about 200, 50 gives about ten thousand, a fraction makes a
        small one for a test. Time and disk grow in proportion, memory does not.
    seed : int
        Seed of everything, not negative.
    workers : int
        Processes; what is written does not depend on it.

    Returns
    -------
    tuple of pathlib.Path
        The build recipes, one per study.

    Raises
    ------
    ChammiError
        If ``size`` or ``seed`` is out of range, or a study's folder already holds files.
    """
    if not 0 < size < float("inf"):
        raise ChammiError(f"size is {size}; it must be a number above 0, such as 1.0")
    if seed < 0:
        raise ChammiError(f"seed is {seed}; it must not be negative")
    for name in STUDIES:
        refuse_taken(Path(folder) / name)
    if workers <= 1:
        return tuple(_write(name, Path(folder), size, seed) for name in STUDIES)
    return _write_side_by_side(Path(folder), size, seed, min(workers, len(STUDIES)))


def _write(name: str, folder: Path, size: float, seed: int) -> Path:
    return STUDIES[name].write(folder, size=size, seed=seed)


def _write_side_by_side(folder: Path, size: float, seed: int, processes: int) -> tuple[Path, ...]:
    """Each study in a process: small arrays keep the interpreter busy, so that threads alone gain little."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy whatever threads the caller has
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_leave_interrupts_to_the_caller) as pool:
        with _interrupts_held():  # a process that is being started would show where Ctrl-C met it
            tasks = [pool.submit(_write, name, folder, size, seed) for name in STUDIES]
        try:
            return tuple(task.result() for task in tasks)
        except BrokenProcessPool as error:
            raise ChammiError(
                "a process that simulated was ended from outside: too little memory for so many (give fewer workers),"
                ' or the calling script lacks `if __name__ == "__main__":`'
            ) from error
        except BaseException:
            # nobody waits for the rest of thousands of images
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile never hear of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_caller() -> None:
    """The terminal sends Ctrl-C to every process; one of them tells of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
