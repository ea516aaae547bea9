"""Stains: each draws a culture in the light of one marker.

A stain is a function (rng, culture) -> float64 image of the canvas, where 1 is about the brightness of a typical
structure. A new marker is one more function and one more line in `STAINS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.culture import Culture
from chammi75.mini.filaments import Starts, grow
from chammi75.mini.optics import blur
from chammi75.mini.textures import Image, band_limited_noise, ridges


def draw_nucleus(rng: np.random.Generator, culture: Culture) -> Image:
    """DNA: bright nuclei with chromatin texture and dark nucleoli, a trace in the cytoplasm."""
    return culture.maps.dna + 0.012 * culture.thickness


def draw_er(rng: np.random.Generator, culture: Culture) -> Image:
    """Endoplasmic reticulum: sheets around the nucleus that dissolve into a net of tubules; nuclear envelope."""
    spread = culture.phenotype.er_spread
    net = ridges(band_limited_noise(rng, culture.shape, period_px=culture.px(3.0), octaves=0.45), sharpness=1.7)
    patches = band_limited_noise(rng, culture.shape, period_px=culture.px(7.0), octaves=0.7)
    away = culture.maps.distance_px / culture.px(7.5 * spread)
    sheets = np.exp(-away * away) / spread**0.7
    tubules = (0.10 + 0.75 * np.exp(-0.55 * away)) * min(spread, 1.0)
    cytoplasm = (0.55 * sheets * (0.65 + 0.35 * net) + tubules * (0.12 + 0.88 * net)) * np.exp(0.18 * patches)
    inside = culture.maps.mask
    image = culture.thickness * cytoplasm * (1.0 - 0.62 * inside) + 0.28 * culture.maps.envelope + 0.06 * inside
    return np.asarray(_staining(rng, culture, 0.20, rounded=1.5) * image)


def draw_rna(rng: np.random.Generator, culture: Culture) -> Image:
    """RNA: bright nucleoli, an even nucleoplasm, and a cytoplasm full of ribosomes."""
    grain = band_limited_noise(rng, culture.shape, period_px=culture.px(1.6), octaves=0.6)
    patches = band_limited_noise(rng, culture.shape, period_px=culture.px(6.0), octaves=0.6)
    away = culture.maps.distance_px / culture.px(13.0)
    cytoplasm = culture.thickness * (0.22 + 0.58 * np.exp(-away)) * np.exp(0.14 * grain + 0.16 * patches)
    nucleoli = culture.maps.nucleoli * culture.phenotype.nucleolar_rna
    inside = culture.maps.mask
    image = cytoplasm * (1.0 - 0.62 * inside) + 0.26 * culture.maps.rna * np.exp(0.08 * grain) + 1.05 * nucleoli
    return _staining(rng, culture, 0.18, rounded=1.5) * image


def draw_agp(rng: np.random.Generator, culture: Culture) -> Image:
    """Actin, Golgi and plasma membrane: cortex, stress fibres, ruffles, a bright Golgi beside the nucleus, vesicles."""
    actin = culture.phenotype.actin
    edge = culture.ground.edge_px
    covered = culture.ground.label > 0
    ruffle = band_limited_noise(rng, culture.shape, period_px=culture.px(9.0), octaves=0.6)
    grain = band_limited_noise(rng, culture.shape, period_px=culture.px(1.5), octaves=0.5)
    cortex = covered * np.exp(-edge / culture.px(0.75)) * np.exp(0.45 * ruffle)
    lamella = covered * np.exp(-((edge / culture.px(3.5)) ** 2)) * (0.10 + 0.16 * np.maximum(ruffle, 0.0))
    membrane = culture.thickness * (0.13 + 0.05 * np.maximum(grain, 0.0)) * np.exp(0.10 * ruffle)
    fibres = _stress_fibres(rng, culture)
    golgi = _golgi(rng, culture)
    vesicles = _vesicles(rng, culture)
    surface = 0.16 * culture.maps.mask + 0.14 * culture.maps.envelope
    rest = 0.35 + 0.65 * actin
    image = (
        actin * (0.50 * cortex + 0.85 * lamella + 0.50 * fibres)
        + rest * membrane
        + 1.25 * golgi
        + 0.5 * vesicles
        + surface
    )
    if actin < 0.7:
        # broken actin gathers in aggregates
        clumps = np.maximum(band_limited_noise(rng, culture.shape, period_px=culture.px(2.6), octaves=0.4) - 1.7, 0.0)
        image = image + (1.0 - actin) * 1.1 * clumps * covered * (1.0 - culture.maps.mask)
    return _staining(rng, culture, 0.22, rounded=1.7) * image


def draw_mitochondria(rng: np.random.Generator, culture: Culture) -> Image:
    """Mitochondria: a net of short, curved filaments around the nucleus, or dots where they are fragmented."""
    phenotype = culture.phenotype
    per_cell = 170 * max(1.0, phenotype.mitochondria_length**-0.8)
    starts = _around_nuclei(
        rng,
        culture,
        per_cell=int(per_cell),
        gap_px=culture.px(0.6),
        reach_px=culture.px(6.5 * phenotype.mitochondria_spread),
        length_px=culture.px(6.5 * phenotype.mitochondria_length),
    )
    width = 1.0 if phenotype.mitochondria_length > 0.5 else 2.3
    filaments = grow(rng, starts, culture.ground.label, culture.maps.mask > 0.4, bend=0.20 * culture.pixel_size_um)
    haze = 0.16 * culture.thickness * np.exp(-culture.maps.distance_px / culture.px(9.0))
    image = 0.42 * width * filaments + haze * (1.0 - 0.6 * culture.maps.mask)
    return _staining(rng, culture, 0.30, rounded=1.0) * image


def draw_microtubules(rng: np.random.Generator, culture: Culture) -> Image:
    """Microtubules: long fibres from a centre beside the nucleus, or bundles around it; a spindle in mitosis."""
    phenotype = culture.phenotype
    cells = _cells_that_show(culture)
    dissolved: Image = culture.thickness * (0.16 + 0.34 * (1.0 - min(phenotype.microtubules, 1.0)))
    dissolved = dissolved * (1.0 - 0.6 * culture.maps.mask)
    per_cell = max(int(90 * phenotype.microtubules), 1)
    owner = np.repeat(cells, per_cell)
    count = len(owner)
    fibres = np.zeros(culture.shape)
    if count:
        cell = np.array([(o.y, o.x, o.radius, o.angle, o.elongation) for o in culture.outlines])[owner]
        nuclei = np.array([(n.outline.y, n.outline.x, n.outline.radius) for n in culture.nuclei])[owner]
        centre = np.repeat(rng.uniform(0, 2 * np.pi, len(cells)), per_cell)
        turn = rng.uniform(0, 2 * np.pi, count)
        bundled = rng.random(count) < phenotype.bundling
        # most of the fibres have let go of the centre and lie anywhere around the nucleus
        free = bundled | (rng.random(count) < 0.7)
        side = np.where(free, turn, centre)
        away = nuclei[:, 2] * np.where(free, rng.uniform(1.0, 1.5, count), 1.08)
        along = side + np.pi / 2 + rng.normal(0, 0.25, count)
        heading = np.where(bundled, along, np.where(free, side + rng.normal(0, 0.9, count), turn))
        # in long cells they run along the axis
        lean = np.minimum(0.35 * (cell[:, 4] - 1.0), 0.6)
        heading = heading - lean * 0.5 * np.sin(2.0 * (heading - cell[:, 3]))
        length = cell[:, 2] * rng.gamma(4.0, 0.22, count) * np.where(bundled, 0.6, 1.0)
        light = rng.lognormal(-0.1, 0.3, count) * np.where(bundled, 1.9, 1.0)
        y, x = nuclei[:, 0] + away * np.sin(side), nuclei[:, 1] + away * np.cos(side)
        starts = _starts(y, x, heading, length, light, owner)
        bend = 0.09 * culture.pixel_size_um * (1.0 + phenotype.bundling)
        fibres = grow(rng, starts, culture.ground.label, culture.maps.mask > 0.9, bend=bend)
    spindles = culture.per_cell(culture.rounded.astype(float)) * np.exp(-culture.maps.distance_px / culture.px(2.2))
    # light per length becomes light per pixel, whatever the pixel's size
    image = 0.30 * float(np.sqrt(culture.pixel_size_um / 0.325)) * fibres + dissolved + 1.3 * spindles
    return np.asarray(_staining(rng, culture, 0.20, rounded=1.2) * image)


def draw_cytoskeleton(rng: np.random.Generator, culture: Culture) -> Image:
    """Filamentous actin alone: cortex, ruffled edges, stress fibres."""
    actin = culture.phenotype.actin
    covered = culture.ground.label > 0
    edge = culture.ground.edge_px
    ruffle = band_limited_noise(rng, culture.shape, period_px=culture.px(9.0), octaves=0.6)
    cortex = covered * np.exp(-edge / culture.px(0.75)) * np.exp(0.45 * ruffle)
    lamella = covered * np.exp(-((edge / culture.px(3.5)) ** 2)) * (0.12 + 0.16 * np.maximum(ruffle, 0.0))
    clumps = np.maximum(band_limited_noise(rng, culture.shape, period_px=culture.px(2.6), octaves=0.4) - 1.7, 0.0)
    broken = max(1.0 - actin, 0.0) * clumps * covered * (1.0 - culture.maps.mask)
    image = actin * (0.55 * cortex + lamella + 0.50 * _stress_fibres(rng, culture)) + 0.10 * culture.thickness
    return _staining(rng, culture, 0.22, rounded=1.7) * (image + broken)


def draw_golgi(rng: np.random.Generator, culture: Culture) -> Image:
    """The Golgi alone, with the vesicles that leave it."""
    # blurring leaves traces below nought
    ribbon = np.maximum(_golgi(rng, culture), 0.0)
    image = 1.3 * ribbon + 0.35 * _vesicles(rng, culture) + 0.05 * culture.thickness
    return _staining(rng, culture, 0.25, rounded=1.0) * image


def draw_membrane(rng: np.random.Generator, culture: Culture) -> Image:
    """The plasma membrane: bright where cells end or touch, a veil over each, with vesicles."""
    covered = culture.ground.label > 0
    ruffle = band_limited_noise(rng, culture.shape, period_px=culture.px(5.0), octaves=0.7)
    grain = band_limited_noise(rng, culture.shape, period_px=culture.px(0.9), octaves=0.5)
    rim = covered * np.exp(-culture.ground.edge_px / culture.px(0.5)) * np.exp(0.35 * ruffle)
    veil = covered * (0.20 + 0.10 * culture.thickness) * np.exp(0.22 * grain + 0.12 * ruffle)
    return _staining(rng, culture, 0.20, rounded=1.5) * (0.75 * rim + veil + 0.25 * _vesicles(rng, culture))


def _staining(rng: np.random.Generator, culture: Culture, spread: float, *, rounded: float) -> Image:
    """How strongly each cell took the stain, as an image: log-normal, and brighter by ``rounded`` in mitosis."""
    strength = rng.lognormal(0.0, spread, len(culture.outlines))
    strength *= np.where(culture.rounded, rounded, 1.0)
    image = culture.per_cell(strength)
    # a nucleus may lie over the border of its cell's ground
    return np.where((image == 0.0) & (culture.maps.mask > 0), 1.0, image)


def _cells_that_show(culture: Culture) -> NDArray[np.int64]:
    """Indices of cells that own ground on the canvas and are not rounded."""
    seen = np.zeros(len(culture.outlines) + 1, dtype=bool)
    seen[np.unique(culture.ground.label)] = True
    return np.flatnonzero(seen[1:] & ~culture.rounded)


def _starts(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    heading: NDArray[np.float64],
    length: NDArray[np.float64],
    brightness: NDArray[np.float64],
    cells: NDArray[np.int64],
) -> Starts:
    return Starts(y, x, heading, length, brightness, (cells + 1).astype(np.int32))


def _around_nuclei(
    rng: np.random.Generator, culture: Culture, *, per_cell: int, gap_px: float, reach_px: float, length_px: float
) -> Starts:
    """Filaments around every nucleus, the denser the nearer; they head outwards or along the envelope."""
    cells = np.repeat(np.arange(len(culture.outlines)), per_cell)
    count = len(cells)
    nuclei = np.array([(n.outline.y, n.outline.x, n.outline.radius) for n in culture.nuclei]).reshape(-1, 3)[cells]
    turn = rng.uniform(0, 2 * np.pi, count)
    away = nuclei[:, 2] + gap_px + reach_px * rng.gamma(1.3, 0.8, count)
    heading = (
        turn
        + rng.choice([0.0, 0.5 * np.pi, np.pi, 1.5 * np.pi], count, p=[0.4, 0.2, 0.2, 0.2])
        + rng.normal(0, 0.6, count)
    )
    length = length_px * rng.gamma(3.0, 1.0 / 3.0, count)
    brightness = rng.lognormal(0.0, 0.35, count)
    return _starts(
        nuclei[:, 0] + away * np.sin(turn), nuclei[:, 1] + away * np.cos(turn), heading, length, brightness, cells
    )


def _stress_fibres(rng: np.random.Generator, culture: Culture) -> Image:
    """Bundles of parallel, almost straight fibres; some cells have many, some none. They pass below the nucleus."""
    cells = _cells_that_show(culture)
    if len(cells) == 0:
        return np.zeros(culture.shape)
    numbers = np.minimum(rng.geometric(0.055, len(cells)), 40)
    owner = np.repeat(cells, numbers)
    outline = np.array([(o.y, o.x, o.radius, o.angle, o.elongation) for o in culture.outlines])[owner]
    count = len(owner)
    axis = outline[:, 3] + np.repeat(rng.normal(0, 0.25, len(cells)), numbers) + rng.normal(0, 0.07, count)
    side = rng.uniform(-0.85, 0.85, count) * outline[:, 2] / np.sqrt(outline[:, 4])
    back = rng.uniform(-0.9, 0.2, count) * outline[:, 2] * np.sqrt(outline[:, 4])
    y = outline[:, 0] + side * np.cos(axis) + back * np.sin(axis)
    x = outline[:, 1] - side * np.sin(axis) + back * np.cos(axis)
    length = outline[:, 2] * rng.uniform(0.5, 1.6, count)
    brightness = rng.lognormal(-0.2, 0.5, count)
    starts = _starts(y, x, axis, length, brightness, owner)
    return grow(rng, starts, culture.ground.label, np.zeros(culture.shape, dtype=bool), bend=0.006)


def _golgi(rng: np.random.Generator, culture: Culture) -> Image:
    """A ribbon of stacks to one side of each nucleus."""
    spread = culture.phenotype.golgi_spread
    cells = _cells_that_show(culture)
    per_cell = 34
    owner = np.repeat(cells, per_cell)
    count = len(owner)
    if count == 0:
        return np.zeros(culture.shape)
    nuclei = np.array([(n.outline.y, n.outline.x, n.outline.radius) for n in culture.nuclei])[owner]
    side = np.repeat(rng.uniform(0, 2 * np.pi, len(cells)), per_cell) + min(0.36 * spread, 2.5) * rng.standard_normal(
        count
    )
    away = nuclei[:, 2] * 1.02 + culture.px(1.0 + 1.6 * spread) * rng.gamma(2.0, 0.5, count)
    y, x = nuclei[:, 0] + away * np.sin(side), nuclei[:, 1] + away * np.cos(side)
    heading = side + np.pi / 2 + rng.normal(0, 0.7, count)
    length = culture.px(1.8) / spread**0.5 * rng.gamma(2.0, 0.5, count)
    strength = np.repeat(rng.lognormal(0.0, 0.4, len(cells)), per_cell) / spread**0.8
    starts = _starts(y, x, heading, length, strength * rng.lognormal(0.0, 0.4, count), owner)
    ribbon = grow(rng, starts, culture.ground.label, culture.maps.mask > 0.8, bend=0.12)
    return blur(ribbon, [(1.0, culture.px(0.35))])


def _vesicles(rng: np.random.Generator, culture: Culture) -> Image:
    """Points in the cytoplasm, of uneven brightness."""
    starts = _around_nuclei(
        rng, culture, per_cell=45, gap_px=culture.px(0.5), reach_px=culture.px(7.0), length_px=culture.px(0.5)
    )
    return grow(rng, starts, culture.ground.label, culture.maps.mask > 0.8, bend=0.0)


STAINS: dict[str, Callable[[np.random.Generator, Culture], Image]] = {
    "nucleus": draw_nucleus,
    "er": draw_er,
    "rna": draw_rna,
    "agp": draw_agp,
    "mitochondria": draw_mitochondria,
    "microtubules": draw_microtubules,
    "cytoskeleton": draw_cytoskeleton,
    "golgi": draw_golgi,
    "membrane": draw_membrane,
}
"""Channel type -> how it is drawn."""
