"""A wide-field fluorescence microscope: what it photographs of a stained culture, dye by dye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import Culture
from chammi75.mini.filaments import Starts, grow
from chammi75.mini.optics import Objective, blur
from chammi75.mini.textures import Image


@dataclass(frozen=True)
class Dye:
    """One channel.

    Parameters
    ----------
    channel_type, name : str
        What it shows, and what the dye is called.
    emission_um : float
        Where the dye emits.
    electrons, background : float
        What a structure of brightness 1 gives per pixel, and what the medium gives.
    haze : float
        Share of the light that comes from out of focus.
    """

    channel_type: str
    name: str
    emission_um: float
    electrons: float
    background: float
    haze: float


@dataclass(frozen=True)
class Shot:
    """What is particular to one picture: how far out of focus, how long exposed (1: as planned), how far shifted."""

    defocus_um: float
    exposure: float = 1.0
    shift: tuple[int, int] = (0, 0)


def photograph(
    rng: np.random.Generator,
    sample: Image,
    culture: Culture,
    dye: Dye,
    shot: Shot,
    lamp: Image,
    *,
    objective: Objective,
    camera: Camera,
) -> NDArray[np.uint16]:
    """Counts of the picture's part of the canvas.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the noise, and of the medium's slope.
    sample : numpy.ndarray
        float64 of the canvas: how brightly each place shines; 1 is a typical structure.
    lamp : numpy.ndarray
        float64 of the picture: how brightly each place is lit; 1 is as planned.
    """
    core = objective.psf_sigma_px(dye.emission_um, shot.defocus_um)
    # cells are thicker than the depth of field: part of their light comes from just above and below the focus
    thick, near, far = (objective.to_px(length_um) for length_um in (0.55, 2.0, 8.0))
    spread = [
        (0.50 * (1.0 - dye.haze), core),
        (0.50 * (1.0 - dye.haze), float(np.hypot(thick, core))),
        (0.65 * dye.haze, float(np.hypot(near, core))),
        (0.35 * dye.haze, float(np.hypot(far, core))),
    ]
    rows, columns = (slice(part.start + by, part.stop + by) for part, by in zip(culture.view, shot.shift, strict=True))
    light = blur(sample, spread)[rows, columns]
    tilt_y, tilt_x = rng.uniform(-0.08, 0.08, 2)
    medium = dye.background * (
        1.0 + np.linspace(-tilt_y, tilt_y, lamp.shape[0])[:, None] + np.linspace(-tilt_x, tilt_x, lamp.shape[1])
    )
    return camera.expose(rng, (dye.electrons * light + medium) * lamp * shot.exposure)


def scatter_debris(rng: np.random.Generator, culture: Culture, number: int) -> Image:
    """Specks and pieces of lint that shine in all channels, ``number`` of them: float64 of the canvas."""
    if number == 0:
        return np.zeros(culture.shape)
    length = np.where(rng.random(number) < 0.35, culture.px(14.0), culture.px(0.9))
    starts = Starts(
        y=rng.uniform(0, culture.shape[0], number),
        x=rng.uniform(0, culture.shape[1], number),
        heading=rng.uniform(0, 2 * np.pi, number),
        length=length * rng.uniform(0.6, 1.6, number),
        brightness=rng.uniform(6.0, 14.0, number) * culture.px(0.9) / np.sqrt(length),
        label=np.zeros(number, dtype=np.int32),
    )
    lint = grow(rng, starts, np.zeros(culture.shape, dtype=np.int32), np.zeros(culture.shape, dtype=bool), bend=0.04)
    return blur(lint, [(1.0, culture.px(0.7))])
