"""A field of view of adherent cells: who lies where, in which phase, with which organelle morphology.

A culture knows nothing of stains, optics or cameras; `chammi75.mini.stains` draws it in the light of one marker each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.nuclei import NuclearMaps, Nucleus, draw_nuclei, make_nucleus
from chammi75.mini.outlines import Ground, Outline, random_lobes, scatter, share_ground, warp
from chammi75.mini.textures import Image, band_limited_noise

#: Phases in which an adherent cell lets go and becomes a sphere.
ROUNDED = ("metaphase", "anaphase")


@dataclass(frozen=True)
class Phenotype:
    """How cells of one condition look. Every number is a factor on the untreated state (1) unless said otherwise.

    Parameters
    ----------
    name : str
        What the truth calls it.
    spacing : float
        Distance of neighbours; 1.2 means fewer cells.
    cell_size, nucleus_size : float
        Radii.
    coverage : float
        Share of the ground that is grown over, 0 to 1; not a factor.
    mitotic_share : float
        Share of cells in mitosis; not a factor.
    er_spread : float
        How far the endoplasmic reticulum reaches from the nucleus.
    golgi_spread : float
        How far the Golgi is dispersed.
    mitochondria_length, mitochondria_spread : float
        Length of the filaments, and how far from the nucleus they lie.
    actin : float
        Filamentous actin: stress fibres and cortex.
    nucleolar_rna : float
        RNA in nucleoli.
    microtubules : float
        Tubulin in microtubules; the rest is dissolved.
    bundling : float
        Share of the microtubules that lie in thick bundles around the nucleus, 0 to 1; not a factor.
    """

    name: str = "untreated"
    spacing: float = 1.0
    cell_size: float = 1.0
    nucleus_size: float = 1.0
    coverage: float = 0.9
    mitotic_share: float = 0.06
    er_spread: float = 1.0
    golgi_spread: float = 1.0
    mitochondria_length: float = 1.0
    mitochondria_spread: float = 1.0
    actin: float = 1.0
    nucleolar_rna: float = 1.0
    microtubules: float = 1.0
    bundling: float = 0.0

    def at(self, strength: float) -> Phenotype:
        """This phenotype where only a share of its effect is there: 0 gives the untreated state's numbers, 1 its own.

        Examples
        --------
        >>> Phenotype("lost actin", actin=0.2).at(0.5).actin
        0.6
        """
        untreated = Phenotype()
        numbers = {
            field.name: (1.0 - strength) * getattr(untreated, field.name) + strength * getattr(self, field.name)
            for field in fields(self)
            if field.name != "name"
        }
        return replace(self, **numbers)


@dataclass(frozen=True)
class CellLine:
    """How cells of a line are built.

    Parameters
    ----------
    nucleus_radius_um, cell_radius_um, spacing_um : float
        Radii of nucleus and cell, and distance of neighbours, in µm.
    elongation : float
        Mean ratio of a cell's length to its width.
    """

    nucleus_radius_um: float
    cell_radius_um: float
    spacing_um: float
    elongation: float


@dataclass(frozen=True)
class Culture:
    """All cells of a field of view, in pixels of the canvas.

    The canvas is larger than the picture by ``margin`` on each side, so that blur and cells come in from outside.
    ``thickness`` is the height of the cells, 0 to about 1.
    """

    shape: tuple[int, int]
    margin: int
    pixel_size_um: float
    phenotype: Phenotype
    outlines: tuple[Outline, ...]
    nuclei: tuple[Nucleus, ...]
    ground: Ground
    maps: NuclearMaps
    thickness: Image

    @property
    def view(self) -> tuple[slice, slice]:
        """The part of the canvas that the picture shows."""
        return slice(self.margin, self.shape[0] - self.margin), slice(self.margin, self.shape[1] - self.margin)

    def px(self, length_um: float) -> float:
        """A length in pixels."""
        return length_um / self.pixel_size_um

    def per_cell(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """An image that has each cell's value on the cell's pixels, and 0 on bare ground."""
        return np.concatenate([[0.0], values])[self.ground.label]

    @property
    def rounded(self) -> NDArray[np.bool_]:
        """Which cells have rounded up for mitosis."""
        return np.array([nucleus.phase in ROUNDED for nucleus in self.nuclei], dtype=bool)


def empty_culture(shape: tuple[int, int], *, margin: int, pixel_size_um: float) -> Culture:
    """A field of view without any cell."""
    canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    blank = np.zeros(canvas)
    maps = NuclearMaps(mask=blank, distance_px=blank + 1e3, dna=blank, nucleoli=blank, envelope=blank, rna=blank)
    ground = Ground(label=np.zeros(canvas, dtype=np.int32), reach=blank + 1.0, edge_px=blank)
    return Culture(canvas, margin, pixel_size_um, Phenotype(name="empty"), (), (), ground, maps, blank)


def grow_culture(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    margin: int,
    pixel_size_um: float,
    line: CellLine,
    phenotype: Phenotype,
) -> Culture:
    """Cells of ``line`` under ``phenotype``, on a field of view of ``shape``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides everything.
    shape : tuple of int
        Height and width of the picture.
    margin : int
        Pixels that the canvas adds on each side.
    """
    canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    unit = 1.0 / pixel_size_um
    places = scatter(
        rng,
        canvas,
        spacing_px=line.spacing_um * phenotype.spacing * unit,
        coverage=phenotype.coverage,
        colony_px=3.2 * line.spacing_um * unit,
        margin_px=0.8 * line.cell_radius_um * unit,
    )
    outlines, nuclei = [], []
    # neighbours lie alike: the direction of cells is a smooth field
    drift = rng.uniform(0, 2 * np.pi, 3)
    for y, x in places:
        flow = 1.2 * np.sin(y / canvas[0] * 3.1 + drift[0]) + 1.2 * np.sin(x / canvas[1] * 2.7 + drift[1]) + drift[2]
        angle = float(flow + rng.normal(0, 0.45))
        outline, nucleus = _grow_cell(rng, float(y), float(x), angle, unit, line, phenotype)
        outlines.append(outline)
        nuclei.append(nucleus)
    return settle(rng, canvas, outlines, nuclei, margin=margin, pixel_size_um=pixel_size_um, phenotype=phenotype)


def settle(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    outlines: Sequence[Outline],
    nuclei: Sequence[Nucleus],
    *,
    margin: int,
    pixel_size_um: float,
    phenotype: Phenotype,
) -> Culture:
    """A culture of these cells, each with its nucleus: they share the ground, and their nuclei are drawn.

    A generator in the same state gives the same textures and the same bends of borders: so the cells of a movie can
    move from frame to frame, and stay the same otherwise.
    """
    unit = 1.0 / pixel_size_um
    coordinates = warp(rng, canvas, [(24.0 * unit, 2.0 * unit), (7.0 * unit, 0.35 * unit)])
    taut = [nucleus.phase in ROUNDED for nucleus in nuclei]
    ground = share_ground(outlines, taut, canvas, coordinates)
    chromatin = band_limited_noise(rng, canvas, period_px=2.2 * unit, octaves=0.7)
    fine = band_limited_noise(rng, canvas, period_px=max(1.0 * unit, 2.5), octaves=0.4)
    maps = draw_nuclei(nuclei, canvas, chromatin, fine)
    thickness = _measure_thickness(ground, maps, np.array(taut, dtype=bool), unit)
    return Culture(canvas, margin, pixel_size_um, phenotype, tuple(outlines), tuple(nuclei), ground, maps, thickness)


def _measure_thickness(ground: Ground, maps: NuclearMaps, taut: NDArray[np.bool_], unit: float) -> Image:
    """Height of the cells: flat at the edge, domed over the nucleus, a sphere where ``taut``."""
    rise = 1.0 - np.exp(-ground.edge_px / (1.6 * unit))
    flat = rise * (0.35 + 0.65 * np.exp(-((maps.distance_px / (9.0 * unit)) ** 2)))
    if not taut.any():
        return np.asarray(flat)
    sphere = 1.7 * np.sqrt(np.clip(1.0 - ground.reach**2, 0.0, 1.0))
    return np.where(np.concatenate([[False], taut])[ground.label], sphere, flat)


def _grow_cell(
    rng: np.random.Generator, y: float, x: float, angle: float, unit: float, line: CellLine, phenotype: Phenotype
) -> tuple[Outline, Nucleus]:
    size = float(rng.lognormal(0.0, 0.16))
    # DNA doubles in the cycle, and the nucleus grows with it
    cycle = float(rng.choice([1.0, rng.uniform(1.0, 2.0), 2.0], p=[0.55, 0.25, 0.20]))
    phase = "interphase"
    if rng.random() < phenotype.mitotic_share:
        phase = str(rng.choice(["prophase", "metaphase", "anaphase", "telophase"], p=[0.25, 0.35, 0.2, 0.2]))
    elongation = float(1.0 + (line.elongation - 1.0) * rng.gamma(3.0, 1.0 / 3.0))
    radius = line.cell_radius_um * unit * phenotype.cell_size * size
    # long cells are smooth spindles, wide ones have lobes
    lobes = random_lobes(rng, (2, 3, 4, 5, 7), strength=0.15 / elongation**0.7)
    if phase in ROUNDED:
        # a dividing cell rounds up
        radius, elongation, lobes = (
            0.50 * radius / size,
            1.08 if phase == "metaphase" else 1.35,
            random_lobes(rng, (2, 3), strength=0.025),
        )
        angle = angle if phase == "metaphase" else angle + np.pi / 2
    outline = Outline(y, x, radius, elongation, angle, lobes)
    off = 0.10 * radius * rng.standard_normal(2) if phase == "interphase" else np.zeros(2)
    nucleus = make_nucleus(
        rng,
        y=y + float(off[0]),
        x=x + float(off[1]),
        radius=float(
            line.nucleus_radius_um * unit * phenotype.nucleus_size * cycle**0.22 * rng.lognormal(0.0, 0.07) * size**0.25
        ),
        elongation=float(1.0 + 0.45 * (elongation - 1.0) + rng.uniform(0.0, 0.22)),
        angle=angle - (np.pi / 2 if phase == "anaphase" else 0.0) + float(rng.normal(0, 0.2)),
        phase=phase,
        dna=cycle**0.6 * float(rng.lognormal(0.0, 0.12)),
    )
    return outline, nucleus
