"""mini0005: mouse NIH/3T3 cells, seven organelles at three heights; a 16-bit file of pages for each channel.

The pages are z-slices of a spinning disk confocal, but the files do not say so: the recipe does (``axes: ZYX``). Cells
are a few µm thick, and each organelle lies at its own height in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import CellLine, Culture, Phenotype, grow_culture
from chammi75.mini.optics import Objective, focus_through, illumination
from chammi75.mini.population import visible_cells
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_recipe, write_tiff
from chammi75.mini.stains import STAINS
from chammi75.mini.textures import Image
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth

STUDY = "mini0005"
SHAPE = (256, 256)
MARGIN = 16
OBJECTIVE = Objective(magnification=40.0, numerical_aperture=1.1, refractive_index=1.33, pixel_size_um=0.27)
CAMERA = Camera(significant_bits=16, offset=400.0, electrons_per_count=0.12, read_noise_electrons=1.4)
NIH3T3 = CellLine(nucleus_radius_um=6.8, cell_radius_um=19.0, spacing_um=22.0, elongation=1.6)
#: Heights above the glass of the focal planes, and of the layers that are summed.
PLANES_UM = (0.6, 2.4, 4.2)
LAYERS_UM = (0.0, 1.2, 2.4, 3.6, 4.8, 6.0)
SECTION_UM = 1.2
#: Height of a cell where its thickness is 1.
HEIGHT_UM = 5.5


@dataclass(frozen=True)
class Organelle:
    """One channel: what it shows, the label, its emission, light of a structure of brightness 1, and where it lies.

    ``height`` is its middle as a share of the cell's height, ``spread_um`` how far it reaches up and down from there.
    """

    channel_type: str
    label: str
    emission_um: float
    electrons: float
    height: float
    spread_um: float


CHANNELS = (
    Organelle("nucleus", "Hoechst", 0.461, 420.0, 0.50, 2.0),
    Organelle("er", "Calnexin", 0.510, 380.0, 0.40, 1.8),
    Organelle("golgi", "GM130", 0.530, 420.0, 0.70, 1.0),
    Organelle("mitochondria", "TOM20", 0.570, 520.0, 0.40, 1.3),
    Organelle("microtubules", "Tubulin", 0.600, 560.0, 0.45, 1.6),
    Organelle("cytoskeleton", "Phalloidin", 0.670, 620.0, 0.05, 0.8),
    Organelle("membrane", "WGA", 0.790, 460.0, 0.95, 1.0),
)
EVENTS: dict[int, tuple[Literal["exact", "near"] | None, str | None]] = {3: ("near", None), 6: (None, "blurred")}
"""What is particular to every eighth field from this number on: a second pass over the field before, or a fault."""
BLEACHED = 0.6


@dataclass(frozen=True)
class Position:
    """One field of view: its number from 1, and that of the field whose cells it shows."""

    fov: int
    cells_of: int
    duplicate: Literal["exact", "near"] | None = None
    defect: str | None = None

    @property
    def name(self) -> str:
        """What its files' names begin with."""
        return f"3T3-organelles_pos{self.fov:03d}"

    def file(self, channel: int) -> str:
        """Path of a channel's file."""
        return f"images/{self.name}_C{channel + 1}-{CHANNELS[channel].label}.tif"


def plan(size: float) -> tuple[Position, ...]:
    """Fields of view, 8 for a ``size`` of 1. A larger study begins with those of a smaller one."""
    positions = []
    for number in range(max(1, round(8 * size))):
        duplicate, defect = EVENTS.get(number % 8, (None, None))
        positions.append(Position(number + 1, number if duplicate else number + 1, duplicate, defect))
    return tuple(positions)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size)) * len(PLANES_UM)


def simulate(position: Position, seed: int) -> tuple[NDArray[np.uint16], tuple[CellTruth, ...]]:
    """One field of view, uint16 of shape (7, 3, 256, 256) with axes CZYX, and its cells."""
    cells_of = f"pos{position.cells_of}"
    culture = grow_culture(
        generator(seed, STUDY, cells_of, "culture"),
        SHAPE,
        margin=MARGIN,
        pixel_size_um=OBJECTIVE.pixel_size_um,
        line=NIH3T3,
        phenotype=Phenotype(mitotic_share=0.05),
    )
    planes_um = tuple(height + (7.0 if position.defect == "blurred" else 0.0) for height in PLANES_UM)
    stack = np.empty((len(CHANNELS), len(PLANES_UM), *SHAPE), dtype=np.uint16)
    for index, organelle in enumerate(CHANNELS):
        stained = STAINS[organelle.channel_type](generator(seed, STUDY, cells_of, organelle.channel_type), culture)
        images = focus_through(
            _spread_over_heights(stained, culture, organelle),
            LAYERS_UM,
            planes_um,
            objective=OBJECTIVE,
            wavelength_um=organelle.emission_um,
            section_um=SECTION_UM,
        )
        lamp = illumination(generator(seed, STUDY, organelle.label), SHAPE, falloff=0.15)
        rng = generator(seed, STUDY, position.name, organelle.label, "exposure")
        left = BLEACHED if position.duplicate == "near" else 1.0
        for z, image in enumerate(images):
            electrons = (organelle.electrons * left * image[culture.view] + 4.0) * lamp
            stack[index, z] = CAMERA.expose(rng, electrons)
    return stack, visible_cells(culture)


def _spread_over_heights(stained: Image, culture: Culture, organelle: Organelle) -> NDArray[np.float64]:
    """Light of each layer, (L, H, W): the stain, shared out around the organelle's height in the cell."""
    middle = organelle.height * HEIGHT_UM * np.maximum(culture.thickness, 0.75 * culture.maps.mask)
    away = (np.array(LAYERS_UM)[:, None, None] - middle[None]) / organelle.spread_um
    share = np.exp(-away * away)
    return np.asarray(stained[None] * share / share.sum(axis=0))


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated NIH/3T3 cells, seven organelles, z-stacks of a spinning disk confocal",
        "license": "CC-BY-SA-4.0",
        "include": ["images/*.tif"],
        "pattern": r"{plate}_pos{fov}_C{channel:\d}-{*}",
        "axes": "ZYX",
        "channels": [
            {"name": str(index + 1), "panel": organelle.label, "channel_type": organelle.channel_type}
            for index, organelle in enumerate(CHANNELS)
        ],
        "record": {
            "biology.organism": "Mus musculus",
            "biology.cell_line": "NIH/3T3",
            "biology.cell_type": "fibroblast",
            "microscopy.type": "spinning disk confocal",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
        },
        "guidance": "guidance/{plate}_pos{fov}_z{z}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    fields = map_threads(lambda position: _write_position(home, position, seed), plan(size))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(image for field in fields for image in field)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_position(home: Path, position: Position, seed: int) -> list[ImageTruth]:
    stack, cells = simulate(position, seed)
    paths = tuple(position.file(index) for index in range(len(CHANNELS)))
    for path, pages in zip(paths, stack, strict=True):
        write_tiff(home / path, pages)
    images = []
    original = Position(position.cells_of, position.cells_of).file(0) if position.duplicate else None
    for z in range(len(PLANES_UM)):
        for index in range(len(CHANNELS)):
            write_guidance(home / "guidance" / f"{position.name}_z{z}-ch{index}.safetensors", cells)
        images.append(
            ImageTruth(
                path=paths[0],
                width=SHAPE[1],
                height=SHAPE[0],
                phenotype="untreated",
                cells=cells,
                z_slice=z,
                duplicate=position.duplicate,
                duplicate_of=original,
                defects=(position.defect,) if position.defect else (),
                group=f"pos{position.cells_of:03d}",
                channel_paths=paths,
            )
        )
    return images
