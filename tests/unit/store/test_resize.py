"""Bilinear, antialiased resize."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from chammi75.errors import ChammiError
from chammi75.kernels import kernel
from chammi75.store.resize import resize_plane, resize_window, room_for

_FULL = {"uint8": 255, "uint16": 65535, "float32": 1.0}
_SIDES = st.one_of(st.integers(1, 20), st.integers(1, 300))


def _noise(shape: tuple[int, int], dtype: str, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    return (values if dtype == "float32" else np.rint(values * _FULL[dtype])).astype(dtype)


def _resized(plane: np.ndarray, shape: tuple[int, int], dtype: str = "float32") -> np.ndarray:
    out = np.empty(shape, dtype)
    resize_plane(plane, out)
    return out


def _by_torch(plane: np.ndarray, shape: tuple[int, int], dtype: str = "float64") -> np.ndarray:
    """As torchvision resizes; in float64 unless told, where no weight is rounded to float32."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(plane.astype(dtype))[None, None]
    resized = torch.nn.functional.interpolate(tensor, shape, mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0].numpy()


def _by_pillow(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR))


@settings(deadline=None, max_examples=100)
@given(st.tuples(_SIDES, _SIDES), st.tuples(_SIDES, _SIDES), st.sampled_from(sorted(_FULL)), st.integers(0, 99))
@example((1, 1), (224, 224), "uint8", 0)
@example((300, 1), (1, 300), "uint16", 0)
@example((257, 255), (7, 9), "uint8", 0)
@example((256, 256), (256, 224), "uint8", 0)
@example((256, 256), (224, 256), "uint8", 0)
@example((255, 256), (255, 256), "uint16", 0)
def test_resized_pixels_are_those_of_torch_and_pillow(
    shape: tuple[int, int], wanted: tuple[int, int], dtype: str, seed: int
) -> None:
    plane = _noise(shape, dtype, seed)
    resized = _resized(plane, wanted)
    full = _FULL[dtype]
    np.testing.assert_allclose(resized, _by_pillow(plane, wanted), rtol=0, atol=1e-6 * full)
    if wanted[1] > 1:  # PyTorch 2.14 repeats the first pixel in a result of one column
        np.testing.assert_allclose(resized, _by_torch(plane, wanted), rtol=0, atol=1e-6 * full)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((2048, 2048), (32, 32)), ((2048, 3), (1, 4000)), ((230, 450), (224, 224)), ((450, 230), (224, 224))],
)
def test_large_reductions_and_unequal_factors_are_those_of_torch(
    shape: tuple[int, int], wanted: tuple[int, int]
) -> None:
    plane = _noise(shape, "uint8")
    np.testing.assert_allclose(_resized(plane, wanted), _by_torch(plane, wanted), rtol=0, atol=1e-6 * 255)


def test_torch_in_float32_differs_by_its_own_rounding_alone() -> None:
    plane = _noise((256, 256), "uint8")
    theirs = _by_torch(plane, (224, 224), "float32")
    np.testing.assert_allclose(_resized(plane, (224, 224)), theirs, rtol=0, atol=1e-4 * 255)


@settings(deadline=None, max_examples=60)
@given(st.tuples(_SIDES, _SIDES), st.tuples(_SIDES, _SIDES), st.sampled_from(["uint8", "uint16"]))
def test_whole_numbers_are_the_floats_rounded_half_up(
    shape: tuple[int, int], wanted: tuple[int, int], dtype: str
) -> None:
    plane = _noise(shape, dtype)
    floats = _resized(plane, wanted)
    assert np.array_equal(_resized(plane, wanted, dtype), np.floor(floats + np.float32(0.5)).astype(dtype))


def test_a_half_is_rounded_up_and_pillow_agrees_but_for_its_rounding_in_between() -> None:
    assert _resized(np.array([[0, 1], [2, 3]], np.uint8), (1, 1), "uint8").tolist() == [[2]]
    plane = _noise((256, 256), "uint8")
    theirs = np.asarray(Image.fromarray(plane).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(_resized(plane, (224, 224), "uint8").astype(int) - theirs).max() <= 1


def test_what_a_dtype_cannot_hold_is_clipped_and_nan_is_zero() -> None:
    plane = np.array([[-1e9, -0.6, 254.6, 300, 1e9, np.inf, -np.inf, np.nan]], np.float32)
    assert _resized(plane, plane.shape, "uint8").tolist() == [[0, 0, 255, 255, 255, 255, 0, 0]]


def test_a_pixel_that_is_not_finite_reaches_only_the_pixels_that_depend_on_it() -> None:
    plane = np.zeros((40, 40), np.float32)
    plane[20, 20] = np.nan
    assert np.array_equal(np.isnan(_resized(plane, (31, 57))), np.isnan(_by_torch(plane, (31, 57))))
    assert np.isnan(_resized(plane, (31, 57))).sum() < 16


def test_a_plane_that_keeps_its_size_keeps_every_pixel() -> None:
    plane = _noise((61, 130), "uint16")
    assert np.array_equal(_resized(plane, plane.shape, "uint16"), plane)
    assert np.array_equal(_resized(plane, plane.shape), plane)


def test_a_constant_plane_stays_constant() -> None:
    for wanted in ((3, 500), (224, 224), (1, 1)):
        assert np.array_equal(_resized(np.full((97, 101), 255, np.uint8), wanted, "uint8"), np.full(wanted, 255))


def _unusual(plane: np.ndarray) -> Iterator[np.ndarray]:
    yield np.asfortranarray(plane)
    yield np.repeat(plane, 2, axis=1)[:, ::2]
    yield np.flip(np.flip(plane, 1).copy(), 1)
    yield plane.astype(plane.dtype.newbyteorder(">"))
    fixed = plane.copy()
    fixed.flags.writeable = False
    yield fixed


def test_any_memory_layout_and_byte_order_is_taken() -> None:
    plane = _noise((50, 60), "uint16")
    expected = _resized(plane, (30, 70))
    for view in _unusual(plane):
        assert np.array_equal(_resized(view, (30, 70)), expected)
    out = np.full((30, 140), -1, ">f4")
    resize_plane(plane, out[:, ::2])
    assert np.array_equal(out[:, ::2], expected) and (out[:, 1::2] == -1).all()


def test_a_plane_may_be_resized_into_memory_that_it_shares() -> None:
    memory = _noise((64, 64), "float32")
    expected = _resized(memory, (64, 32))
    resize_plane(memory, memory[:, :32])
    assert np.array_equal(memory[:, :32], expected)


@pytest.mark.parametrize(
    ("plane", "out", "message"),
    [
        (np.zeros((0, 4), np.uint8), np.zeros((2, 2), np.float32), "plane must have a height and a width"),
        (np.zeros((4, 4), np.uint8), np.zeros((2, 0), np.float32), "out must have a height and a width"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((2, 2), np.float32), "plane must have a height and a width"),
        (np.zeros((4, 4), np.int16), np.zeros((2, 2), np.float32), "plane must be uint8, uint16, float32, not int16"),
        (np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.float64), "out must be uint8, uint16, float32, not float64"),
    ],
)
def test_what_cannot_be_resized_is_refused(plane: np.ndarray, out: np.ndarray, message: str) -> None:
    with pytest.raises(ChammiError, match=message):
        resize_plane(plane, out)


def _both(planes, out, room):  # type: ignore[no-untyped-def]
    needed = room_for(planes.shape[1], planes.shape[2], out.shape[1], out.shape[2])
    for k in range(len(planes)):
        resize_window(planes[k], out[k], room[:needed])


def test_other_kernels_call_it_and_it_stays_inside_its_room() -> None:
    planes = np.stack([_noise((90, 70), "uint8", seed) for seed in range(2)])
    for wanted in ((33, 41), (100, 70), (7, 200), (1, 1), (90, 3)):
        needed = room_for(90, 70, *wanted)
        room = np.full(needed + 64, -1, np.float32)
        out = np.full((3, *wanted), -1, np.float32)
        kernel(_both)(planes, out[:2], room)
        assert (room[needed:] == -1).all() and (out[2] == -1).all()
        for k in range(2):
            assert np.array_equal(out[k], _resized(planes[k], wanted))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600))
def test_smaller_windows_need_no_more_room_for_the_same_output(side: int, other: int, wanted: int) -> None:
    small, large = sorted((side, other))
    assert room_for(small, small, wanted, wanted) <= room_for(large, large, wanted, wanted)
