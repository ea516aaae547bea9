"""mini0004: human MCF-7 cells, six compounds in three doses on replicate plates; 3 channels, one 8-bit file for each.

The layout and the file names follow a high-content screen (Ljosa et al. 2012, Nature Methods 9:637, image set BBBC021):
actin, tubulin and DNA, and thumbnails that lie between the images. Doses act by a Hill curve.
"""

from __future__ import annotations

import hashlib
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
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_recipe, write_table, write_tiff
from chammi75.mini.stains import STAINS
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth
from chammi75.mini.widefield import Dye, Shot, photograph, scatter_debris

STUDY = "mini0004"
SHAPE = (320, 320)
MARGIN = 24
OBJECTIVE = Objective(magnification=10.0, numerical_aperture=0.45, refractive_index=1.0, pixel_size_um=0.65)
CAMERA = Camera(significant_bits=8, offset=8.0, electrons_per_count=16.0, read_noise_electrons=6.0)
MCF7 = CellLine(nucleus_radius_um=7.2, cell_radius_um=17.5, spacing_um=21.0, elongation=1.35)
CHANNELS = (
    Dye("nucleus", "DAPI", 0.461, 1150.0, 40.0, 0.20),
    Dye("cytoskeleton", "Phalloidin", 0.599, 2600.0, 60.0, 0.22),
    Dye("microtubules", "Tubulin", 0.519, 2300.0, 60.0, 0.24),
)
UNTREATED = Phenotype(mitotic_share=0.05)
COMPOUNDS: tuple[tuple[str, float, Phenotype], ...] = (
    ("aphidicolin", 10.0, Phenotype("enlarged nuclei", 1.2, 1.2, 1.4, coverage=0.75, mitotic_share=0.0)),
    ("nocodazole", 3.0, Phenotype("lost microtubules", microtubules=0.05, cell_size=0.9, mitotic_share=0.14)),
    ("taxol", 1.0, Phenotype("bundled microtubules", microtubules=1.2, bundling=1.0, mitotic_share=0.10)),
    ("latrunculin B", 10.0, Phenotype("lost actin", actin=0.1, cell_size=0.8, mitotic_share=0.03)),
    ("monastrol", 100.0, Phenotype("mitotic arrest", mitotic_share=0.75, coverage=0.8)),
    ("staurosporine", 1.0, Phenotype("few small cells", 1.5, 0.7, 0.75, coverage=0.5, mitotic_share=0.0, actin=0.6)),
)
"""Name, highest dose in µM, and phenotype at full effect, one per row of a plate."""

ROWS = "BCDEFG"
#: Column -> share of the highest dose; the first holds the controls.
COLUMNS = {"02": None, "05": 1.0, "04": 0.25, "03": 0.0625}
HALF_EFFECT = 0.2
HILL = 1.6


def _order() -> tuple[str, ...]:
    """Wells in the order in which a growing study has them: controls and highest doses row by row, then the others."""
    first = [f"{row}{column}" for row in ROWS for column in ("02", "05")]
    return (*first, *(f"{row}{column}" for column in ("04", "03") for row in ROWS))


WELLS = _order()
EXTRA: dict[tuple[int, str], tuple[Literal["exact", "near"] | None, str | None]] = {
    (0, "B02"): ("exact", None),
    (1, "B02"): ("near", None),
    (0, "C02"): (None, "blurred"),
    (1, "C02"): (None, "saturated"),
    (0, "D02"): (None, "empty"),
    (1, "D02"): (None, "debris"),
    (0, "E02"): (None, "swapped channels"),
}
"""Replicate and well that have a second field, which is a duplicate of the first or has a defect."""

SWAPPED = (1, 2)


@dataclass(frozen=True)
class Site:
    """One field of view to simulate; ``dose`` is a share of the compound's highest, None in a control."""

    plate: str
    well: str
    fov: int
    dose: float | None
    duplicate: Literal["exact", "near"] | None = None
    defect: str | None = None

    @property
    def name(self) -> str:
        """What its files' names begin with."""
        return f"{self.plate}_{self.well}_s{self.fov}"

    @property
    def cells_of(self) -> str:
        """Name of the field whose cells it shows: its own, or that which it repeats."""
        return f"{self.plate}_{self.well}_s1" if self.duplicate else self.name

    @property
    def compound(self) -> tuple[str, float | None, Phenotype]:
        """What the well holds, how much of it in µM, and what that does to cells."""
        if self.dose is None:
            return "DMSO", None, UNTREATED
        name, highest_um, phenotype = COMPOUNDS[ROWS.index(self.well[0])]
        return name, round(highest_um * self.dose, 6), phenotype.at(self.effect or 0.0)

    @property
    def effect(self) -> float | None:
        """Share of the full effect, by a Hill curve; None in a control."""
        if self.dose is None:
            return None
        acting: float = self.dose**HILL
        return acting / (acting + float(HALF_EFFECT**HILL))

    def file(self, channel: int) -> str:
        """Path of a channel's file; its name ends in a GUID, which no pattern can foresee."""
        digits = hashlib.sha256(f"{self.name}_w{channel + 1}".encode()).hexdigest().upper()
        guid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
        return f"images/{self.plate}/{self.name}_w{channel + 1}{guid}.tif"


def plan(size: float) -> tuple[Site, ...]:
    """Fields of view, 55 on two plates for a ``size`` of 1. A larger study begins with all fields of a smaller one."""
    sites = []
    for number in range(max(1, round(size * 2 * len(WELLS)))):
        # plates are filled in pairs of replicates
        pair, place = divmod(number, 2 * len(WELLS))
        position, replicate = divmod(place, 2)
        plate, well = f"MCF7-{7501 + 2 * pair + replicate}", WELLS[position]
        dose = COLUMNS[well[1:]]
        sites.append(Site(plate, well, 1, dose))
        if (replicate, well) in EXTRA:
            duplicate, defect = EXTRA[replicate, well]
            sites.append(Site(plate, well, 2, dose, duplicate, defect))
    return tuple(sites)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size))


def simulate(site: Site, seed: int) -> tuple[NDArray[np.uint8], tuple[CellTruth, ...]]:
    """The planes of one field of view, uint8 of shape (3, 320, 320), and its cells."""
    cells_of = site.cells_of
    # an exact duplicate is exposed by the noise of the original
    shot = cells_of if site.duplicate == "exact" else site.name
    pixel_size_um = OBJECTIVE.pixel_size_um
    if site.defect == "empty":
        culture = empty_culture(SHAPE, margin=MARGIN, pixel_size_um=pixel_size_um)
    else:
        rng = generator(seed, STUDY, cells_of, "culture")
        culture = grow_culture(
            rng, SHAPE, margin=MARGIN, pixel_size_um=pixel_size_um, line=MCF7, phenotype=site.compound[2]
        )
    debris = scatter_debris(generator(seed, STUDY, cells_of, "debris"), culture, 14 if site.defect == "debris" else 0)
    planes = np.empty((len(CHANNELS), *SHAPE), dtype=np.uint8)
    for index, dye in enumerate(CHANNELS):
        stained = STAINS[dye.channel_type](generator(seed, STUDY, cells_of, dye.channel_type), culture)
        of_plate = generator(seed, STUDY, site.plate, dye.channel_type)
        batched = replace(dye, electrons=dye.electrons * float(of_plate.lognormal(0.0, 0.08)))
        lamp = illumination(of_plate, SHAPE, falloff=0.18)
        rng = generator(seed, STUDY, shot, dye.channel_type, "exposure")
        defocus = 30.0 if site.defect == "blurred" else abs(float(rng.normal(0.0, 0.8)))
        # imaged once more, bleached by the first time
        exposure = {"saturated": 8.0}.get(site.defect or "", 0.7 if site.duplicate == "near" else 1.0)
        counts = photograph(
            rng, stained + debris, culture, batched, Shot(defocus, exposure), lamp, objective=OBJECTIVE, camera=CAMERA
        )
        planes[index] = counts.astype(np.uint8)
    if site.defect == "swapped channels":
        planes[list(SWAPPED)] = planes[list(reversed(SWAPPED))]
    return planes, visible_cells(culture)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated screen of MCF-7 cells: six compounds in three doses, replicate plates",
        "license": "CC-BY-4.0",
        "include": ["images/**/*.tif"],
        "exclude": ["images/**/*_thumb*"],
        "pattern": r"{plate}_{well}_s{fov}_w{channel:\d}{*}",
        "channels": [
            {"name": str(index + 1), "panel": dye.name, "channel_type": dye.channel_type}
            for index, dye in enumerate(CHANNELS)
        ],
        "record": {
            "biology.organism": "Homo sapiens",
            "biology.cell_line": "MCF-7",
            "microscopy.type": "fluorescence",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
        },
        "tables": [
            {
                "path": "platemap.csv",
                "match": {"experiment.plate": "plate", "experiment.well": "well"},
                "columns": {"experiment.reagent": "compound", "experiment.control": "control"},
            }
        ],
        "guidance": "guidance/{plate}_{well}_s{fov}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    sites = plan(size)
    images = map_threads(lambda site: _write_site(home, site, seed), sites)
    write_table(home / "platemap.csv", ("plate", "well", "compound", "dose_um", "control"), _platemap(sites))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(images)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_site(home: Path, site: Site, seed: int) -> ImageTruth:
    planes, cells = simulate(site, seed)
    paths = tuple(site.file(index) for index in range(len(CHANNELS)))
    for index, (path, plane) in enumerate(zip(paths, planes, strict=True)):
        write_tiff(home / path, plane)
        write_tiff(home / path.replace(f"_w{index + 1}", f"_w{index + 1}_thumb"), plane[::8, ::8])
        write_guidance(home / "guidance" / f"{site.name}-ch{index}.safetensors", cells)
    reagent, dose_um, phenotype = site.compound
    return ImageTruth(
        path=paths[0],
        width=SHAPE[1],
        height=SHAPE[0],
        phenotype="empty" if site.defect == "empty" else phenotype.name,
        cells=cells,
        duplicate=site.duplicate,
        duplicate_of=replace(site, fov=1, duplicate=None).file(0) if site.duplicate else None,
        defects=(site.defect,) if site.defect else (),
        group=site.cells_of,
        channel_paths=paths,
        swapped=SWAPPED if site.defect == "swapped channels" else None,
        reagent=reagent,
        dose_um=dose_um,
        effect=site.effect,
    )


def _platemap(sites: Sequence[Site]) -> list[tuple[str, str, str, str, str]]:
    rows = set()
    for site in sites:
        reagent, dose_um, _ = site.compound
        dose = "" if dose_um is None else f"{dose_um:g}"
        rows.add((site.plate, site.well, reagent, dose, "negative" if dose_um is None else "no"))
    return sorted(rows)
