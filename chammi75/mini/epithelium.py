"""A living epithelium, seen from its apical side: cells that pack, flow, and divide.

Columnar cells of a curved tissue are points in the plane that push each other apart. Between frames a smooth flow
carries them (convergent extension: shorter across, longer along), and some go through mitosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.outlines import random_lobes, scatter

#: Phases that a dividing cell goes through, one per frame; then there are two cells.
DIVISION = ("prophase", "metaphase", "anaphase", "telophase")


@dataclass(frozen=True)
class Columnar:
    """One cell of an epithelium.

    Parameters
    ----------
    track : int
        Its number through the movie.
    y, x : float
        Position in pixels.
    nucleus_depth_um, nucleus_radius_um : float
        How far the nucleus lies below the apical surface, and its radius.
    axis : float
        Direction of the spindle, in radians from x towards y.
    phase : str
        One of `chammi75.mini.nuclei.PHASES`.
    brightness : float
        Of its nucleus; 1 is the average.
    lobes : tuple
        Shape of its nucleus, as in `chammi75.mini.outlines.Outline`.
    parent : int or None
        Track of the cell that it came from by division.
    """

    track: int
    y: float
    x: float
    nucleus_depth_um: float
    nucleus_radius_um: float
    axis: float
    phase: str
    brightness: float
    lobes: tuple[tuple[int, float, float], ...]
    parent: int | None = None


def grow_epithelium(
    rng: np.random.Generator, shape: tuple[int, int], *, spacing_px: float, margin_px: float
) -> tuple[Columnar, ...]:
    """Cells that cover the canvas and ``margin_px`` around it."""
    places = scatter(
        rng, shape, spacing_px=0.82 * spacing_px, coverage=1.0, colony_px=100.0, margin_px=margin_px, tries=14
    )
    places = relax(places, spacing_px, rounds=30)
    return tuple(_new_cell(rng, track, float(y), float(x)) for track, (y, x) in enumerate(places))


def _new_cell(rng: np.random.Generator, track: int, y: float, x: float, parent: int | None = None) -> Columnar:
    return Columnar(
        track=track,
        y=y,
        x=x,
        nucleus_depth_um=float(rng.normal(4.2, 0.9)),
        nucleus_radius_um=float(rng.normal(2.25, 0.18)),
        axis=float(rng.uniform(0, np.pi)),
        phase="interphase",
        brightness=float(rng.lognormal(0.0, 0.15)),
        lobes=random_lobes(rng, (2, 3, 4), strength=0.05),
        parent=parent,
    )


def relax(places: NDArray[np.float64], spacing_px: float, *, rounds: int) -> NDArray[np.float64]:
    """Let points push apart those nearer than ``spacing_px``; shape (n, 2) in and out."""
    places = places.copy()
    for _ in range(rounds):
        apart = places[:, None, :] - places[None, :, :]
        distance = np.sqrt((apart**2).sum(axis=2))
        np.fill_diagonal(distance, np.inf)
        push = np.maximum(1.08 * spacing_px - distance, 0.0) / np.maximum(distance, 1e-6)
        places += 0.16 * (apart * push[:, :, None]).sum(axis=1)
    return places


def advance(
    rng: np.random.Generator,
    cells: Sequence[Columnar],
    shape: tuple[int, int],
    *,
    spacing_px: float,
    strain: float,
    entering: float,
) -> tuple[Columnar, ...]:
    """The same tissue one frame later.

    Parameters
    ----------
    strain : float
        How much the tissue lengthens along x, and shortens along y, per frame, as a share.
    entering : float
        Share of cells that enter mitosis in this frame.
    """
    next_track = max(cell.track for cell in cells) + 1
    later: list[Columnar] = []
    for cell in cells:
        y = cell.y - strain * (cell.y - shape[0] / 2) + float(rng.normal(0, 0.035 * spacing_px))
        x = cell.x + strain * (cell.x - shape[1] / 2) + float(rng.normal(0, 0.035 * spacing_px))
        if cell.phase == "telophase":
            for sign in (-1.0, 1.0):
                apart = 0.38 * spacing_px * sign
                daughter = _new_cell(
                    rng,
                    next_track,
                    y + apart * float(np.sin(cell.axis)),
                    x + apart * float(np.cos(cell.axis)),
                    cell.track,
                )
                later.append(replace(daughter, nucleus_radius_um=0.8 * cell.nucleus_radius_um, nucleus_depth_um=3.0))
                next_track += 1
            continue
        phase, depth = cell.phase, cell.nucleus_depth_um
        if phase in DIVISION:
            phase = DIVISION[DIVISION.index(phase) + 1]
        elif rng.random() < entering:
            phase = DIVISION[0]
        if phase in DIVISION:
            # nuclei rise to the apical side to divide
            depth += 0.6 * (2.4 - depth)
        later.append(replace(cell, y=y, x=x, phase=phase, nucleus_depth_um=depth))
    places = relax(np.array([(cell.y, cell.x) for cell in later]), spacing_px, rounds=4)
    return tuple(replace(cell, y=float(y), x=float(x)) for cell, (y, x) in zip(later, places, strict=True))
