"""Writes the source files of the embedded dataset: simulated microscopy that is built like anyone's own.

A study is a module of `chammi75.mini.studies` with a function ``write(folder, *, size, seed)`` that returns its recipe;
a new one is one more file there and one more line in `STUDIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chammi75.errors import ChammiError
from chammi75.mini.studies import brightfield, plate, timelapse

STUDIES: dict[str, Callable[..., Path]] = {
    plate.STUDY: plate.write,
    timelapse.STUDY: timelapse.write,
    brightfield.STUDY: brightfield.write,
}
"""Study -> what writes it."""


def write_sources(folder: Path, *, size: float = 1.0, seed: int = 75) -> tuple[Path, ...]:
    """Simulate all studies into ``folder``.

    The same ``seed`` gives the same bytes on every run. A larger ``size`` adds images and leaves the first ones as they
    are.

    Parameters
    ----------
    folder : pathlib.Path
        Where the studies' folders are made: each gets ``images/``, ``guidance/``, ``recipe.yaml``, ``truth.json`` and,
        where there are wells, ``platemap.csv``.
    size : float
        Factor on the number of images, above 0: 1.0 gives about 60, a fraction makes a small one for a test.
    seed : int
        Seed of everything, not negative.

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
    return tuple(write(Path(folder), size=size, seed=seed) for write in STUDIES.values())
