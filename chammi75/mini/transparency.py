"""How cells look to light that passes through them: they delay it, and hardly absorb it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.culture import Culture
from chammi75.mini.filaments import Starts, grow
from chammi75.mini.optics import blur
from chammi75.mini.outlines import Outline
from chammi75.mini.textures import Image, band_limited_noise


@dataclass(frozen=True)
class Bodies:
    """Cells as lenses.

    Parameters
    ----------
    index_step : float
        By how much the cytoplasm's refractive index exceeds that of the medium.
    height_um : float
        Height of a cell at its nucleus.
    floaters : float
        How many dead cells and pieces of debris float in a picture, on average.
    """

    index_step: float
    height_um: float
    floaters: float = 5.0


def transparent_wave(
    rng: np.random.Generator, culture: Culture, bodies: Bodies, wavelength_um: float
) -> NDArray[np.complex128]:
    """The wave just behind the cells, where a flat wave of amplitude 1 came in: complex128 of the canvas."""
    phase = _phase(rng, culture, bodies, wavelength_um)
    return np.asarray(np.exp(1j * phase - _absorption(rng, culture)))


def _phase(rng: np.random.Generator, culture: Culture, bodies: Bodies, wavelength_um: float) -> Image:
    """How far the sample delays the light, in radians."""
    edge, shape = culture.ground.edge_px, culture.shape
    covered = culture.ground.label > 0
    ruffle = band_limited_noise(rng, shape, period_px=culture.px(8.0))
    grain = band_limited_noise(rng, shape, period_px=culture.px(2.2), octaves=0.6)
    # a lamella that thickens towards the nucleus
    height = covered * (1.0 - np.exp(-edge / culture.px(2.2))) * (0.30 + 0.06 * ruffle)
    height += (
        covered
        * 0.70
        * np.exp(-((culture.maps.distance_px / culture.px(5.0)) ** 2))
        * (1.0 - np.exp(-edge / culture.px(2.5)))
    )
    height += 0.10 * covered * np.exp(-(((edge - culture.px(1.0)) / culture.px(0.9)) ** 2)) * (1.0 + 0.5 * ruffle)
    height *= bodies.height_um
    rounded = culture.per_cell(culture.rounded.astype(float)) > 0
    sphere = 11.0 * np.sqrt(np.clip(1.0 - culture.ground.reach**2, 0.0, 1.0))
    height = np.where(rounded, sphere, height)
    # organelles make the cytoplasm uneven; nucleoplasm is a little thinner than cytoplasm, nucleoli are denser
    density = (
        1.0 + 0.16 * grain * (1.0 - 0.65 * culture.maps.mask) - 0.16 * culture.maps.mask + 0.75 * culture.maps.nucleoli
    )
    path = bodies.index_step * height * density + 0.014 * culture.maps.envelope
    path += 0.13 * _granules(rng, culture)
    path += 0.0015 * band_limited_noise(rng, shape, period_px=culture.px(3.0))
    phase = (2.0 * np.pi / wavelength_um) * path
    return blur(phase + _floaters(rng, culture, bodies.floaters), [(1.0, culture.px(0.28))])


def _granules(rng: np.random.Generator, culture: Culture) -> Image:
    """Lipid droplets and vesicles: dense points, mostly near the nucleus, many in some cells and few in others."""
    numbers = np.minimum(rng.geometric(0.045, len(culture.nuclei)), 70)
    owner = np.repeat(np.arange(len(culture.nuclei)), numbers)
    nuclei = np.array([(n.outline.y, n.outline.x, n.outline.radius) for n in culture.nuclei]).reshape(-1, 3)[owner]
    turn = rng.uniform(0, 2 * np.pi, len(owner))
    away = 1.15 * nuclei[:, 2] + culture.px(4.5) * rng.gamma(1.2, 0.9, len(owner))
    starts = Starts(
        y=nuclei[:, 0] + away * np.sin(turn),
        x=nuclei[:, 1] + away * np.cos(turn),
        heading=turn,
        length=np.full(len(owner), 0.9),
        brightness=rng.lognormal(0.0, 0.5, len(owner)),
        label=(owner + 1).astype(np.int32),
    )
    points = grow(rng, starts, culture.ground.label, culture.maps.mask > 0.7, bend=0.0)
    return blur(points, [(1.4, culture.px(0.30))])


def _floaters(rng: np.random.Generator, culture: Culture, number: float) -> Image:
    """Dead cells and debris that float above the others: strong lenses with bright halos."""
    phase = np.zeros(culture.shape)
    for _ in range(int(rng.poisson(number))):
        y, x = rng.uniform((0.0, 0.0), culture.shape)
        radius_um = float(rng.choice([rng.uniform(0.8, 2.0), rng.uniform(4.0, 6.0)], p=[0.7, 0.3]))
        ball = Outline(float(y), float(x), culture.px(radius_um))
        window = ball.window(culture.shape)
        phase[window] += 0.55 * radius_um * np.sqrt(np.clip(1.0 - ball.reach(*np.ogrid[window]) ** 2, 0.0, 1.0))
    return phase


def _absorption(rng: np.random.Generator, culture: Culture) -> Image:
    """How much of the amplitude the sample takes, as an exponent: a trace in cells, more in debris."""
    trace = 0.012 * culture.maps.mask + 0.008 * (culture.ground.label > 0)
    flecks = np.maximum(band_limited_noise(rng, culture.shape, period_px=culture.px(3.0), octaves=0.4) - 4.0, 0.0)
    return np.asarray(trace + 1.2 * flecks)
