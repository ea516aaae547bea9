"""mini0001: human U2OS cells in Cell Painting, two plates, four compounds; 5 channels, OME-TIFF, 12 bits.

Stains and dyes follow the Cell Painting assay (Bray et al. 2016, Nature Protocols 11:1757); what the
compounds do here is what they are known for, in caricature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import CellLine, Phenotype, empty_culture, grow_culture
from chammi75.mini.optics import Objective, illumination
from chammi75.mini.population import visible_cells
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_ome_tiff, write_recipe, write_table
from chammi75.mini.stains import STAINS
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth
from chammi75.mini.widefield import Dye, Shot, photograph, scatter_debris

STUDY = "mini0001"
SHAPE = (512, 512)
MARGIN = 32
OBJECTIVE = Objective(magnification=20.0, numerical_aperture=0.75, refractive_index=1.0, pixel_size_um=0.325)
CAMERA = Camera(significant_bits=12, offset=100.0, electrons_per_count=0.6, read_noise_electrons=1.6)
U2OS = CellLine(nucleus_radius_um=7.4, cell_radius_um=23.0, spacing_um=27.5, elongation=1.8)


CHANNELS = (
    Dye("nucleus", "Hoechst 33342", 0.461, 360.0, 14.0, 0.16),
    Dye("er", "Concanavalin A", 0.519, 620.0, 26.0, 0.24),
    Dye("rna", "SYTO 14", 0.549, 640.0, 30.0, 0.24),
    Dye("agp", "Phalloidin + WGA", 0.599, 760.0, 22.0, 0.22),
    Dye("mitochondria", "MitoTracker", 0.665, 950.0, 16.0, 0.26),
)

UNTREATED = Phenotype()
CONDITIONS: tuple[tuple[str, str, Phenotype], ...] = (
    ("DMSO", "negative", UNTREATED),
    (
        "aphidicolin",
        "no",
        Phenotype("enlarged nuclei", spacing=1.3, cell_size=1.22, nucleus_size=1.36, coverage=0.72, mitotic_share=0.0),
    ),
    ("brefeldin A", "no", Phenotype("collapsed er", er_spread=0.42, golgi_spread=4.0, mitotic_share=0.02)),
    ("DMSO", "negative", UNTREATED),
    ("FCCP", "no", Phenotype("fragmented mitochondria", mitochondria_length=0.16, mitochondria_spread=0.8)),
    ("latrunculin B", "no", Phenotype("lost actin", actin=0.15, cell_size=0.80, mitotic_share=0.03)),
)
"""Reagent, kind of control and phenotype of each well of a row; one more row per replicate."""


@dataclass(frozen=True)
class Field:
    """One field of view to simulate: where it is, of which condition, and what is wrong with it.

    ``cells_of`` is the field number whose cells it shows: its own, or another's where it is a duplicate.
    """

    plate: str
    well: str
    fov: int
    reagent: str
    control: str
    phenotype: Phenotype
    cells_of: int
    duplicate: Literal["exact", "near"] | None = None
    defect: str | None = None

    @property
    def name(self) -> str:
        """The file's name, without its suffix."""
        return f"{self.plate}_{self.well}_s{self.fov}"


DEFECTS: dict[tuple[int, int], tuple[Literal["exact", "near"] | None, str | None]] = {
    (0, 0): ("exact", None),
    (1, 0): ("near", None),
    (0, 1): (None, "blurred"),
    (1, 1): (None, "saturated"),
    (0, 2): (None, "empty"),
}
"""Plate of a pair, and place in a row, of wells that have a third field: a duplicate of the first, or a fault."""

ROWS = "BCDEFGHIJKLMNO"
BLOCKS = 3
"""A plate of 384 wells has room for three blocks of columns; then the next pair of plates begins."""


def plan(size: float) -> tuple[Field, ...]:
    """Fields of view, 29 on two plates for a ``size`` of 1. A larger study begins with all fields of a smaller one."""
    fields = []
    for number in range(max(1, round(size * len(CONDITIONS) * 2))):
        replicate, place = divmod(number // 2, len(CONDITIONS))
        pair, replicate = divmod(replicate, len(ROWS) * BLOCKS)
        block, row = divmod(replicate, len(ROWS))
        plate = f"CP{7501 + 2 * pair + number % 2}"
        well = f"{ROWS[row]}{2 + place + block * len(CONDITIONS):02d}"
        reagent, control, phenotype = CONDITIONS[place]
        for fov in (1, 2):
            fields.append(Field(plate, well, fov, reagent, control, phenotype, cells_of=fov))
        if (number % 2, place) in DEFECTS:
            duplicate, defect = DEFECTS[number % 2, place]
            fields.append(Field(plate, well, 3, reagent, control, phenotype, 1 if duplicate else 3, duplicate, defect))
    return tuple(fields)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size))


def simulate(field: Field, seed: int) -> tuple[NDArray[np.uint16], tuple[CellTruth, ...]]:
    """The planes of one field of view, uint16 of shape (5, 512, 512), and its cells."""
    cells_name = f"{field.plate}_{field.well}_s{field.cells_of}"
    # the copy of an exact duplicate is exposed by the noise of the original
    shot = cells_name if field.duplicate == "exact" else field.name
    if field.defect == "empty":
        culture = empty_culture(SHAPE, margin=MARGIN, pixel_size_um=OBJECTIVE.pixel_size_um)
    else:
        culture = grow_culture(
            generator(seed, STUDY, cells_name, "culture"),
            SHAPE,
            margin=MARGIN,
            pixel_size_um=OBJECTIVE.pixel_size_um,
            line=U2OS,
            phenotype=field.phenotype,
        )
    shift = (5, -9) if field.duplicate == "near" else (0, 0)
    rng = generator(seed, STUDY, cells_name, "debris")
    debris = scatter_debris(rng, culture, int(rng.choice([0, 1, 2], p=[0.72, 0.2, 0.08])))
    planes = np.empty((len(CHANNELS), *SHAPE), dtype=np.uint16)
    for index, dye in enumerate(CHANNELS):
        stained = STAINS[dye.channel_type](generator(seed, STUDY, cells_name, dye.channel_type), culture)
        of_plate = generator(seed, STUDY, field.plate, dye.channel_type)
        batch = float(of_plate.lognormal(0.0, 0.08))
        lamp = illumination(of_plate, SHAPE, falloff=0.22)
        rng = generator(seed, STUDY, shot, dye.channel_type, "exposure")
        # autofocus is never perfect, and each dye sits at its own height
        defocus = 11.0 if field.defect == "blurred" else abs(float(rng.normal(0.0, 0.5)))
        taken = Shot(defocus, 7.0 if field.defect == "saturated" else 1.0, shift)
        batched = replace(dye, electrons=dye.electrons * batch)
        planes[index] = photograph(
            rng, stained + debris, culture, batched, taken, lamp, objective=OBJECTIVE, camera=CAMERA
        )
    return planes, visible_cells(culture, shift)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated Cell Painting of U2OS cells under four compounds, two plates",
        "license": "CC0-1.0",
        "include": ["images/**/*.ome.tif"],
        "pattern": "{plate}_{well}_s{fov}",
        "channels": [{"name": channel.name, "channel_type": channel.channel_type} for channel in CHANNELS],
        "record": {
            "biology.organism": "Homo sapiens",
            "biology.cell_line": "U2OS",
            "microscopy.type": "fluorescence",
            "microscopy.magnification": OBJECTIVE.magnification,
        },
        "tables": [
            {
                "path": "platemap.csv",
                "match": {"experiment.plate": "plate", "experiment.well": "well"},
                "columns": {"experiment.reagent": "reagent", "experiment.control": "control"},
            }
        ],
        "guidance": "guidance/{plate}_{well}_s{fov}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    fields = plan(size)
    images = map_threads(lambda field: _write_field(home, field, seed), fields)
    write_table(home / "platemap.csv", ("plate", "well", "reagent", "control"), _platemap(fields))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(images)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_field(home: Path, field: Field, seed: int) -> ImageTruth:
    planes, cells = simulate(field, seed)
    path = f"images/{field.plate}/{field.name}.ome.tif"
    write_ome_tiff(
        home / path,
        planes,
        name=field.name,
        channels=[(channel.name, channel.emission_um) for channel in CHANNELS],
        objective=OBJECTIVE,
        significant_bits=CAMERA.significant_bits,
    )
    for index in range(len(CHANNELS)):
        write_guidance(home / "guidance" / f"{field.name}-ch{index}.safetensors", cells)
    return _image_truth(field, path, cells)


def _image_truth(field: Field, path: str, cells: tuple[CellTruth, ...]) -> ImageTruth:
    original = None
    if field.duplicate:
        original = f"images/{field.plate}/{field.plate}_{field.well}_s{field.cells_of}.ome.tif"
    return ImageTruth(
        path=path,
        width=SHAPE[1],
        height=SHAPE[0],
        phenotype="empty" if field.defect == "empty" else field.phenotype.name,
        cells=cells,
        duplicate=field.duplicate,
        duplicate_of=original,
        defects=(field.defect,) if field.defect else (),
        group=f"{field.plate}_{field.well}_s{field.cells_of}",
        reagent=field.reagent,
    )


def _platemap(fields: Sequence[Field]) -> list[tuple[str, str, str, str]]:
    return sorted({(field.plate, field.well, field.reagent, field.control) for field in fields})
