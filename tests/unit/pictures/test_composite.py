"""All channels in one picture."""

from __future__ import annotations

import numpy as np
import pytest

from chammi75.errors import ChammiError
from chammi75.pictures.colours import COLOURS
from chammi75.pictures.composite import composite

FULL = (0.0, 255.0)


def plane(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def test_one_channel_alone_is_exactly_its_colour() -> None:
    picture = composite([plane(0, 255)], ["er"], limits=[FULL])
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[0, 0, 0], list(COLOURS["er"])]]


def test_half_the_light_is_half_the_colour() -> None:
    picture = composite([np.array([[100]], np.uint16)], ["agp"], limits=[(0, 200)])
    assert picture[0, 0].tolist() == pytest.approx([value / 2 for value in COLOURS["agp"]], abs=1)


def test_channels_in_different_places_do_not_change_each_other() -> None:
    picture = composite([plane(255, 0), plane(0, 255)], ["nucleus", "er"], limits=[FULL, FULL])
    assert picture[0].tolist() == [list(COLOURS["nucleus"]), list(COLOURS["er"])]


def test_overlap_is_at_least_as_bright_as_each_channel_in_every_component() -> None:
    both = composite([plane(255), plane(255)], ["nucleus", "er"], limits=[FULL, FULL])[0, 0]
    assert (both >= np.maximum(COLOURS["nucleus"], COLOURS["er"])).all()


def test_the_order_of_channels_does_not_matter_to_the_sum() -> None:
    first, second = plane(10, 200, 90), plane(250, 30, 90)
    one = composite([first, second], ["nucleus", "er"], limits=[FULL, FULL])
    other = composite([second, first], ["er", "nucleus"], limits=[FULL, FULL])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("order", ["rgb", "bgr", "grb"])
def test_r_g_b_are_true_colour_in_any_order(order: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    planes = {"r": rgb[..., 0], "g": rgb[..., 1], "b": rgb[..., 2]}
    np.testing.assert_array_equal(composite([planes[name] for name in order], list(order)), rgb)


def test_12_bit_true_colour_is_scaled_by_its_significant_bits() -> None:
    planes = np.full((3, 2, 2), 4095, np.uint16)
    planes[2] = 0
    picture = composite(planes, ["r", "g", "b"], significant_bits=12)
    assert picture[0, 0].tolist() == [255, 255, 0]
    assert composite(planes, ["r", "g", "b"], significant_bits=16)[0, 0].tolist() == [16, 16, 0]


@pytest.mark.parametrize("kind", ["bright-field", "phase-contrast", "electron microscope", "dark-field"])
def test_gray_types_are_gray(kind: str) -> None:
    picture = composite([plane(0, 51, 255)], [kind], limits=[FULL])
    assert picture[0].tolist() == [[value] * 3 for value in (0, 51, 255)]


def test_fluorescence_lies_over_transmitted_light() -> None:
    picture = composite([plane(128, 128), plane(0, 255)], ["bright-field", "nucleus"], limits=[FULL, FULL])
    assert picture[0].tolist() == [[128, 128, 128], list(COLOURS["nucleus"])]


def test_a_missing_plane_adds_nothing() -> None:
    light = plane(7, 255)
    np.testing.assert_array_equal(
        composite([light, None], ["nucleus", "er"], limits=[FULL, FULL]),
        composite([light], ["nucleus"], limits=[FULL]),
    )


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)])
def test_a_picture_of_no_pixel_has_no_pixel(shape: tuple[int, int]) -> None:
    assert composite(np.zeros((2, *shape), np.uint16), ["nucleus", "bright-field"]).shape == (*shape, 3)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "uint32", "float16", "float32", "float64"])
def test_every_dtype_can_be_drawn(dtype: str) -> None:
    planes = np.arange(2 * 30 * 20).reshape(2, 30, 20).astype(dtype)
    assert composite(planes, ["nucleus", "er"]).shape == (30, 20, 3)


def test_a_smaller_picture_averages_and_never_skips() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    picture = composite([board.astype(np.uint8)], ["electron microscope"], limits=[FULL], longest=16)
    assert picture.shape == (16, 16, 3)
    assert (picture == 128).all()


@pytest.mark.parametrize(
    ("planes", "kinds", "limits", "message"),
    [
        ([plane(1)], ["er", "nucleus"], None, "1 planes, 2 channel types"),
        ([plane(1)], ["er"], [], "0 pairs of limits"),
        ([], [], None, "at least one plane"),
        ([None], ["er"], None, "at least one plane"),
        ([plane(1), plane(1, 2)], ["er", "nucleus"], None, "shapes"),
        ([np.zeros((2, 2, 2))], ["er"], None, "shapes"),
    ],
)
def test_what_is_not_one_image_is_refused(planes: list, kinds: list, limits: list | None, message: str) -> None:
    with pytest.raises(ChammiError, match=message):
        composite(planes, kinds, limits=limits)
