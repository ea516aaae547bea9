"""mini0007: sections of human colon in haematoxylin and eosin, normal and tumour; overlapping tiles in colour, PNG.

Stains absorb light by the law of Beer and Lambert, with the vectors of Ruifrok and Johnston (2001, Analytical and
Quantitative Cytology and Histology 23:291). Every slide took its stains a little differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.nuclei import Nucleus
from chammi75.mini.optics import Objective, blur
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_png, write_recipe, write_tiff
from chammi75.mini.textures import Image, band_limited_noise
from chammi75.mini.threads import map_threads
from chammi75.mini.tissue import NORMAL, TUMOUR, Histology, Section, cut_section
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, place_in_picture, write_truth

STUDY = "mini0007"
TILE = 256
#: Tiles begin here, in both directions: neighbours share a quarter of their width.
STARTS = (0, 192)
MARGIN = 16
CANVAS = (STARTS[-1] + TILE + 2 * MARGIN, STARTS[-1] + TILE + 2 * MARGIN)
OBJECTIVE = Objective(magnification=20.0, numerical_aperture=0.75, refractive_index=1.0, pixel_size_um=0.5)
CAMERA = Camera(significant_bits=8, offset=0.0, electrons_per_count=40.0, read_noise_electrons=8.0)
WAVELENGTHS_UM = (0.61, 0.54, 0.46)
#: Optical density per unit of stain in red, green and blue.
HAEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.07, 0.99, 0.11)
GLASS = 240.0
CHANNELS = ("r", "g", "b")


@dataclass(frozen=True)
class Tile:
    """One tile of a slide; ``suffix`` of its file, and how it relates to the tile at the same place."""

    slide: int
    y: int
    x: int
    ending: str = ".png"
    duplicate: Literal["exact", "near"] | None = None
    defect: str | None = None

    @property
    def slide_name(self) -> str:
        """Name of the slide."""
        return f"HE-{7501 + self.slide}"

    @property
    def path(self) -> str:
        """Path of its file."""
        return f"images/{self.slide_name}_x{self.x:05d}_y{self.y:05d}{self.ending}"


EXTRA: dict[int, Tile] = {
    0: Tile(0, 0, 0, "-copy.png", "exact"),
    1: Tile(1, 0, 0, ".tif", "exact"),
    2: Tile(2, 0, 192, "-rescan.png", "near"),
    3: Tile(3, 0, 0, "-refocus.png", "near", "blurred"),
    4: Tile(4, 4096, 4096, ".png", None, "empty"),
}
"""The fifth tile of a slide, by its number modulo five: the same bytes, the same pixels as TIFF, scanned anew, …"""


def plan(size: float) -> tuple[tuple[Tile, ...], ...]:
    """Tiles of each slide, 5 slides for a ``size`` of 1. A larger study begins with those of a smaller one."""
    slides = []
    for slide in range(max(1, round(5 * size))):
        extra = EXTRA[slide % len(EXTRA)]
        tiles = [Tile(slide, y, x) for y in STARTS for x in STARTS]
        tiles.append(Tile(slide, extra.y, extra.x, extra.ending, extra.duplicate, extra.defect))
        slides.append(tuple(tiles))
    return tuple(slides)


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return sum(len(tiles) for tiles in plan(size))


def histology_of(slide: int) -> Histology:
    """What the tissue of a slide is."""
    return TUMOUR if slide % 2 else NORMAL


def simulate(tiles: Sequence[Tile], seed: int) -> list[tuple[NDArray[np.uint8], tuple[CellTruth, ...]]]:
    """The tiles of one slide, each uint8 of shape (256, 256, 3), and their cells."""
    slide = tiles[0].slide_name
    section = cut_section(
        generator(seed, STUDY, slide, "section"),
        CANVAS,
        pixel_size_um=OBJECTIVE.pixel_size_um,
        histology=histology_of(tiles[0].slide),
    )
    density = _stain(generator(seed, STUDY, slide, "stain"), section)
    sharp = _focus(density, 0.0)
    results: list[tuple[NDArray[np.uint8], tuple[CellTruth, ...]]] = []
    for tile in tiles:
        # an exact duplicate has the noise of the original
        noise = f"{tile.x} {tile.y}" if tile.duplicate != "near" else tile.path
        rng = generator(seed, STUDY, slide, noise)
        if tile.defect == "empty":
            results.append((_expose(rng, np.ones((TILE, TILE, 3))), ()))
            continue
        shown = _focus(density, 14.0) if tile.defect == "blurred" else sharp
        # the stage does not find the same place twice
        y, x = (tile.y + 3, tile.x - 4) if tile.duplicate == "near" else (tile.y, tile.x)
        window = shown[MARGIN + y : MARGIN + y + TILE, MARGIN + x : MARGIN + x + TILE]
        results.append((_expose(rng, window), _cells(section.nuclei, MARGIN + y, MARGIN + x)))
    return results


def _stain(rng: np.random.Generator, section: Section) -> NDArray[np.float64]:
    """Optical density in red, green and blue: float64 of shape (H, W, 3)."""
    strong, pink = rng.lognormal(0.0, 0.12, 2)
    shape = section.lumen.shape
    grain = band_limited_noise(rng, shape, period_px=4.0, octaves=0.6)
    cloud = np.exp(0.10 * band_limited_noise(rng, shape, period_px=60.0))
    chromatin = np.minimum(section.maps.dna, 2.2)
    solid = 1.0 - section.mucus
    blue = 0.60 * chromatin + 0.11 * section.epithelium * solid * np.exp(0.2 * grain) + 0.10 * section.mucus
    rose = 0.19 * section.epithelium * solid * np.exp(0.25 * grain) + 0.28 * section.fibres
    rose = rose * (1.0 - 0.45 * section.maps.mask) + 0.05 * section.mucus
    mixed = (strong * cloud * blue)[..., None] * np.array(HAEMATOXYLIN) + (pink * cloud * rose)[..., None] * np.array(
        EOSIN
    )
    return np.asarray(mixed)


def _focus(density: NDArray[np.float64], defocus_um: float) -> NDArray[np.float64]:
    """Light that comes through and is focused: float64 of shape (H, W, 3), 1 where nothing is."""
    passed = 10.0**-density
    bands = [
        blur(np.ascontiguousarray(passed[..., band]), [(1.0, OBJECTIVE.psf_sigma_px(wavelength, defocus_um))])
        for band, wavelength in enumerate(WAVELENGTHS_UM)
    ]
    return np.stack(bands, axis=-1)


def _expose(rng: np.random.Generator, light: Image) -> NDArray[np.uint8]:
    return CAMERA.expose(rng, GLASS * CAMERA.electrons_per_count * light).astype(np.uint8)


def _cells(nuclei: Sequence[Nucleus], top: int, left: int) -> tuple[CellTruth, ...]:
    """Nuclei whose centre lies in the tile; their area stands for the cells', which have no visible border."""
    cells = []
    for nucleus in nuclei:
        place = place_in_picture(nucleus.outline.y - top, nucleus.outline.x - left, (TILE, TILE))
        if place is not None:
            area = round(float(np.pi) * nucleus.outline.radius**2)
            cells.append(CellTruth(place[1], place[0], area, nucleus.phase))
    return tuple(cells)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated colon in haematoxylin and eosin, overlapping tiles of normal and tumour slides",
        "license": "CC-BY-NC-4.0",
        "include": ["images/*.png", "images/*.tif"],
        "pattern": "{plate}_{image}",
        "channels": [{"panel": "H&E", "channel_type": word} for word in CHANNELS],
        "record": {
            "biology.organism": "Homo sapiens",
            "biology.cell_type": "colon",
            "microscopy.type": "bright-field",
            "microscopy.magnification": OBJECTIVE.magnification,
            "geometry.pixel_size_um": OBJECTIVE.pixel_size_um,
        },
        "guidance": "guidance/{stem}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    slides = map_threads(lambda tiles: _write_slide(home, tiles, seed), plan(size))
    write_truth(home, StudyTruth(STUDY, seed, size, tuple(image for slide in slides for image in slide)))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_slide(home: Path, tiles: Sequence[Tile], seed: int) -> list[ImageTruth]:
    images = []
    for tile, (pixels, cells) in zip(tiles, simulate(tiles, seed), strict=True):
        path = home / tile.path
        if tile.ending == ".tif":
            write_tiff(path, pixels, colour=True)
        else:
            write_png(path, pixels)
        for index in range(len(CHANNELS)):
            stem = path.name.removesuffix(path.suffix)
            write_guidance(home / "guidance" / f"{stem}-ch{index}.safetensors", cells)
        empty = tile.defect == "empty"
        images.append(
            ImageTruth(
                path=tile.path,
                width=TILE,
                height=TILE,
                phenotype="empty" if empty else histology_of(tile.slide).name,
                cells=cells,
                duplicate=tile.duplicate,
                duplicate_of=Tile(tile.slide, tile.y, tile.x).path if tile.duplicate else None,
                defects=(tile.defect,) if tile.defect else (),
                group=f"{tile.slide_name} glass" if empty else tile.slide_name,
            )
        )
    return images
