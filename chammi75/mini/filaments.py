"""Filaments: mitochondria, stress fibres, Golgi ribbons - anything thin that grows step by step.

All filaments of an image grow at once as one array of walkers, and leave their light on the pixels by bilinear weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.textures import Image

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Starts:
    """Where filaments begin, one entry per filament.

    Parameters
    ----------
    y, x : numpy.ndarray
        Positions in pixels.
    heading : numpy.ndarray
        Directions in radians, from x towards y.
    length : numpy.ndarray
        Lengths in pixels.
    brightness : numpy.ndarray
        Light per pixel of length.
    label : numpy.ndarray
        int32: label of the cell that the filament must stay in.
    """

    y: Vector
    x: Vector
    heading: Vector
    length: Vector
    brightness: Vector
    label: NDArray[np.int32]


def grow(
    rng: np.random.Generator,
    starts: Starts,
    label: NDArray[np.int32],
    keep_out: NDArray[np.bool_],
    *,
    bend: float,
    step_px: float = 0.8,
) -> Image:
    """Draw filaments that wander.

    Parameters
    ----------
    starts : Starts
        One entry per filament.
    label : numpy.ndarray
        int32 image of cells; a filament fades out where it would leave its own.
    keep_out : numpy.ndarray
        bool image of places where no filament goes, such as the nucleus.
    bend : float
        Standard deviation of the curvature, in radians per pixel.
    step_px : float
        Length of a step.

    Returns
    -------
    numpy.ndarray
        float64: light per pixel. A filament of brightness 1 leaves 1 per pixel of its length.
    """
    height, width = label.shape
    y, x, heading, light = starts.y, starts.x, starts.heading, starts.brightness * step_px
    left, owner = starts.length / step_px, starts.label
    curvature = bend * rng.standard_normal(len(y))
    # noise is drawn for all walkers, dead or alive, so that one that dies does not change the others
    alive = np.arange(len(y))
    places, shares = [], []
    for step in range(int(np.ceil(left.max())) if len(y) else 0):
        row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        stays = (row >= 0) & (row < height - 1) & (column >= 0) & (column < width - 1) & (step < left)
        corner = np.where(stays, row * width + column, 0)
        stays &= (label.ravel()[corner] == owner) & ~keep_out.ravel()[corner]
        if not stays.any():
            break
        alive, y, x, heading, light, left, owner, curvature, row, column, corner = (
            values[stays] for values in (alive, y, x, heading, light, left, owner, curvature, row, column, corner)
        )
        down, right = y - row, x - column
        lower, upper = light * down, light * (1.0 - down)
        places += [corner, corner + 1, corner + width, corner + width + 1]
        shares += [upper * (1.0 - right), upper * right, lower * (1.0 - right), lower * right]
        # curvature forgets itself slowly, so that filaments are smooth rather than jagged
        curvature = 0.93 * curvature + 0.37 * bend * rng.standard_normal(len(starts.y))[alive]
        heading = heading + curvature * step_px
        y = y + step_px * np.sin(heading)
        x = x + step_px * np.cos(heading)
    if not places:
        return np.zeros((height, width))
    image = np.bincount(np.concatenate(places), weights=np.concatenate(shares), minlength=height * width)
    return np.asarray(image.reshape(height, width), dtype=np.float64)
