"""Nuclei: chromatin with its texture, nucleoli, and the figures that chromosomes make when a cell divides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chammi75.mini.outlines import Outline, random_lobes
from chammi75.mini.textures import Image

#: Phases of the cell cycle that the simulator draws, in order; all but the first are mitotic.
PHASES = ("interphase", "prophase", "metaphase", "anaphase", "telophase")


@dataclass(frozen=True)
class Nucleus:
    """One nucleus: its outline, its phase, how much DNA and RNA it shows (1: the average), and its nucleoli."""

    outline: Outline
    phase: str
    dna: float
    rna: float
    nucleoli: tuple[Outline, ...]


@dataclass(frozen=True)
class NuclearMaps:
    """What nuclei contribute, each a float64 image.

    ``mask``: 1 inside nuclei with a soft border. ``distance_px``: from the nearest envelope, outside only, large far
    away. ``dna``: DNA per pixel. ``nucleoli``: 0 to 1. ``envelope``: the rim, 0 to 1. ``rna``: the nuclei's own level,
    0 outside.
    """

    mask: Image
    distance_px: Image
    dna: Image
    nucleoli: Image
    envelope: Image
    rna: Image


def make_nucleus(
    rng: np.random.Generator,
    *,
    y: float,
    x: float,
    radius: float,
    elongation: float,
    angle: float,
    phase: str = "interphase",
    dna: float = 1.0,
) -> Nucleus:
    """A nucleus at (y, x) with random lobes and nucleoli; sizes in pixels."""
    outline = Outline(y, x, radius, elongation, angle, random_lobes(rng, (2, 3, 4, 5), strength=0.035))
    count = int(rng.integers(2, 6))
    spread = radius * np.sqrt(rng.uniform(0.02, 0.40, count))
    turn = rng.uniform(0, 2 * np.pi, count)
    sizes = radius * rng.uniform(0.11, 0.22, count)
    nucleoli = tuple(
        Outline(
            y + float(s * np.sin(t)),
            x + float(s * np.cos(t)),
            float(size),
            1.25,
            float(t),
            random_lobes(rng, (2, 3), strength=0.12),
        )
        for s, t, size in zip(spread, turn, sizes, strict=True)
    )
    return Nucleus(outline, phase, dna, float(rng.lognormal(0.0, 0.15)), nucleoli if phase == "interphase" else ())


def chromosomes(nucleus: Nucleus) -> tuple[Outline, ...]:
    """The bodies of condensed chromatin of a dividing nucleus: a plate in metaphase, two sets from anaphase on."""
    own = nucleus.outline
    across = own.angle + np.pi / 2
    if nucleus.phase == "metaphase":
        return (Outline(own.y, own.x, own.radius * 0.54, 3.2, own.angle, _ragged(own)),)
    apart = {"anaphase": 0.52, "telophase": 1.25}[nucleus.phase] * own.radius
    size, long = (0.50, 2.8) if nucleus.phase == "anaphase" else (0.55, 1.9)
    return tuple(
        Outline(
            own.y + sign * apart * float(np.sin(across)),
            own.x + sign * apart * float(np.cos(across)),
            own.radius * size,
            long,
            own.angle,
            _ragged(own),
        )
        for sign in (-1.0, 1.0)
    )


def _ragged(own: Outline) -> tuple[tuple[int, float, float], ...]:
    """Chromosome arms stick out of the plate: the nucleus's lobes at higher orders."""
    return tuple((2 * order + 1, 0.8 * amplitude, phase) for order, amplitude, phase in own.lobes)


def draw_nuclei(nuclei: Sequence[Nucleus], shape: tuple[int, int], chromatin: Image, fine: Image) -> NuclearMaps:
    """Draw all nuclei.

    Parameters
    ----------
    nuclei : sequence of Nucleus
        Where they overlap, their DNA adds up, as in a wide-field image.
    shape : tuple of int
        Height and width.
    chromatin, fine : numpy.ndarray
        Two noise textures of unit variance: coarse chromatin domains and fine grain.
    """
    maps = NuclearMaps(
        mask=np.zeros(shape),
        distance_px=np.full(shape, 1e3),
        dna=np.zeros(shape),
        nucleoli=np.zeros(shape),
        envelope=np.zeros(shape),
        rna=np.zeros(shape),
    )
    # multiplicative, never negative
    texture = np.exp(0.22 * chromatin + 0.10 * fine)
    for nucleus in nuclei:
        if nucleus.phase in ("interphase", "prophase"):
            _draw_interphase(nucleus, shape, texture, fine, maps)
        else:
            _draw_mitosis(nucleus, shape, texture, maps)
    return maps


def _draw_interphase(nucleus: Nucleus, shape: tuple[int, int], texture: Image, fine: Image, maps: NuclearMaps) -> None:
    outline = nucleus.outline
    around, reach = _measure_distance(outline, outline.radius, shape, maps)
    window = outline.window(shape, margin=2.0)
    if maps.mask[window].size == 0:
        return
    top, left = (part.start - wide.start for part, wide in zip(window, around, strict=True))
    height, width = maps.mask[window].shape
    signed = (reach[top : top + height, left : left + width] - 1.0) * outline.radius
    inside = soft_step(-signed)
    # a nucleus is a flat lens: thinner at the rim
    lens = np.sqrt(np.clip(-signed / outline.radius * 2.2 + 0.12, 0.0, 1.0))
    for nucleolus in nucleus.nucleoli:
        part = nucleolus.window(shape)
        spot = soft_step((1.0 - nucleolus.reach(*np.ogrid[part])) * nucleolus.radius)
        maps.nucleoli[part] = np.maximum(maps.nucleoli[part], spot)
    maps.nucleoli[window] *= inside
    grain = texture[window]
    level = nucleus.dna
    if nucleus.phase == "prophase":
        grain = np.exp(0.75 * fine[window])
        level *= 1.35
    # heterochromatin lines the envelope and surrounds nucleoli
    rim = 1.0 + 0.18 * np.exp(-((signed / (0.10 * outline.radius)) ** 2))
    maps.dna[window] += level * inside * lens * grain * rim * (1.0 - 0.62 * maps.nucleoli[window])
    maps.mask[window] = np.maximum(maps.mask[window], inside)
    maps.envelope[window] = np.maximum(maps.envelope[window], np.exp(-((signed / (0.05 * outline.radius + 0.6)) ** 2)))
    maps.rna[window] = np.maximum(maps.rna[window], nucleus.rna * inside)


def _measure_distance(
    body: Outline, scale: float, shape: tuple[int, int], maps: NuclearMaps
) -> tuple[tuple[slice, slice], Image]:
    """Lower the distances around ``body``; ``scale`` turns its reach into pixels.

    Returns the part of the image that was touched, and the reach there.
    """
    window = body.window(shape, margin=2.2 * scale)
    reach = body.reach(*np.ogrid[window])
    maps.distance_px[window] = np.minimum(maps.distance_px[window], np.maximum((reach - 1.0) * scale, 0.0))
    return window, reach


def _draw_mitosis(nucleus: Nucleus, shape: tuple[int, int], texture: Image, maps: NuclearMaps) -> None:
    for body in chromosomes(nucleus):
        scale = float(body.radius / np.sqrt(body.elongation))
        _measure_distance(body, scale, shape, maps)
        window = body.window(shape, margin=2.0)
        y, x = np.ogrid[window]
        signed = (body.reach(y, x) - 1.0) * scale
        inside = soft_step(-signed)
        maps.dna[window] += 2.6 * nucleus.dna * inside * texture[window]
        maps.mask[window] = np.maximum(maps.mask[window], inside)


def soft_step(distance_px: Image, width_px: float = 1.0) -> Image:
    """0 outside, 1 inside, with an anti-aliased border about ``width_px`` wide; ``distance_px`` is positive inside."""
    t = np.clip(distance_px / (2.0 * width_px) + 0.5, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
