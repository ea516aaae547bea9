"""mini0003: mouse C2C12 myoblasts in bright field, a little out of focus, as 8-bit PNG.

The cells are transparent: they delay light and hardly absorb it. The picture comes from that delay by wave optics, so
edges, rings and halos are where a microscope makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import CellLine, Phenotype, grow_culture
from chammi75.mini.optics import Objective, bright_field
from chammi75.mini.outlines import Outline
from chammi75.mini.population import visible_cells
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_png, write_recipe
from chammi75.mini.textures import Image
from chammi75.mini.threads import map_threads
from chammi75.mini.transparency import Bodies, transparent_wave
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth

STUDY = "mini0003"
SHAPE = (512, 640)
MARGIN = 32
OBJECTIVE = Objective(magnification=20.0, numerical_aperture=0.45, refractive_index=1.0, pixel_size_um=0.62)
CAMERA = Camera(significant_bits=8, offset=2.0, electrons_per_count=45.0, read_noise_electrons=8.0)
WAVELENGTH_UM = 0.55
C2C12 = CellLine(nucleus_radius_um=6.3, cell_radius_um=19.0, spacing_um=26.0, elongation=3.6)
BODIES = Bodies(index_step=0.028, height_um=7.0)
#: Weight and direction (numerical aperture) of the light: a small condenser, a little oblique.
CONDENSER = ((1.0, 0.0, 0.0), (0.9, 0.10, 0.06), (0.7, -0.10, 0.05), (0.8, 0.05, -0.11), (0.6, -0.04, -0.10))
WELLS = ("A1", "A2", "B1", "B2")
DENSITIES = (0.42, 0.62, 0.88)


@dataclass(frozen=True)
class View:
    """One picture: well, field number, hours since the start, share of the ground grown over, and defect."""

    well: str
    fov: int
    hours: int
    coverage: float
    defect: str | None = None

    @property
    def name(self) -> str:
        """The file's name, without its suffix, as an incubator microscope exports it."""
        days, hours = divmod(self.hours, 24)
        return f"C2C12-growth_{self.well}_{self.fov}_{days:02d}d{hours:02d}h00m"


def plan(size: float) -> tuple[View, ...]:
    """The pictures of a study of ``size``: 8 for 1.0. A larger study begins with those of a smaller one."""
    views = []
    for number in range(max(1, round(8 * size))):
        well = WELLS[number % len(WELLS)]
        fov = number // len(WELLS) + 1
        coverage = DENSITIES[number % len(DENSITIES)]
        views.append(View(well, fov, 12 * (1 + number % 3), coverage, "blurred" if number == 6 else None))
    return tuple(views)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size))


def simulate(view: View, seed: int) -> tuple[NDArray[np.uint8], tuple[CellTruth, ...]]:
    """One picture, uint8 of shape (512, 640), and its cells."""
    rng = generator(seed, STUDY, view.name, "culture")
    culture = grow_culture(
        rng,
        SHAPE,
        margin=MARGIN,
        pixel_size_um=OBJECTIVE.pixel_size_um,
        line=C2C12,
        phenotype=Phenotype("untreated", coverage=view.coverage, mitotic_share=0.07),
    )
    rng = generator(seed, STUDY, view.name, "light")
    wave = transparent_wave(rng, culture, BODIES, WAVELENGTH_UM)
    defocus = float(rng.normal(7.0, 1.5)) if view.defect is None else 38.0
    image = bright_field(
        wave,
        objective=OBJECTIVE,
        wavelength_um=WAVELENGTH_UM,
        defocus_um=defocus,
        condenser=CONDENSER,
        condenser_spread=0.05,
    )[culture.view]
    image = image * _lamp_and_dust(generator(seed, STUDY, "instrument"))
    exposed = CAMERA.expose(rng, image * 128.0 * CAMERA.electrons_per_count).astype(np.uint8)
    return exposed, visible_cells(culture)


def _lamp_and_dust(rng: np.random.Generator) -> Image:
    """Uneven light, and the shadows of dust on the camera: out of focus, ringed, at the same place in every picture."""
    y = np.linspace(-1, 1, SHAPE[0])[:, None]
    x = np.linspace(-1, 1, SHAPE[1])[None, :]
    tilt_y, tilt_x = rng.uniform(-0.05, 0.05, 2)
    field = 1.0 + tilt_y * y + tilt_x * x - 0.10 * (y * y + x * x) / 2
    for _ in range(5):
        radius = float(rng.uniform(6.0, 15.0))
        mote = Outline(float(rng.uniform(0, SHAPE[0])), float(rng.uniform(0, SHAPE[1])), radius)
        window = mote.window(SHAPE, margin=3.0 * radius)
        squared = mote.reach(*np.ogrid[window]) ** 2
        rings = np.cos(2.2 * np.pi * squared)
        field[window] -= float(rng.uniform(0.06, 0.12)) * np.exp(-squared / 1.2) * (0.6 + 0.4 * rings)
    return np.asarray(field)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated C2C12 myoblasts in bright field, an incubator's time course",
        "license": "CC0-1.0",
        "include": ["images/*.png"],
        "pattern": "{plate}_{well}_{fov}_{image}",
        "channels": [{"panel": "Bright-field", "channel_type": "bright-field"}],
        "record": {
            "biology.organism": "Mus musculus",
            "biology.cell_line": "C2C12",
            "biology.cell_type": "myoblast",
            "microscopy.type": "bright-field",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
        },
        "guidance": "guidance/{stem}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    images = map_threads(lambda view: _write_view(home, view, seed), plan(size))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(images)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_view(home: Path, view: View, seed: int) -> ImageTruth:
    image, cells = simulate(view, seed)
    path = f"images/{view.name}.png"
    write_png(home / path, image)
    write_guidance(home / "guidance" / f"{view.name}-ch0.safetensors", cells)
    defects = (view.defect,) if view.defect else ()
    return ImageTruth(path, SHAPE[1], SHAPE[0], "untreated", cells, defects=defects, group=view.name)
