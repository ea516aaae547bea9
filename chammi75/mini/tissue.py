"""A section of glandular tissue, such as colon: crypts with their epithelium, and the stroma between them.

A section knows nothing of stains: it says where chromatin, cytoplasm, mucus and fibres are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.nuclei import NuclearMaps, Nucleus, draw_nuclei, make_nucleus, soft_step
from chammi75.mini.outlines import Ground, Outline, random_lobes, scatter, share_ground, warp
from chammi75.mini.textures import Image, band_limited_noise, ridges


@dataclass(frozen=True)
class Histology:
    """How a tissue is built; lengths in µm.

    Parameters
    ----------
    name : str
        What the truth calls it.
    gland_radius_um, gland_spacing_um : float
        Radius of glands, and distance of neighbours.
    irregularity : float
        How far glands and nuclei deviate from round and equal.
    nucleus_radius_um, chromatin : float
        Of epithelial nuclei: radius, and how dark they stain (1: normal).
    rows : tuple of float
        Where nuclei lie, as shares of the gland's radius.
    lumen : float
        Radius of the open middle, as a share.
    goblet_share : float
        Goblet cells per epithelial cell.
    """

    name: str
    gland_radius_um: float
    gland_spacing_um: float
    irregularity: float
    nucleus_radius_um: float
    chromatin: float
    rows: tuple[float, ...]
    lumen: float
    goblet_share: float


NORMAL = Histology("normal mucosa", 30.0, 58.0, 0.04, 2.9, 1.0, (0.86,), 0.16, 0.40)
TUMOUR = Histology("adenocarcinoma", 34.0, 56.0, 0.15, 3.7, 1.3, (0.84, 0.60), 0.20, 0.03)


@dataclass(frozen=True)
class Section:
    """What lies where, each a float64 image: ``epithelium``, ``mucus``, ``fibres`` and ``lumen`` are 0 to about 1."""

    nuclei: tuple[Nucleus, ...]
    maps: NuclearMaps
    epithelium: Image
    mucus: Image
    fibres: Image
    lumen: Image


def cut_section(
    rng: np.random.Generator, shape: tuple[int, int], *, pixel_size_um: float, histology: Histology
) -> Section:
    """A section of ``shape`` pixels."""
    unit = 1.0 / pixel_size_um
    places = scatter(
        rng,
        shape,
        spacing_px=histology.gland_spacing_um * unit,
        coverage=1.0,
        colony_px=400.0,
        margin_px=0.8 * histology.gland_radius_um * unit,
        tries=30,
    )
    glands = [_gland(rng, float(y), float(x), unit, histology) for y, x in places]
    ground = share_ground(glands, [False] * len(glands), shape, warp(rng, shape, [(26.0 * unit, 1.6 * unit)]))
    nuclei, mucus = _line_glands(rng, glands, ground, unit, histology)
    nuclei += _fill_stroma(rng, ground, shape, unit)
    chromatin = band_limited_noise(rng, shape, period_px=1.8 * unit, octaves=0.6)
    fine = band_limited_noise(rng, shape, period_px=2.5, octaves=0.4)
    maps = draw_nuclei(nuclei, shape, chromatin, fine)
    inside = soft_step(ground.edge_px - 1.0, 1.5)
    ragged = histology.lumen * (1.0 + 0.25 * band_limited_noise(rng, shape, period_px=9.0 * unit))
    lumen = inside * soft_step((ragged - ground.reach) * histology.gland_radius_um * unit, 1.5)
    return Section(
        nuclei=tuple(nuclei),
        maps=maps,
        epithelium=inside * (1.0 - lumen),
        mucus=mucus * inside * (1.0 - maps.mask),
        fibres=(1.0 - inside) * _fibres(rng, shape, unit),
        lumen=lumen,
    )


def _gland(rng: np.random.Generator, y: float, x: float, unit: float, histology: Histology) -> Outline:
    return Outline(
        y,
        x,
        histology.gland_radius_um * unit * float(rng.lognormal(0.0, 0.06 + histology.irregularity)),
        float(1.0 + rng.gamma(2.0, 0.10 + histology.irregularity)),
        float(rng.uniform(0, np.pi)),
        random_lobes(rng, (2, 3, 4, 5), strength=0.03 + histology.irregularity),
    )


def _line_glands(
    rng: np.random.Generator, glands: list[Outline], ground: Ground, unit: float, histology: Histology
) -> tuple[list[Nucleus], Image]:
    """Nuclei side by side along the base of each gland, and the mucus of goblet cells towards its middle."""
    nuclei = []
    shape = (ground.label.shape[0], ground.label.shape[1])
    mucus = np.zeros(shape)
    for number, gland in enumerate(glands, start=1):
        for row in histology.rows:
            count = int(2 * np.pi * row * gland.radius / (2.1 * histology.nucleus_radius_um * unit))
            turn = 2 * np.pi * (np.arange(count) + rng.normal(0, 0.18, count)) / max(count, 1)
            share = row + rng.normal(0, 0.03 + 0.2 * histology.irregularity, count)
            ys, xs, outwards = _points(gland, turn, share)
            for y, x, angle in zip(ys, xs, outwards, strict=True):
                if _label(ground, y, x) != number:
                    continue
                size = float(rng.lognormal(0.0, 0.06 + histology.irregularity))
                nuclei.append(
                    make_nucleus(
                        rng,
                        y=float(y),
                        x=float(x),
                        radius=histology.nucleus_radius_um * unit * size,
                        elongation=float(rng.uniform(1.3, 1.8)),
                        angle=float(angle + rng.normal(0, 0.2)),
                        dna=histology.chromatin * float(rng.lognormal(0.0, 0.10 + 0.5 * histology.irregularity)),
                    )
                )
            goblets = rng.random(count) < histology.goblet_share
            for y, x, angle in zip(*(part[goblets] for part in _points(gland, turn, 0.58 * share)), strict=True):
                drop = Outline(float(y), float(x), 4.2 * unit * float(rng.uniform(0.75, 1.2)), 1.35, float(angle))
                window = drop.window(shape, margin=2.0)
                inside = soft_step((1.0 - drop.reach(*np.ogrid[window])) * drop.radius, 1.2)
                mucus[window] = np.maximum(mucus[window], inside * (ground.label[window] == number))
    return nuclei, mucus


def _points(
    gland: Outline, turn: NDArray[np.float64], share: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Places at these directions and shares of the radius, (y, x), and the direction outwards there."""
    radius = gland.radius * share
    for order, amplitude, phase in gland.lobes:
        radius = radius * (1.0 + amplitude * np.cos(order * turn + phase))
    u, v = radius * np.cos(turn) * np.sqrt(gland.elongation), radius * np.sin(turn) / np.sqrt(gland.elongation)
    cosine, sine = np.cos(gland.angle), np.sin(gland.angle)
    down, right = u * sine + v * cosine, u * cosine - v * sine
    return gland.y + down, gland.x + right, np.arctan2(down, right)


def _label(ground: Ground, y: float, x: float) -> int:
    """The gland at a place, 0 outside of glands and of the picture."""
    row, column = int(y), int(x)
    height, width = ground.label.shape
    return int(ground.label[row, column]) if 0 <= row < height and 0 <= column < width else 0


def _fill_stroma(rng: np.random.Generator, ground: Ground, shape: tuple[int, int], unit: float) -> list[Nucleus]:
    """Lymphocytes, round and dark, and fibroblasts, long and thin, wherever no gland is."""
    nuclei = []
    places = scatter(rng, shape, spacing_px=6.6 * unit, coverage=0.8, colony_px=40.0 * unit, margin_px=0.0, tries=5)
    drift = rng.uniform(0, 2 * np.pi, 2)
    for y, x in places:
        is_long = rng.random() < 0.40
        dna, turn = float(rng.lognormal(0.1, 0.12)), float(rng.normal(0, 0.5))
        if _label(ground, y, x) or ground.reach[int(y), int(x)] < 1.0:
            continue
        nuclei.append(
            make_nucleus(
                rng,
                y=float(y),
                x=float(x),
                radius=(2.3 if is_long else 2.6) * unit,
                elongation=3.2 if is_long else 1.1,
                angle=float(np.sin(y / 60.0 + drift[0]) + np.sin(x / 75.0 + drift[1]) + turn),
                dna=dna if is_long else 1.35 * dna,
            )
        )
    return nuclei


def _fibres(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Image:
    """Collagen: wavy strands with clefts between them."""
    strands = ridges(band_limited_noise(rng, shape, period_px=7.0 * unit, octaves=0.5), sharpness=1.3)
    fine = band_limited_noise(rng, shape, period_px=2.5 * unit, octaves=0.5)
    clefts = soft_step(band_limited_noise(rng, shape, period_px=11.0 * unit, octaves=0.5) - 1.0, 0.3)
    return np.asarray((0.45 + 0.55 * strands) * np.exp(0.15 * fine) * (1.0 - 0.85 * clefts))
