"""Budding yeast: round cells with walls and vacuoles, many with a bud, and where a tagged protein sits in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chammi75.mini.filaments import Starts, grow
from chammi75.mini.nuclei import soft_step
from chammi75.mini.outlines import Ground, Outline, random_lobes, scatter, share_ground, warp
from chammi75.mini.textures import Image, band_limited_noise

LOCALISATIONS = ("nucleus", "cytosol", "mitochondria", "cell periphery", "vacuole membrane", "bud neck")
"""Where `draw_protein` can put a protein."""

RADIUS_UM = 2.35


@dataclass(frozen=True)
class Colony:
    """Cells and what is in them.

    Parameters
    ----------
    cells : tuple of Outline
        Mothers and buds.
    mothers : tuple
        Of each cell: the number of its mother if it is a bud, else None.
    nuclei, lumens, necks : tuple of Outline
        Nuclei; vacuoles; and the rings between mothers and buds.
    ground : Ground
        Which cell owns which pixel.
    thickness_um : numpy.ndarray
        Height of the cells.
    vacuoles : numpy.ndarray
        0 to 1.
    pixel_size_um : float
        Size of a pixel.
    """

    cells: tuple[Outline, ...]
    mothers: tuple[int | None, ...]
    nuclei: tuple[Outline, ...]
    lumens: tuple[Outline, ...]
    necks: tuple[Outline, ...]
    ground: Ground
    thickness_um: Image
    vacuoles: Image
    pixel_size_um: float

    def px(self, length_um: float) -> float:
        """A length in pixels."""
        return length_um / self.pixel_size_um


def grow_colony(rng: np.random.Generator, shape: tuple[int, int], pixel_size_um: float) -> Colony:
    """Cells on a canvas of ``shape`` pixels, in clusters."""
    unit = 1.0 / pixel_size_um
    places = scatter(
        rng,
        shape,
        spacing_px=2.25 * RADIUS_UM * unit,
        coverage=0.62,
        colony_px=14.0 * unit,
        margin_px=RADIUS_UM * unit,
        tries=10,
    )
    cells: list[Outline] = []
    mothers: list[int | None] = []
    nuclei, lumens, necks = [], [], []
    for y, x in places:
        radius = RADIUS_UM * unit * float(rng.lognormal(0.0, 0.09))
        axis = float(rng.uniform(0, 2 * np.pi))
        grown = float(rng.uniform(0.25, 0.80)) if rng.random() < 0.55 else 0.0
        lobes = random_lobes(rng, (2, 3), strength=0.015)
        cells.append(Outline(float(y), float(x), radius, float(rng.uniform(1.03, 1.22)), axis, lobes))
        mothers.append(None)
        mother = len(cells) - 1
        towards_y, towards_x = float(np.sin(axis)), float(np.cos(axis))
        side = 0.30 * radius
        lumen = float(rng.uniform(0.36, 0.52)) * radius
        lumens.append(Outline(float(y) - side * towards_y, float(x) - side * towards_x, lumen, 1.08, axis))
        at = 0.42 * radius
        nuclei.append(Outline(float(y) + at * towards_y, float(x) + at * towards_x, 0.40 * radius, 1.12, axis))
        if grown:
            reach = radius * float(np.sqrt(cells[mother].elongation))
            away = reach + 0.86 * grown * radius
            cells.append(
                Outline(float(y) + away * towards_y, float(x) + away * towards_x, grown * radius, 1.06, axis, lobes)
            )
            mothers.append(mother)
            ring = (float(y) + reach * towards_y, float(x) + reach * towards_x)
            necks.append(Outline(*ring, 0.50 * unit, 2.4, axis + np.pi / 2))
            if grown > 0.6:
                nuclei.append(
                    Outline(float(y) + away * towards_y, float(x) + away * towards_x, 0.34 * radius, 1.1, axis)
                )
    ground = share_ground(cells, [True] * len(cells), shape, warp(rng, shape, []))
    radii_um = np.array([0.0, *(cell.radius * pixel_size_um for cell in cells)])
    thickness = 2.0 * radii_um[ground.label] * np.sqrt(np.clip(1.0 - ground.reach**2, 0.0, 1.0))
    vacuoles = _discs(lumens, shape) * (ground.label > 0)
    return Colony(
        cells=tuple(cells),
        mothers=tuple(mothers),
        nuclei=tuple(nuclei),
        lumens=tuple(lumens),
        necks=tuple(necks),
        ground=ground,
        thickness_um=thickness,
        vacuoles=vacuoles,
        pixel_size_um=pixel_size_um,
    )


def _discs(outlines: Sequence[Outline], shape: tuple[int, int]) -> Image:
    """1 inside of any of the outlines, 0 outside, with a soft border."""
    image = np.zeros(shape)
    for outline in outlines:
        window = outline.window(shape, margin=2.0)
        inside = soft_step((1.0 - outline.reach(*np.ogrid[window])) * outline.radius)
        image[window] = np.maximum(image[window], inside)
    return image


def draw_protein(rng: np.random.Generator, colony: Colony, where: str) -> Image:
    """Light of a tagged protein that sits ``where``, one of `LOCALISATIONS`: float64 of the canvas, about 0 to 1.

    Raises
    ------
    KeyError
        If the place is none of them.
    """
    shape = (colony.ground.label.shape[0], colony.ground.label.shape[1])
    covered = colony.ground.label > 0
    grain = np.exp(0.10 * band_limited_noise(rng, shape, period_px=colony.px(0.6)))
    round_off = colony.thickness_um / (2.0 * RADIUS_UM)
    each = np.concatenate([[0.0], rng.lognormal(0.0, 0.28, len(colony.cells))])[colony.ground.label]
    match where:
        case "nucleus":
            place = 1.2 * _discs(colony.nuclei, shape)
        case "cytosol":
            place = round_off * (1.0 - 0.85 * colony.vacuoles) * grain
        case "mitochondria":
            place = 0.75 * _mitochondria(rng, colony)
        case "cell periphery":
            place = np.exp(-((colony.ground.edge_px / colony.px(0.13)) ** 2)) * grain
        case "vacuole membrane":
            place = 4.0 * colony.vacuoles * (1.0 - colony.vacuoles) + 0.08 * colony.vacuoles
        case "bud neck":
            place = 1.6 * _discs(colony.necks, shape)
        case _:
            raise KeyError(f"no place {where!r}; known: {', '.join(LOCALISATIONS)}")
    # every cell shines a little by itself
    return np.asarray(each * (place * covered) + 0.07 * round_off)


def _mitochondria(rng: np.random.Generator, colony: Colony) -> Image:
    """A few tubes along the inside of each cell's wall."""
    owner = np.repeat(np.arange(len(colony.cells)), 5)
    count = len(owner)
    cell = np.array([(c.y, c.x, c.radius) for c in colony.cells]).reshape(-1, 3)[owner]
    turn = rng.uniform(0, 2 * np.pi, count)
    away = cell[:, 2] * rng.uniform(0.45, 0.85, count)
    starts = Starts(
        y=cell[:, 0] + away * np.sin(turn),
        x=cell[:, 1] + away * np.cos(turn),
        heading=turn + np.pi / 2 + rng.normal(0, 0.5, count),
        length=cell[:, 2] * rng.gamma(3.0, 0.4, count),
        brightness=rng.lognormal(0.0, 0.3, count),
        label=(owner + 1).astype(np.int32),
    )
    return grow(rng, starts, colony.ground.label, colony.vacuoles > 0.5, bend=0.10)
