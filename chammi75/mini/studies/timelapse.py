"""mini0002: fly embryos during germband extension, 3 channels, z-stacks over time, as ImageJ hyperstacks of 8 bits.

A histone, a membrane marker and myosin, which gathers at junctions across the axis of extension (Bertet, Sulak and
Lecuit 2004, Nature 429:667). The embryo's surface is curved, so each slice cuts it at another depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.camera import Camera
from chammi75.mini.epithelium import Columnar, advance, grow_epithelium
from chammi75.mini.nuclei import soft_step
from chammi75.mini.optics import Objective, focus_through, illumination
from chammi75.mini.outlines import Ground, Outline, share_ground, warp
from chammi75.mini.randomness import generator
from chammi75.mini.sourcefiles import new_study_folder, write_guidance, write_hyperstack, write_recipe
from chammi75.mini.textures import Image, band_limited_noise
from chammi75.mini.threads import map_threads
from chammi75.mini.truth import CellTruth, ImageTruth, StudyTruth, place_in_picture, write_truth

STUDY = "mini0002"
SHAPE = (256, 256)
MARGIN = 16
CANVAS = (SHAPE[0] + 2 * MARGIN, SHAPE[1] + 2 * MARGIN)
FRAMES = 4
FRAME_INTERVAL_S = 90.0
#: Depths of the three focal planes below the top of the embryo.
PLANES_UM = (2.0, 4.5, 7.0)
LAYERS_UM = tuple(float(depth) for depth in np.arange(-1.0, 10.5, 1.0))
OBJECTIVE = Objective(magnification=63.0, numerical_aperture=1.3, refractive_index=1.47, pixel_size_um=0.3)
CAMERA = Camera(significant_bits=8, offset=6.0, electrons_per_count=0.55, read_noise_electrons=0.9)
SECTION_UM = 1.1
CELL_SPACING_UM = 6.4
EMBRYO_RADIUS_UM = 140.0
CHANNELS = (("His2Av-mRFP", "nucleus", 0.607), ("Spider-GFP", "membrane", 0.509), ("Sqh-CFP", "protein", 0.476))


def movie_name(number: int) -> str:
    """Name of a movie, from 0: the date of the session, the line, and a running number."""
    return f"20240312_His2Av-Spider-Sqh_embryo{number + 1:02d}"


def plan(size: float) -> range:
    """Numbers of the movies of a study of ``size``, two for 1."""
    return range(max(1, round(2 * size)))


def count_images(size: float) -> int:
    """How many images a study of ``size`` has."""
    return len(plan(size)) * FRAMES * len(PLANES_UM)


def simulate(number: int, seed: int) -> tuple[NDArray[np.uint8], list[tuple[tuple[CellTruth, ...], ...]]]:
    """One movie: uint8 of shape (T, Z, C, 256, 256), and the cells of each frame and slice."""
    name = movie_name(number)
    rng = generator(seed, STUDY, name, "tissue")
    spacing = OBJECTIVE.to_px(CELL_SPACING_UM)
    cells = grow_epithelium(rng, CANVAS, spacing_px=spacing, margin_px=1.5 * spacing)
    # a movie begins in the midst of life
    for _ in range(3):
        cells = advance(rng, cells, CANVAS, spacing_px=spacing, strain=0.0, entering=0.02)
    surface = _surface(rng)
    # every exposure bleaches the dyes a little
    lamp = illumination(generator(seed, STUDY, "lamp"), SHAPE, falloff=0.12)
    bends = warp(rng, CANVAS, [(2.2 * spacing, 0.06 * spacing)])
    stack = np.empty((FRAMES, len(PLANES_UM), len(CHANNELS), *SHAPE), dtype=np.uint8)
    truth = []
    for frame in range(FRAMES):
        if frame:
            cells = advance(rng, cells, CANVAS, spacing_px=spacing, strain=0.012, entering=0.025)
        outlines = [Outline(cell.y, cell.x, _radius(cell, spacing)) for cell in cells]
        ground = share_ground(outlines, [False] * len(cells), CANVAS, bends)
        stack[frame] = _photograph(generator(seed, STUDY, name, frame), cells, ground, surface, lamp * 0.96**frame)
        truth.append(tuple(_visible(cells, ground, surface, plane) for plane in PLANES_UM))
    return stack, truth


def _radius(cell: Columnar, spacing: float) -> float:
    """Cells fill the plane, so the radius only weighs the borders: dividing cells push theirs outwards."""
    return spacing * (1.25 if cell.phase in ("metaphase", "anaphase", "telophase") else 1.0)


def _surface(rng: np.random.Generator) -> Image:
    """Depth of the apical surface in µm: a cylinder along x, its top somewhere near the middle of the picture."""
    top = CANVAS[0] * rng.uniform(0.4, 0.6)
    across = (np.arange(CANVAS[0]) - top) * OBJECTIVE.pixel_size_um
    depth = EMBRYO_RADIUS_UM - np.sqrt(EMBRYO_RADIUS_UM**2 - across**2)
    along = rng.uniform(-0.012, 0.012) * (np.arange(CANVAS[1]) - CANVAS[1] / 2) * OBJECTIVE.pixel_size_um
    return np.asarray(depth[:, None] + along[None, :])


def _photograph(
    rng: np.random.Generator, cells: Sequence[Columnar], ground: Ground, surface: Image, lamp: Image
) -> NDArray[np.uint8]:
    below = np.array(LAYERS_UM)[:, None, None] - surface[None, :, :]
    view = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    # yolk shines a little in all colours, the more the deeper
    yolk = np.clip((below - 9.0) / 6.0, 0.0, 1.0) * np.exp(0.4 * band_limited_noise(rng, CANVAS, period_px=14.0))
    drawn = (
        (_draw_histone(rng, cells, surface) + 0.04 * yolk, 34.0, 1.2),
        (_draw_membrane(rng, ground, below) + 0.10 * yolk, 34.0, 1.8),
        (_draw_myosin(rng, cells, ground, below) + 0.06 * yolk, 52.0, 1.6),
    )
    planes = np.empty((len(PLANES_UM), len(CHANNELS), *SHAPE), dtype=np.uint8)
    for channel, (layers, electrons, background) in enumerate(drawn):
        images = focus_through(
            layers,
            LAYERS_UM,
            PLANES_UM,
            objective=OBJECTIVE,
            wavelength_um=CHANNELS[channel][2],
            section_um=SECTION_UM,
        )
        for plane, image in enumerate(images):
            planes[plane, channel] = CAMERA.expose(rng, (electrons * image[view] + background) * lamp).astype(np.uint8)
    return planes


def _draw_histone(rng: np.random.Generator, cells: Sequence[Columnar], surface: Image) -> NDArray[np.float64]:
    """Chromatin of each layer: spheres in interphase, plates and pairs of plates in mitosis."""
    layers = np.zeros((len(LAYERS_UM), *CANVAS))
    unit = 1.0 / OBJECTIVE.pixel_size_um
    texture = np.exp(0.30 * band_limited_noise(rng, CANVAS, period_px=1.3 * unit, octaves=0.5))
    for cell in cells:
        centre = _depth(cell, surface)
        for body, radius, gain in _bodies(cell, unit):
            window = body.window(CANVAS)
            y, x = np.ogrid[window]
            reach = body.reach(y, x)
            for index, depth in enumerate(LAYERS_UM):
                share = 1.0 - ((depth - centre) / radius) ** 2
                if share > 0.04:
                    # the cut of a ball: the outline, shrunk
                    inside = soft_step((float(np.sqrt(share)) - reach) * body.radius)
                    layers[index][window] += gain * cell.brightness * inside * texture[window]
    return layers


def _bodies(cell: Columnar, unit: float) -> tuple[tuple[Outline, float, float], ...]:
    """Outline at its widest, half height in µm, and brightness of each body of chromatin of a cell."""
    radius = cell.nucleus_radius_um
    if cell.phase in ("interphase", "prophase"):
        return (
            (
                Outline(cell.y, cell.x, radius * unit, 1.12, cell.axis, cell.lobes),
                radius,
                1.0 if cell.phase != "prophase" else 1.6,
            ),
        )
    across = cell.axis + np.pi / 2
    if cell.phase == "metaphase":
        return ((Outline(cell.y, cell.x, 0.62 * radius * unit, 2.6, across, cell.lobes), 0.9 * radius, 2.6),)
    apart = {"anaphase": 0.62, "telophase": 1.05}[cell.phase] * radius * unit
    size, long = (0.56, 2.0) if cell.phase == "anaphase" else (0.62, 1.5)
    return tuple(
        (
            Outline(
                cell.y + sign * apart * float(np.sin(cell.axis)),
                cell.x + sign * apart * float(np.cos(cell.axis)),
                size * radius * unit,
                long,
                across,
                cell.lobes,
            ),
            0.75 * radius,
            2.2,
        )
        for sign in (-1.0, 1.0)
    )


def _draw_membrane(rng: np.random.Generator, ground: Ground, below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lateral walls as deep as the cells, and a thin apical face."""
    beads = np.exp(0.22 * band_limited_noise(rng, CANVAS, period_px=5.0))
    walls = np.exp(-((ground.edge_px / 0.85) ** 2)) * beads
    lateral = soft_step(below, 0.5) * soft_step(10.0 - below, 1.5)
    apical = np.exp(-((below / 0.7) ** 2)) * (
        0.16 * beads * np.exp(0.3 * band_limited_noise(rng, CANVAS, period_px=4.0))
    )
    return np.asarray(lateral * walls + apical + 0.03 * lateral)


def _draw_myosin(
    rng: np.random.Generator, cells: Sequence[Columnar], ground: Ground, below: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Myosin in a belt near the apical face, strongest on upright junctions; dots on the face; rings in division."""
    gradient_y, gradient_x = np.gradient(ground.edge_px)
    upright = gradient_x**2 / np.maximum(gradient_x**2 + gradient_y**2, 1e-9)
    patches = np.exp(0.55 * band_limited_noise(rng, CANVAS, period_px=11.0))
    belt = np.exp(-((ground.edge_px / 1.1) ** 2)) * (0.22 + 1.1 * upright**1.5) * patches
    dots = np.maximum(band_limited_noise(rng, CANVAS, period_px=4.5, octaves=0.4) - 1.5, 0.0) * 0.9
    medial = np.exp(-((below / 0.9) ** 2)) * dots * (1.0 - np.exp(-((ground.edge_px / 3.0) ** 2)))
    cytosol = 0.07 * soft_step(below, 0.5) * soft_step(10.0 - below, 1.5)
    ring = np.zeros(CANVAS)
    for cell in cells:
        # the ring that cuts a dividing cell in two
        if cell.phase == "telophase":
            band = Outline(cell.y, cell.x, OBJECTIVE.to_px(1.1), 3.0, cell.axis + np.pi / 2)
            window = band.window(CANVAS)
            y, x = np.ogrid[window]
            ring[window] += soft_step((1.0 - band.reach(y, x)) * band.radius)
    return np.asarray(np.exp(-(((below - 0.8) / 1.0) ** 2)) * (belt + 0.8 * ring) + medial + cytosol)


def _depth(cell: Columnar, surface: Image) -> float:
    """Depth of a cell's nucleus below the top of the embryo, in µm."""
    row = min(max(int(cell.y), 0), CANVAS[0] - 1)
    column = min(max(int(cell.x), 0), CANVAS[1] - 1)
    return float(surface[row, column]) + cell.nucleus_depth_um


def _visible(cells: Sequence[Columnar], ground: Ground, surface: Image, plane_um: float) -> tuple[CellTruth, ...]:
    """Cells whose chromatin the focal plane cuts inside the picture."""
    areas = ground.areas(len(cells), (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)))
    visible = []
    for cell, area in zip(cells, areas, strict=True):
        bodies = _bodies(cell, 1.0 / OBJECTIVE.pixel_size_um)
        for body, half_height, _ in bodies:
            place = place_in_picture(body.y - MARGIN, body.x - MARGIN, SHAPE)
            if place is not None and area and abs(_depth(cell, surface) - plane_um) < 0.9 * half_height:
                size = max(int(area) // len(bodies), 1)
                visible.append(CellTruth(place[1], place[0], size, cell.phase, cell.track, cell.parent))
    return tuple(visible)


def recipe() -> dict[str, Any]:
    """How these files become images."""
    return {
        "source": STUDY,
        "title": "Simulated fly embryos during germband extension, three markers, z-stacks over time",
        "license": "CC0-1.0",
        "include": ["images/*.tif"],
        "channels": [{"panel": name, "channel_type": channel_type} for name, channel_type, _ in CHANNELS],
        "record": {
            "biology.organism": "Drosophila melanogaster",
            "biology.cell_type": "germband epithelium",
            "microscopy.type": "spinning disk confocal",
            "microscopy.magnification": OBJECTIVE.magnification,
        },
        "guidance": "guidance/{stem}_t{t}_z{z}-ch{index}.safetensors",
    }


def write(folder: Path, *, size: float, seed: int) -> Path:
    """Write the study below ``folder`` and return the path of its recipe."""
    home = new_study_folder(folder, STUDY)
    movies = map_threads(lambda number: _write_movie(home, number, seed), plan(size))
    images = tuple(image for movie in movies for image in movie)
    write_truth(home, StudyTruth(STUDY, seed, size, images))
    return write_recipe(home / "recipe.yaml", recipe())


def _write_movie(home: Path, number: int, seed: int) -> list[ImageTruth]:
    name = movie_name(number)
    path = f"images/{name}.tif"
    stack, truth = simulate(number, seed)
    write_hyperstack(
        home / path,
        stack,
        channels=[channel[0] for channel in CHANNELS],
        pixel_size_um=OBJECTIVE.pixel_size_um,
        z_spacing_um=PLANES_UM[1] - PLANES_UM[0],
        frame_interval_s=FRAME_INTERVAL_S,
    )
    images = []
    for frame, slices in enumerate(truth):
        for plane, cells in enumerate(slices):
            for index in range(len(CHANNELS)):
                write_guidance(home / "guidance" / f"{name}_t{frame}_z{plane}-ch{index}.safetensors", cells)
            images.append(
                ImageTruth(path, SHAPE[1], SHAPE[0], "untreated", cells, z_slice=plane, timepoint=frame, group=name)
            )
    return images
