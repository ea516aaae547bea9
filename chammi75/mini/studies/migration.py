"""mini0006: human HT-1080 cells that crawl, in phase contrast; 8 bits, a file for each frame.

Nothing is stained. Delay becomes darkness, and every cell has the bright halo of phase contrast. The files are named as
Micro-Manager names them, in a folder for each position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.culture import CellLine, Culture, Phenotype, grow_culture, settle
from chammi75.mini.nuclei import Nucleus
from chammi75.mini.optics import Objective, PhaseRing, illumination, phase_contrast
from chammi75.mini.outlines import Outline
from chammi75.mini.population import visible_cells
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_recipe, write_tiff
from chammi75.mini.threads import map_threads
from chammi75.mini.transparency import Bodies, transparent_wave
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, write_truth

STUDY = "mini0006"
SHAPE = (320, 320)
MARGIN = 24
FRAMES = 6
OBJECTIVE = Objective(magnification=10.0, numerical_aperture=0.30, refractive_index=1.0, pixel_size_um=0.65)
RING = PhaseRing(inner=0.085, outer=0.115, transmission=0.5)
CAMERA = Camera(significant_bits=8, offset=2.0, electrons_per_count=60.0, read_noise_electrons=8.0)
WAVELENGTH_UM = 0.55
HT1080 = CellLine(nucleus_radius_um=6.2, cell_radius_um=15.0, spacing_um=23.0, elongation=2.2)
BODIES = Bodies(index_step=0.020, height_um=4.2, floaters=2.0)
COVERAGES = (0.75, 0.5, 0.3)
#: How far a cell crawls from frame to frame, and how much it turns (µm, radians; standard deviations).
STEP_UM = 3.0
TURN = 0.35
LOST_FOCUS_FRAME = 4


@dataclass(frozen=True)
class Movie:
    """One position of the stage, from 0, and the share of its ground that is grown over."""

    position: int
    coverage: float

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"Pos{self.position}"

    def defect(self, frame: int) -> str | None:
        """What is wrong with a frame: in every third movie the focus was lost for one frame."""
        return "blurred" if self.position % 3 == 1 and frame == LOST_FOCUS_FRAME else None


def plan(size: float) -> tuple[Movie, ...]:
    """Movies, 3 for a ``size`` of 1. A larger study begins with those of a smaller one."""
    return tuple(Movie(number, COVERAGES[number % len(COVERAGES)]) for number in range(max(1, round(3 * size))))


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size)) * FRAMES


def simulate(movie: Movie, seed: int) -> Iterator[tuple[NDArray[np.uint8], tuple[CellTruth, ...]]]:
    """Frame after frame: uint8 of shape (320, 320), and the cells that it shows."""
    culture = grow_culture(
        generator(seed, STUDY, movie.name, "culture"),
        SHAPE,
        margin=MARGIN,
        pixel_size_um=OBJECTIVE.pixel_size_um,
        line=HT1080,
        phenotype=Phenotype(coverage=movie.coverage, mitotic_share=0.05),
    )
    crawl = generator(seed, STUDY, movie.name, "crawl")
    heading = np.array([outline.angle for outline in culture.outlines]) + np.pi * crawl.integers(
        0, 2, len(culture.outlines)
    )
    lamp = illumination(generator(seed, STUDY, "lamp"), SHAPE, falloff=0.15)
    for frame in range(FRAMES):
        if frame:
            heading = heading + TURN * crawl.standard_normal(len(heading))
            culture = _crawled(crawl, culture, heading)
        # the generators begin anew for each frame, so that cells keep their grain and their granules
        settled = settle(
            generator(seed, STUDY, movie.name, "texture"),
            culture.shape,
            culture.outlines,
            culture.nuclei,
            margin=MARGIN,
            pixel_size_um=OBJECTIVE.pixel_size_um,
            phenotype=culture.phenotype,
        )
        wave = transparent_wave(generator(seed, STUDY, movie.name, "light"), settled, BODIES, WAVELENGTH_UM)
        rng = generator(seed, STUDY, movie.name, frame)
        image = phase_contrast(
            wave,
            objective=OBJECTIVE,
            wavelength_um=WAVELENGTH_UM,
            defocus_um=float(rng.normal(0.0, 1.0)) if movie.defect(frame) is None else 35.0,
            ring=RING,
        )
        exposed = CAMERA.expose(rng, image[settled.view] * lamp * 118.0 * CAMERA.electrons_per_count)
        yield exposed.astype(np.uint8), visible_cells(settled, followed=True)


def _crawled(rng: np.random.Generator, culture: Culture, heading: NDArray[np.float64]) -> Culture:
    """The cells one step further; dividing ones stay."""
    pace = culture.px(STEP_UM) * rng.gamma(2.0, 0.5, len(heading))
    turned = rng.normal(0.0, 0.12, len(heading))
    outlines: list[Outline] = []
    nuclei: list[Nucleus] = []
    for index, (outline, nucleus) in enumerate(zip(culture.outlines, culture.nuclei, strict=True)):
        if nucleus.phase == "interphase":
            y = float(pace[index] * np.sin(heading[index]))
            x = float(pace[index] * np.cos(heading[index]))
            turn = float(turned[index])
            outline = replace(outline, y=outline.y + y, x=outline.x + x, angle=outline.angle + turn)
            nucleoli = tuple(replace(spot, y=spot.y + y, x=spot.x + x) for spot in nucleus.nucleoli)
            own = replace(nucleus.outline, y=nucleus.outline.y + y, x=nucleus.outline.x + x)
            nucleus = replace(nucleus, outline=own, nucleoli=nucleoli)
        outlines.append(outline)
        nuclei.append(nucleus)
    return replace(culture, outlines=tuple(outlines), nuclei=tuple(nuclei))


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated HT-1080 cells crawling, phase contrast, a frame every ten minutes",
        "license": "CC0-1.0",
        "include": ["images/*/img_*.tif"],
        "pattern": "Pos{fov}/img_{t}_Phase_{*}",
        "channels": [{"panel": "Phase", "channel_type": "phase-contrast"}],
        "record": {
            "biology.organism": "Homo sapiens",
            "biology.cell_line": "HT-1080",
            "microscopy.type": "phase-contrast",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
        },
        "guidance": "guidance/Pos{fov}_t{t}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    movies = map_threads(lambda movie: _write_movie(home, movie, seed), plan(size))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(image for movie in movies for image in movie)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_movie(home: Path, movie: Movie, seed: int) -> list[ImageTruth]:
    images = []
    for frame, (image, cells) in enumerate(simulate(movie, seed)):
        path = f"images/{movie.name}/img_{frame:09d}_Phase_000.tif"
        write_tiff(home / path, image)
        write_guidance(home / "guidance" / f"{movie.name}_t{frame}-ch0.safetensors", cells)
        defect = movie.defect(frame)
        images.append(
            ImageTruth(
                path=path,
                width=SHAPE[1],
                height=SHAPE[0],
                phenotype="untreated",
                cells=cells,
                timepoint=frame,
                defects=(defect,) if defect else (),
                group=movie.name,
            )
        )
    return images
