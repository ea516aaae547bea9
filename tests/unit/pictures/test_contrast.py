"""Which values are drawn black and which white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chammi75.errors import ChammiError
from chammi75.pictures.contrast import channel_limits, display_limits, to_8bit, to_unit

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"]


def noise(mean: float, deviation: float, dtype: str = "uint16", side: int = 256) -> np.ndarray:
    values = np.random.default_rng(7).normal(mean, deviation, (side, side))
    return values.clip(0).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plane_of_every_dtype_has_limits_in_order_and_becomes_8_bit(dtype: str) -> None:
    plane = np.arange(120).reshape(10, 12).astype(dtype)
    low, high = display_limits(plane)
    assert low < high
    shown = to_8bit(plane, (low, high))
    assert shown.dtype == np.uint8 and shown.shape == plane.shape
    assert shown.min() == 0 and shown.max() == 255


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [None, "nucleus", "bright-field", "r"])
def test_a_constant_plane_has_limits_in_order(dtype: str, kind: str | None) -> None:
    for value in (0, 1, 100):
        low, high = display_limits(np.full((5, 7), value, dtype), channel_type=kind)
        assert np.isfinite([low, high]).all() and low < high


def test_a_constant_fluorescence_plane_is_black_and_a_constant_bright_field_is_mid_gray() -> None:
    plane = np.full((4, 4), 900, np.uint16)
    assert (to_8bit(plane, display_limits(plane)) == 0).all()
    gray = to_8bit(plane, display_limits(plane, channel_type="bright-field"))
    assert (gray == 128).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("kind", [None, "bright-field", "g"])
def test_an_empty_plane_has_limits(shape: tuple[int, int], kind: str | None) -> None:
    plane = np.zeros(shape, np.uint16)
    low, high = display_limits(plane, channel_type=kind)
    assert low < high
    assert to_8bit(plane, (low, high)).shape == shape


def test_nan_and_infinity_do_not_count_and_are_drawn_black_and_white() -> None:
    plane = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    clean = display_limits(plane, 0, 100)
    plane[0, 0], plane[9, 9] = np.nan, np.inf
    low, high = display_limits(plane, 0, 100)
    assert high <= clean[1] and low >= clean[0]
    shown = to_8bit(plane, (low, high))
    assert shown[0, 0] == 0 and shown[9, 9] == 255


def test_a_plane_of_nan_alone_has_limits() -> None:
    assert display_limits(np.full((3, 3), np.nan, np.float32)) == (0.0, 1.0)


def test_nan_on_the_whole_sampling_grid_does_not_hide_the_values_between() -> None:
    plane = np.full((600, 600), np.nan, np.float32)
    plane[1::3, 1::3] = np.linspace(5, 9, 200)[None, :]
    low, high = display_limits(plane, 0, 100)
    assert 5 <= low < high <= 9


def test_a_few_bright_spots_on_black_are_seen() -> None:
    plane = np.zeros((512, 512), np.uint16)
    plane[100, 101] = 5000  # off the sampling grid
    assert display_limits(plane) == (0.0, 5000.0)


def test_pure_noise_stays_dark() -> None:
    plane = noise(100, 5)
    shown = to_8bit(plane, display_limits(plane))
    assert shown.mean() < 90
    assert np.percentile(shown, 99) < 180


def test_one_hot_pixel_does_not_darken_the_rest() -> None:
    rows = np.linspace(100, 1000, 256)
    plane = np.repeat(rows[:, None], 256, axis=1).astype(np.uint16)
    expected = display_limits(plane)
    plane[3, 4] = 65_535
    assert display_limits(plane) == pytest.approx(expected, rel=0.02)


def test_fluorescence_is_stretched_whatever_part_of_the_bit_depth_it_uses() -> None:
    plane = noise(0, 1, "float64") * 0
    plane[50:150, 50:150] = np.linspace(0, 1, 100)
    for scale, dtype in ((250, "uint8"), (300, "uint16"), (60_000, "uint16"), (0.01, "float32")):
        low, high = display_limits((plane * scale).astype(dtype))
        assert low == 0
        assert high == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("kind", ["bright-field", "phase-contrast", "differential interference contrast (DIC)"])
def test_the_background_of_transmitted_light_is_mid_gray(kind: str) -> None:
    plane = noise(30_000, 200)
    plane[10:30, 10:30] = 5000
    plane[50:55, 50:55] = 40_000
    low, high = display_limits(plane, channel_type=kind)
    assert (low + high) / 2 == pytest.approx(30_000, abs=30)
    assert low < 6000


def test_colour_components_keep_the_full_range_of_the_camera() -> None:
    plane = np.full((4, 4), 130, np.uint8)
    assert display_limits(plane, channel_type="g") == (0, 255)
    wide = plane.astype(np.uint16) * 20
    assert display_limits(wide, channel_type="g") == (0, 4095)
    assert display_limits(wide, channel_type="g", significant_bits=14) == (0, 16_383)
    assert display_limits(np.full((4, 4), 0.5, np.float32), channel_type="g") == (0, 1)


def test_r_g_b_share_the_scale_of_the_brightest_and_fluorescence_beside_them_does_not() -> None:
    red, green, blue, other = (np.full((8, 8), value, np.uint16) for value in (200, 900, 100, 50))
    other[:4] = 70
    limits = channel_limits([red, green, blue, other], ["r", "g", "b", "nucleus"])
    assert limits[:3] == [(0, 1023)] * 3
    assert limits[3] == (50, 70)


def test_limits_are_the_same_each_time() -> None:
    plane = noise(500, 90, side=1000)
    assert display_limits(plane) == display_limits(plane.copy()) == display_limits(np.asfortranarray(plane))


@pytest.mark.parametrize(
    ("plane", "options"),
    [
        (np.zeros(5), {}),
        (np.zeros((2, 2, 2)), {}),
        (np.zeros((2, 2), np.complex64), {}),
        (np.array([["a"]]), {}),
        (np.zeros((2, 2)), {"low": 50, "high": 50}),
        (np.zeros((2, 2)), {"low": -1}),
        (np.zeros((2, 2)), {"high": 101}),
        (np.zeros((2, 2)), {"channel_type": "r", "significant_bits": 0}),
    ],
)
def test_what_is_no_plane_or_no_percentile_is_refused(plane: np.ndarray, options: dict[str, float]) -> None:
    with pytest.raises(ChammiError, match=r"refused|cannot be shown"):
        display_limits(plane, **options)


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.nan), (-np.inf, 0)])
def test_limits_out_of_order_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(ChammiError, match="refused"):
        to_8bit(np.zeros((2, 2)), limits)


def test_8_bit_values_are_linear_and_rounded() -> None:
    plane = np.array([[0, 100, 150, 200, 300]], np.uint16)
    assert to_8bit(plane, (100, 200)).tolist() == [[0, 0, 128, 255, 255]]
    assert to_8bit(plane.astype(np.int32), (100, 200)).tolist() == [[0, 0, 128, 255, 255]]
    assert to_8bit(np.array([[True, False]]), (0, 1)).tolist() == [[255, 0]]


ANY_PLANE = st.sampled_from(["uint8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12))
)


@settings(max_examples=300, deadline=None)
@given(
    plane=ANY_PLANE,
    kind=st.sampled_from([None, "nucleus", "bright-field", "electron microscope", "r"]),
    low=st.floats(0, 49),
    high=st.floats(51, 100),
)
@pytest.mark.filterwarnings("error")
def test_any_plane_has_finite_limits_in_order_and_keeps_the_order_of_its_values(
    plane: np.ndarray, kind: str | None, low: float, high: float
) -> None:
    lower, upper = display_limits(plane, low, high, channel_type=kind)
    assert np.isfinite([lower, upper]).all() and lower < upper
    unit = to_unit(plane, (lower, upper))
    assert unit.dtype == np.float32 and unit.shape == plane.shape
    assert unit.size == 0 or (unit.min() >= 0 and unit.max() <= 1)
    order = np.argsort(np.nan_to_num(plane.astype(np.float64), nan=-np.inf, neginf=-np.inf), axis=None, kind="stable")
    assert (np.diff(unit.ravel()[order]) >= 0).all()


def test_a_real_field_of_cells_spans_the_range(shared_data: Path) -> None:
    import tifffile

    for path in sorted((shared_data / "public" / "cdf_JUMP_BR00117006").glob("*.tiff")):
        plane = tifffile.imread(path)
        shown = to_8bit(plane, display_limits(plane))
        assert (shown == 255).mean() < 0.01
        assert np.median(shown) < 100
        assert np.percentile(shown, 99) > 100
