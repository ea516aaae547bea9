"""mini0008: budding yeast at 100x, six strains with a tagged protein each; bright field and GFP, 16-bit, 14 bits used.

The strains stand for classes of the yeast GFP collection (Huh et al. 2003, Nature 425:686): each protein is where it is
known to be. The files are named as Harmony names them, by row, column, field and channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.colony import LOCALISATIONS, Colony, draw_protein, grow_colony
from chammi75.mini.optics import Objective, blur, bright_field, illumination
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_recipe, write_table, write_tiff
from chammi75.mini.textures import band_limited_noise
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, place_in_picture, write_truth

STUDY = "mini0008"
SHAPE = (256, 256)
MARGIN = 16
CANVAS = (SHAPE[0] + 2 * MARGIN, SHAPE[1] + 2 * MARGIN)
OBJECTIVE = Objective(magnification=100.0, numerical_aperture=1.4, refractive_index=1.515, pixel_size_um=0.13)
CAMERA = Camera(significant_bits=14, offset=200.0, electrons_per_count=0.5, read_noise_electrons=1.8)
CHANNELS = (("Transmitted light", "bright-field", 0.60), ("GFP", "protein", 0.51))
CONDENSER = ((1.0, 0.0, 0.0), (0.8, 0.12, 0.05), (0.7, -0.10, 0.08), (0.8, 0.04, -0.12), (0.7, -0.06, -0.10))
#: Optically, a cell is so much denser than the medium, and its wall adds so much (refractive index, µm).
INDEX_STEP = 0.034
WALL_UM = 0.030
STRAINS = ("HTB2", "PGK1", "OM45", "PMA1", "VPH1", "CDC12")
COLUMNS_PER_PLATE = 12


@dataclass(frozen=True)
class Field:
    """One field of view of a strain, whose number is also the row of its well."""

    plate: int
    strain: int
    column: int
    fov: int
    cells_of: int
    duplicate: Literal["exact", "near"] | None = None
    defect: str | None = None

    @property
    def plate_name(self) -> str:
        """Name of the plate, which is its folder."""
        return f"YGC-{7501 + self.plate}"

    @property
    def well(self) -> str:
        """The well, such as A02."""
        return f"{chr(ord('A') + self.strain)}{self.column:02d}"

    @property
    def group(self) -> str:
        """Which cells it shows."""
        return f"{self.plate_name}_{self.well}_f{self.cells_of:02d}"

    @property
    def name(self) -> str:
        """Which field it is."""
        return f"{self.plate_name}_{self.well}_f{self.fov:02d}"

    def file(self, channel: int, fov: int | None = None) -> str:
        """Path of a channel's file, of this field or another of the well."""
        return (
            f"images/{self.plate_name}/r{self.strain + 1:02d}c{self.column:02d}f{fov or self.fov:02d}p01"
            f"-ch{channel + 1}sk1fk1fl1.tiff"
        )


EVENTS: dict[tuple[int, int], tuple[Literal["exact", "near"] | None, str | None]] = {
    (1, 0): (None, "saturated"),
    (2, 1): ("near", None),
    (3, 1): (None, "blurred"),
}
"""Strain and whether the column is even -> what the second field of the well is."""


def plan(size: float) -> tuple[Field, ...]:
    """Fields of view, 24 for a ``size`` of 1. A larger study begins with those of a smaller one."""
    fields = []
    for number in range(max(1, round(2 * len(STRAINS) * size))):
        replicate, strain = divmod(number, len(STRAINS))
        plate, column = divmod(replicate, COLUMNS_PER_PLATE)
        fields.append(Field(plate, strain, column + 1, 1, 1))
        duplicate, defect = EVENTS.get((strain, column % 2), (None, None))
        fields.append(Field(plate, strain, column + 1, 2, 1 if duplicate else 2, duplicate, defect))
    return tuple(fields)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size))


def simulate(field: Field, seed: int) -> tuple[NDArray[np.uint16], tuple[CellTruth, ...]]:
    """The planes of one field of view, uint16 of shape (2, 256, 256), and its cells."""
    colony = grow_colony(generator(seed, STUDY, field.group, "colony"), CANVAS, OBJECTIVE.pixel_size_um)
    protein = draw_protein(generator(seed, STUDY, field.group, "protein"), colony, LOCALISATIONS[field.strain])
    rng = generator(seed, STUDY, field.name, "exposure")
    shift = (-7, 10) if field.duplicate == "near" else (0, 0)
    rows, columns = (slice(MARGIN + by, MARGIN + by + length) for by, length in zip(shift, SHAPE, strict=True))
    # the transmitted picture is taken a little below the cells, where their walls are dark
    off_um = 6.0 if field.defect == "blurred" else 0.0
    image = bright_field(
        _wave(generator(seed, STUDY, field.group, "light"), colony),
        objective=OBJECTIVE,
        wavelength_um=CHANNELS[0][2],
        defocus_um=1.1 + off_um + float(rng.normal(0.0, 0.15)),
        condenser=CONDENSER,
        condenser_spread=0.05,
    )
    sharp = OBJECTIVE.psf_sigma_px(CHANNELS[1][2], 0.25 * off_um)
    light = blur(protein, [(0.75, sharp), (0.25, float(np.hypot(sharp, OBJECTIVE.to_px(0.7))))])
    lamps = [
        illumination(generator(seed, STUDY, field.plate_name, name), SHAPE, falloff=0.15) for name, _, _ in CHANNELS
    ]
    exposure = 14.0 if field.defect == "saturated" else 1.0
    electrons = (image[rows, columns] * 2600.0 * lamps[0], (900.0 * light[rows, columns] + 25.0) * lamps[1] * exposure)
    planes = np.stack([CAMERA.expose(rng, expected) for expected in electrons])
    return planes, _visible(colony, MARGIN + shift[0], MARGIN + shift[1])


def _wave(rng: np.random.Generator, colony: Colony) -> NDArray[np.complex128]:
    """The wave just behind the cells."""
    grain = band_limited_noise(rng, CANVAS, period_px=OBJECTIVE.to_px(0.9), octaves=0.6)
    covered = colony.ground.label > 0
    body = INDEX_STEP * colony.thickness_um * (1.0 + 0.05 * grain) * (1.0 - 0.35 * colony.vacuoles)
    wall = WALL_UM * covered * np.exp(-((colony.ground.edge_px / OBJECTIVE.to_px(0.15)) ** 2))
    delay = 2.0 * np.pi / CHANNELS[0][2] * (body + wall)
    return np.asarray(np.exp(1j * blur(delay, [(1.0, 1.0)]) - 0.03 * covered))


def _visible(colony: Colony, top: int, left: int) -> tuple[CellTruth, ...]:
    """Mothers and buds whose centre lies in the picture; a bud names its mother as parent."""
    view = (slice(top, top + SHAPE[0]), slice(left, left + SHAPE[1]))
    areas = colony.ground.areas(len(colony.cells), view)
    cells = []
    for number, (cell, area) in enumerate(zip(colony.cells, areas, strict=True)):
        place = place_in_picture(cell.y - top, cell.x - left, SHAPE)
        if place is not None and area:
            mother = colony.mothers[number]
            phase = "bud" if mother is not None else "mother"
            cells.append(CellTruth(place[1], place[0], int(area), phase, number, mother))
    return tuple(cells)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated budding yeast, six GFP-tagged proteins, bright field and GFP at 100x",
        "license": "CC-BY-4.0",
        "include": ["images/**/*.tiff"],
        "pattern": r"{plate}/r{row}c{column}f{fov}p{*}-ch{channel:\d}sk1fk1fl1",
        "channels": [
            {"name": str(index + 1), "panel": name, "channel_type": channel_type}
            for index, (name, channel_type, _) in enumerate(CHANNELS)
        ],
        "record": {
            "biology.organism": "Saccharomyces cerevisiae",
            "microscopy.type": "fluorescence",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
            "geometry.significant_bits": CAMERA.significant_bits,
        },
        "tables": [
            {
                "path": "strains.csv",
                "match": {"experiment.plate": "plate", "experiment.well": "well"},
                "columns": {"biology.cell_line": "strain"},
            }
        ],
        "guidance": "guidance/{plate}_{well}_f{fov}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    fields = plan(size)
    images = map_threads(lambda field: _write_field(home, field, seed), fields)
    write_table(home / "strains.csv", ("plate", "well", "strain", "localisation"), _strains(fields))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(images)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_field(home: Path, field: Field, seed: int) -> ImageTruth:
    planes, cells = simulate(field, seed)
    paths = tuple(field.file(index) for index in range(len(CHANNELS)))
    for index, (path, plane) in enumerate(zip(paths, planes, strict=True)):
        write_tiff(home / path, plane)
        write_guidance(home / "guidance" / f"{field.name}-ch{index}.safetensors", cells)
    return ImageTruth(
        path=paths[0],
        width=SHAPE[1],
        height=SHAPE[0],
        phenotype=LOCALISATIONS[field.strain],
        cells=cells,
        duplicate=field.duplicate,
        duplicate_of=field.file(0, fov=1) if field.duplicate else None,
        defects=(field.defect,) if field.defect else (),
        group=field.group,
        channel_paths=paths,
    )


def _strains(fields: Sequence[Field]) -> list[tuple[str, str, str, str]]:
    return sorted(
        {
            (field.plate_name, field.well, f"BY4741 {STRAINS[field.strain]}-GFP", LOCALISATIONS[field.strain])
            for field in fields
        }
    )
