"""Whether simulated images behave as light, cells and cameras do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from chammi75.mini.camera import Camera
from chammi75.mini.culture import Phenotype, grow_culture
from chammi75.mini.filaments import Starts, grow
from chammi75.mini.optics import Objective, blur, bright_field, focus_through
from chammi75.mini.outlines import Outline, share_ground, warp
from chammi75.mini.randomness import generator
from chammi75.mini.stains import STAINS
from chammi75.mini.studies import brightfield, plate, timelapse
from chammi75.mini.textures import band_limited_noise


@pytest.fixture(scope="module")
def field() -> tuple[np.ndarray, tuple]:
    return plate.simulate(plate.plan(1.0)[0], 75)


def test_truth_lies_on_bright_nuclei(field: tuple[np.ndarray, tuple]) -> None:
    planes, cells = field
    background = np.percentile(planes[0], 20)
    levels = [float(planes[0][around(c.y), around(c.x)].mean()) for c in cells]
    assert len(cells) >= 10
    assert min(levels) > background + 100
    assert np.median(levels) > 4 * background


def around(centre: float) -> slice:
    return slice(max(round(centre) - 3, 0), round(centre) + 4)


def test_cell_areas_are_plausible(field: tuple[np.ndarray, tuple]) -> None:
    _, cells = field
    areas_um2 = np.array([cell.area_px for cell in cells]) * plate.OBJECTIVE.pixel_size_um**2
    assert 300 < np.median(areas_um2) < 3000  # cultured U2OS cells


def test_planes_use_12_bits_without_clipping(field: tuple[np.ndarray, tuple]) -> None:
    planes, _ = field
    for index, plane in enumerate(planes):
        assert plane.dtype == np.uint16
        assert plane.max() <= 4095
        assert (plane == 4095).mean() < 1e-3, plate.CHANNELS[index].name
        assert np.percentile(plane, 99.9) > 800, plate.CHANNELS[index].name
        assert plane.min() > 0


def test_channels_differ_but_share_cells(field: tuple[np.ndarray, tuple]) -> None:
    planes, _ = field
    correlation = np.corrcoef([plane.ravel() for plane in planes.astype(float)])
    off_diagonal = correlation[~np.eye(5, dtype=bool)]
    assert off_diagonal.max() < 0.95
    assert correlation[1, 2] > 0.4  # ER and RNA both fill the cytoplasm


def test_power_falls_with_frequency(field: tuple[np.ndarray, tuple]) -> None:
    planes, _ = field
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :])
    for plane in planes:
        power = np.abs(np.fft.rfft2(plane - plane.mean())) ** 2
        means = [
            power[(frequency >= low) & (frequency < 2 * low)].mean()
            for low in (1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
        ]
        assert means[0] > 50 * means[-1]
        assert all(later < 1.3 * earlier for earlier, later in pairwise(means))


def test_phenotypes_are_visible_in_the_channel_that_they_concern() -> None:
    def measure(reagent: str) -> dict[str, float]:
        chosen = next(f for f in plate.plan(1.0) if f.reagent == reagent and f.defect is None)
        planes, cells = plate.simulate(chosen, 75)
        light = planes.astype(float) - np.percentile(planes, 5, axis=(1, 2))[:, None, None]
        dna = light[0] > 0.35 * np.percentile(light[0], 99)
        near = np.zeros_like(dna)
        for cell in cells:
            y, x = np.ogrid[:512, :512]
            near |= (y - cell.y) ** 2 + (x - cell.x) ** 2 < 38**2
        return {
            "nucleus area": dna.sum() / max(len(cells), 1),
            "cells": len(cells),
            "er outside": light[1][~near].sum() / light[1].sum(),
            "actin": light[3].mean() / light[2].mean(),
            "mitochondria are lines": coherence(light[4]),
        }

    def coherence(plane: np.ndarray) -> float:
        """How line-like structures are, by the structure tensor: near 1 for filaments, lower for dots."""
        light = blur(plane, [(1.0, 0.8)])
        along_y, along_x = np.gradient(light - blur(light, [(1.0, 5.0)]))
        yy, xx, xy = (blur(product, [(1.0, 2.0)]) for product in (along_y**2, along_x**2, along_y * along_x))
        return float(np.hypot(yy - xx, 2 * xy).sum() / (yy + xx).sum())

    control = measure("DMSO")
    assert measure("aphidicolin")["nucleus area"] > 1.3 * control["nucleus area"]
    assert measure("aphidicolin")["cells"] < control["cells"]
    assert measure("brefeldin A")["er outside"] < 0.6 * control["er outside"]
    assert measure("latrunculin B")["actin"] < 0.75 * control["actin"]
    assert measure("FCCP")["mitochondria are lines"] < 0.85 * control["mitochondria are lines"]


def test_shot_noise_has_the_mean_variance_and_skewness_of_poisson() -> None:
    camera = Camera(significant_bits=16, offset=1000.0, electrons_per_count=0.05, read_noise_electrons=0.0)
    for expected in (20.0, 200.0, 2000.0):
        counts = camera.expose(np.random.default_rng(1), np.full((512, 512), expected))
        electrons = (counts - 1000.0) * 0.05
        assert electrons.mean() == pytest.approx(expected, rel=0.01)
        assert electrons.var() == pytest.approx(expected, rel=0.03)
        skewness = ((electrons - expected) ** 3).mean() / electrons.std() ** 3
        assert skewness == pytest.approx(expected**-0.5, abs=0.02)


def test_read_noise_alone_remains_in_the_dark() -> None:
    camera = Camera(significant_bits=12, offset=100.0, electrons_per_count=0.5, read_noise_electrons=2.0)
    counts = camera.expose(np.random.default_rng(1), np.zeros((256, 256)))
    assert counts.mean() == pytest.approx(100.0, abs=0.1)
    assert counts.std() == pytest.approx(4.0, rel=0.03)


def test_blur_keeps_light_and_has_the_width_asked_for() -> None:
    point = np.zeros((65, 65))
    point[32, 32] = 1.0
    spread = blur(point, [(1.0, 3.0)])
    rows = np.arange(65) - 32.0
    assert spread.sum() == pytest.approx(1.0)
    assert np.sqrt((spread.sum(axis=1) * rows**2).sum()) == pytest.approx(3.0, rel=1e-3)


def test_a_bead_is_sharpest_and_brightest_in_its_own_plane() -> None:
    objective = Objective(magnification=63.0, numerical_aperture=1.3, refractive_index=1.47, pixel_size_um=0.1)
    layers = np.zeros((3, 64, 64))
    layers[1, 32, 32] = 1.0
    images = focus_through(
        layers, (0.0, 1.0, 2.0), (0.0, 1.0, 2.5), objective=objective, wavelength_um=0.5, section_um=1.0
    )
    peaks = images.max(axis=(1, 2))
    assert peaks[1] > 2 * peaks[0] > 2 * peaks[2]
    assert images[1].sum() == pytest.approx(1.0)


def test_a_phase_object_vanishes_in_focus_and_reverses_across_it() -> None:
    y, x = np.mgrid[-32:32, -32:32]
    wave = np.exp(0.3j * np.exp(-(y**2 + x**2) / 40.0))
    objective = Objective(magnification=20.0, numerical_aperture=0.45, refractive_index=1.0, pixel_size_um=0.62)

    def contrast(defocus_um: float) -> float:
        image = bright_field(
            wave,
            objective=objective,
            wavelength_um=0.55,
            defocus_um=defocus_um,
            condenser=((1.0, 0.0, 0.0),),
            condenser_spread=0.0,
        )
        return float(image[32, 32] - image[0, 0])

    assert abs(contrast(0.0)) < 0.02
    assert contrast(10.0) * contrast(-10.0) < 0
    assert abs(contrast(10.0)) > 5 * abs(contrast(0.0))


def test_noise_has_unit_variance_and_the_period_asked_for() -> None:
    noise = band_limited_noise(np.random.default_rng(0), (256, 200), period_px=12.0)
    assert noise.std() == pytest.approx(1.0, rel=0.1)
    power = np.abs(np.fft.rfft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(200)[None, :])
    assert 1 / np.average(frequency, weights=power) == pytest.approx(12.0, rel=0.2)


def test_reach_is_one_on_the_outline_at_every_angle() -> None:
    outline = Outline(
        50.0, 60.0, 20.0, elongation=1.6, angle=0.7, lobes=((2, 0.1, 0.3), (3, 0.08, 1.0), (5, 0.04, 2.0))
    )
    turn = np.linspace(0, 2 * np.pi, 500)
    radius = 20.0 * (1 + 0.1 * np.cos(2 * turn + 0.3) + 0.08 * np.cos(3 * turn + 1) + 0.04 * np.cos(5 * turn + 2))
    u, v = radius * np.cos(turn) * np.sqrt(1.6), radius * np.sin(turn) / np.sqrt(1.6)
    y = 50.0 + u * np.sin(0.7) + v * np.cos(0.7)
    x = 60.0 + u * np.cos(0.7) - v * np.sin(0.7)
    np.testing.assert_allclose(outline.reach(y, x), 1.0, atol=0.004)


def test_crowded_cells_touch_without_overlap_and_stay_connected() -> None:
    cells = [Outline(40.0, 40.0, 30.0), Outline(40.0, 80.0, 30.0)]
    grid = warp(np.random.default_rng(0), (80, 120), [])
    ground = share_ground(cells, [False, False], (80, 120), grid)
    assert ground.label[40, 58] == 1
    assert ground.label[40, 62] == 2
    assert ground.label[0, 0] == 0
    assert ground.edge_px[40, 60] < 1.5
    assert ground.edge_px[40, 40] > 15


def test_filaments_stay_in_their_cell_and_out_of_the_nucleus() -> None:
    label = np.zeros((64, 64), dtype=np.int32)
    label[:, :40] = 1
    nucleus = np.zeros((64, 64), dtype=bool)
    nucleus[20:40, 5:20] = True
    count = 300
    rng = np.random.default_rng(0)
    starts = Starts(
        y=rng.uniform(0, 64, count),
        x=rng.uniform(0, 64, count),
        heading=rng.uniform(0, 6.28, count),
        length=np.full(count, 30.0),
        brightness=np.ones(count),
        label=np.ones(count, dtype=np.int32),
    )
    image = grow(rng, starts, label, nucleus, bend=0.1)
    assert image[:, :40].sum() > 100
    assert image[:, 42:].sum() == 0
    assert image[22:39, 7:19].sum() == 0


def test_no_filaments_is_a_dark_image() -> None:
    none = np.zeros(0)
    starts = Starts(none, none, none, none, none, np.zeros(0, dtype=np.int32))
    image = grow(np.random.default_rng(0), starts, np.ones((8, 9), np.int32), np.zeros((8, 9), bool), bend=0.1)
    assert image.shape == (8, 9)
    assert image.sum() == 0


@pytest.mark.parametrize("stain", sorted(STAINS))
def test_every_stain_is_finite_and_dark_where_no_cell_is(stain: str) -> None:
    culture = grow_culture(
        generator(1, "test"),
        (192, 192),
        margin=16,
        pixel_size_um=0.325,
        line=plate.U2OS,
        phenotype=Phenotype(mitotic_share=0.5, coverage=0.5),
    )
    image = STAINS[stain](generator(1, stain), culture)
    assert np.isfinite(image).all()
    assert image.min() >= 0
    bare = (culture.ground.label == 0) & (culture.maps.distance_px > 5)
    assert image[bare].mean() < 0.05 * image[~bare].mean()


def test_bright_field_has_grey_ground_bright_and_dark_edges() -> None:
    image, cells = brightfield.simulate(brightfield.plan(1.0)[0], 75)
    assert len(cells) > 30
    assert 100 < np.median(image) < 150
    assert np.percentile(image, 99.5) > np.median(image) + 25
    assert np.percentile(image, 0.5) < np.median(image) - 25
    assert ((image == 0) | (image == 255)).mean() < 0.002


def test_movie_slices_show_the_cells_that_truth_lists_there() -> None:
    stack, truth = timelapse.simulate(0, 75)
    for frame in range(stack.shape[0]):
        for plane in range(stack.shape[1]):
            histone = stack[frame, plane, 0]
            levels = [float(histone[around(c.y), around(c.x)].mean()) for c in truth[frame][plane]]
            assert np.median(levels) > 3 * np.median(histone)
            assert (histone == 255).mean() < 0.02
