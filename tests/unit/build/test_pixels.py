"""Pixels of any type become one that a store holds, without changing a value, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chammi75.build.pixels import to_one_dtype, to_stored
from chammi75.errors import ChammiError

INTEGERS = ("int8", "int16", "int32", "int64", "uint32", "uint64")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_stored_types_stay_as_they_are(dtype: str) -> None:
    plane = np.arange(6).reshape(2, 3).astype(dtype)
    stored, step = to_stored(plane)
    assert stored is plane
    assert step is None


@pytest.mark.parametrize(
    ("dtype", "values", "target"),
    [
        ("bool", [0, 1], "uint8"),
        ("int8", [0, 127], "uint8"),
        ("int8", [-128, 127], "float32"),
        ("int16", [0, 32767], "uint16"),
        ("int16", [-1, 32767], "float32"),
        ("int16", [-32768, 0], "float32"),
        ("int32", [0, 65535], "uint16"),
        ("int32", [0, 65536], "float32"),
        ("int32", [-(2**24), 2**24], "float32"),
        ("uint32", [0, 65535], "uint16"),
        ("uint32", [0, 2**24], "float32"),
        ("uint64", [3, 65535], "uint16"),
        ("int64", [-5, 70000], "float32"),
        ("float16", [-1.5, 65504], "float32"),
        ("float64", [-1.5, 3e38], "float32"),
    ],
)
def test_other_types_become_the_smallest_that_has_all_their_values(
    dtype: str, values: list[float], target: str
) -> None:
    plane = np.array([values], dtype)
    stored, step = to_stored(plane)
    assert stored.dtype == target
    if dtype != "float64":
        assert stored.astype(np.float64).tolist() == plane.astype(np.float64).tolist()
    assert step is not None and step.startswith(f"{dtype} stored as {target}")


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", [-1, 2**24 + 1]),
        ("int32", [-(2**24) - 1, 0]),
        ("uint32", [0, 2**32 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("int64", [-(2**63), 0]),
    ],
)
def test_integers_that_no_stored_type_has_exactly_are_refused_with_their_range(dtype: str, values: list[int]) -> None:
    with pytest.raises(ChammiError, match=rf"{dtype} pixels from {min(values)} to {max(values)} cannot be stored"):
        to_stored(np.array([values], dtype))


def test_float64_is_rounded_and_says_so() -> None:
    stored, step = to_stored(np.array([[0.1, 1.0]]))
    assert stored.tolist() == [[np.float32(0.1), 1.0]]
    assert step == "float64 stored as float32, rounded to the nearest"
    special = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.5]])
    stored, step = to_stored(special)
    assert step == "float64 stored as float32, values unchanged"
    assert np.isnan(stored[0, 0]) and stored[0, 1:].tolist() == [np.inf, -np.inf, -0.0, 0.5]
    assert np.signbit(stored[0, 3])


def test_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(ChammiError, match="beyond the range of float32"):
        to_stored(np.array([[1e39, 0.0]]))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "datetime64[s]"])
def test_what_is_no_real_number_is_refused(dtype: str) -> None:
    with pytest.raises(ChammiError, match="cannot be stored; integers and real floats can"):
        to_stored(np.zeros((2, 2), dtype))


@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=2, max_dims=2, max_side=4))
    )
)
def test_an_integer_is_kept_exactly_or_refused(plane: np.ndarray) -> None:
    try:
        stored, _ = to_stored(plane)
    except ChammiError:
        assert int(plane.min()) < -(2**24) or int(plane.max()) > 2**24
        return
    found = [[int(value) for value in row] for row in stored]
    assert found == [[int(value) for value in row] for row in plane]


def test_channels_of_two_types_are_stored_in_the_wider_one_and_say_so() -> None:
    planes = [np.array([[255]], np.uint8), np.array([[65535]], np.uint16)]
    stored, steps = to_one_dtype(planes)
    assert [plane.dtype.name for plane in stored] == ["uint16", "uint16"]
    assert [plane.tolist() for plane in stored] == [[[255]], [[65535]]]
    assert steps == ["plane 1: uint8 stored as uint16, values unchanged"]


def test_channels_of_integers_and_floats_are_stored_as_floats() -> None:
    planes = [np.array([[65535]], np.uint16), np.array([[0.5]], np.float32), np.array([[-3]], np.int16)]
    stored, steps = to_one_dtype(planes)
    assert [plane.dtype.name for plane in stored] == ["float32"] * 3
    assert [plane.tolist() for plane in stored] == [[[65535.0]], [[0.5]], [[-3.0]]]
    assert steps == [
        "int16 stored as float32, values unchanged",
        "plane 1: uint16 stored as float32, values unchanged",
    ]


def test_a_step_that_all_channels_take_is_written_once() -> None:
    _, steps = to_one_dtype([np.zeros((2, 2), np.int16)] * 3)
    assert steps == ["int16 stored as uint16, values unchanged"]
