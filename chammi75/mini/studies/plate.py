"""mini0001: human U2OS cells in Cell Painting, two plates, four compounds; 5 channels, OME-TIFF, 12 bits.

Stains and dyes follow the Cell Painting assay (Bray et al. 2016, Nature Protocols 11:1757); what the
compounds do here is what they are known for, in caricature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import CellLine, Culture, Phenotype, empty_culture, grow_culture
from chammi75.mini.filaments import Starts, grow
from chammi75.mini.optics import Objective, blur, illumination
from chammi75.mini.population import visible_cells
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_ome_tiff, write_recipe, write_table
from chammi75.mini.stains import STAINS
from chammi75.mini.textures import Image
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth

STUDY = "mini0001"
SHAPE = (512, 512)
MARGIN = 32
OBJECTIVE = Objective(magnification=20.0, numerical_aperture=0.75, refractive_index=1.0, pixel_size_um=0.325)
CAMERA = Camera(significant_bits=12, offset=100.0, electrons_per_count=0.6, read_noise_electrons=1.6)
U2OS = CellLine(nucleus_radius_um=7.4, cell_radius_um=23.0, spacing_um=27.5, elongation=1.8)


@dataclass(frozen=True)
class Channel:
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


CHANNELS = (
    Channel("nucleus", "Hoechst 33342", 0.461, 360.0, 14.0, 0.16),
    Channel("er", "Concanavalin A", 0.519, 620.0, 26.0, 0.24),
    Channel("rna", "SYTO 14", 0.549, 640.0, 30.0, 0.24),
    Channel("agp", "Phalloidin + WGA", 0.599, 760.0, 22.0, 0.22),
    Channel("mitochondria", "MitoTracker", 0.665, 950.0, 16.0, 0.26),
)

PLATES = ("CP7501", "CP7502")
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


DEFECTS: dict[tuple[str, str], tuple[Literal["exact", "near"] | None, str | None]] = {
    ("CP7501", "B02"): ("exact", None),
    ("CP7502", "B02"): ("near", None),
    ("CP7501", "B03"): (None, "blurred"),
    ("CP7502", "B03"): (None, "saturated"),
    ("CP7501", "B04"): (None, "empty"),
}
"""Wells that have a third field, which is a duplicate of the first or has a defect."""


def plan(size: float) -> tuple[Field, ...]:
    """Fields of view, 29 for a ``size`` of 1. A larger study begins with all fields of a smaller one."""
    wells = max(1, round(size * len(CONDITIONS) * len(PLATES)))
    fields = []
    for number in range(wells):
        replicate, place = divmod(number // len(PLATES), len(CONDITIONS))
        plate = PLATES[number % len(PLATES)]
        # rows B to O of a 384-well plate, then the next block of columns
        block, row = divmod(replicate, 14)
        well = f"{'BCDEFGHIJKLMNO'[row]}{2 + place + block * len(CONDITIONS):02d}"
        reagent, control, phenotype = CONDITIONS[place]
        for fov in (1, 2):
            fields.append(Field(plate, well, fov, reagent, control, phenotype, cells_of=fov))
        if (plate, well) in DEFECTS:
            duplicate, defect = DEFECTS[plate, well]
            fields.append(Field(plate, well, 3, reagent, control, phenotype, 1 if duplicate else 3, duplicate, defect))
    return tuple(fields)


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
    debris = _debris(generator(seed, STUDY, cells_name, "debris"), culture)
    planes = np.empty((len(CHANNELS), *SHAPE), dtype=np.uint16)
    for index, channel in enumerate(CHANNELS):
        stained = STAINS[channel.channel_type](generator(seed, STUDY, cells_name, channel.channel_type), culture)
        planes[index] = _photograph(field, seed, shot, channel, stained + debris, culture, shift)
    return planes, visible_cells(culture, shift)


def _photograph(
    field: Field, seed: int, shot: str, channel: Channel, sample: Image, culture: Culture, shift: tuple[int, int]
) -> NDArray[np.uint16]:
    plate = generator(seed, STUDY, field.plate, channel.channel_type)
    batch = float(plate.lognormal(0.0, 0.08))
    lamp = illumination(plate, SHAPE, falloff=0.22)
    rng = generator(seed, STUDY, shot, channel.channel_type, "exposure")
    # autofocus is never perfect, and each dye sits at its own height
    defocus = 11.0 if field.defect == "blurred" else abs(float(rng.normal(0.0, 0.5)))
    core = OBJECTIVE.psf_sigma_px(channel.emission_um, defocus)
    # cells are thicker than the depth of field: part of their light comes from just above and below the focus
    thick, near, far = (OBJECTIVE.to_px(length_um) for length_um in (0.55, 2.0, 8.0))
    spread = [
        (0.50 * (1.0 - channel.haze), core),
        (0.50 * (1.0 - channel.haze), float(np.hypot(thick, core))),
        (0.65 * channel.haze, float(np.hypot(near, core))),
        (0.35 * channel.haze, float(np.hypot(far, core))),
    ]
    exposure = 7.0 if field.defect == "saturated" else 1.0
    rows, columns = (slice(part.start + by, part.stop + by) for part, by in zip(culture.view, shift, strict=True))
    light = blur(sample, spread)[rows, columns]
    tilt_y, tilt_x = rng.uniform(-0.08, 0.08, 2)
    medium = channel.background * (
        1.0 + np.linspace(-tilt_y, tilt_y, SHAPE[0])[:, None] + np.linspace(-tilt_x, tilt_x, SHAPE[1])
    )
    return CAMERA.expose(rng, (channel.electrons * batch * light + medium) * lamp * exposure)


def _debris(rng: np.random.Generator, culture: Culture) -> Image:
    """Now and then a speck or a piece of lint that shines in all channels."""
    number = int(rng.choice([0, 1, 2], p=[0.72, 0.2, 0.08]))
    if number == 0:
        return np.zeros(culture.shape)
    owner = np.zeros(number, dtype=np.int32)
    length = np.where(rng.random(number) < 0.35, culture.px(14.0), culture.px(0.9))
    starts = Starts(
        y=rng.uniform(0, culture.shape[0], number),
        x=rng.uniform(0, culture.shape[1], number),
        heading=rng.uniform(0, 2 * np.pi, number),
        length=length * rng.uniform(0.6, 1.6, number),
        brightness=rng.uniform(6.0, 14.0, number) * culture.px(0.9) / np.sqrt(length),
        label=owner,
    )
    lint = grow(rng, starts, np.zeros(culture.shape, dtype=np.int32), np.zeros(culture.shape, dtype=bool), bend=0.04)
    return blur(lint, [(1.0, culture.px(0.7))])


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
    )


def _platemap(fields: Sequence[Field]) -> list[tuple[str, str, str, str]]:
    return sorted({(field.plate, field.well, field.reagent, field.control) for field in fields})
