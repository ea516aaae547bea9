"""Guidance files: centroids and sizes of the cells of one plane."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from chammi75.errors import ReadError
from chammi75.readers import parse_guidance, read_guidance


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64"])
def test_centroids_of_any_number_type_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "cells.safetensors"
    path.write_bytes(save({"data": np.array([[1, 2], [30, 40]], dtype), "sizes": np.array([9, 10], dtype)}))
    cells = read_guidance(path)
    assert (cells.xy.dtype, cells.sizes.dtype) == (np.float32, np.float32)
    assert cells.xy.tolist() == [[1, 2], [30, 40]] and cells.sizes.tolist() == [9, 10]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_a_plane_without_cells_is_an_empty_table(shape: tuple[int, ...]) -> None:
    cells = parse_guidance(save({"data": np.zeros(shape), "sizes": np.zeros(0)}))
    assert cells.xy.shape == (0, 2) and cells.sizes.shape == (0,)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"data": np.zeros((2, 2))}, "lacks sizes; it has data"),
        ({"data": np.zeros((2, 3)), "sizes": np.zeros(2)}, "are needed"),
        ({"data": np.zeros((2, 2)), "sizes": np.zeros(3)}, "are needed"),
        ({"data": np.full((1, 2), np.nan), "sizes": np.zeros(1)}, "finite"),
        ({"data": np.zeros((1, 2), bool), "sizes": np.zeros(1)}, "bool"),
    ],
)
def test_a_file_that_is_no_guidance_is_an_error(arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(ReadError, match=says):
        parse_guidance(save(arrays), "cells.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"abc", struct.pack("<Q", 1 << 60) + b"{}", save({"data": np.zeros((4, 2))})[:-3]]
)
def test_damaged_bytes_are_an_error_that_names_the_file(content: bytes) -> None:
    with pytest.raises(ReadError, match=r"^x\.safetensors: "):
        parse_guidance(content, "x.safetensors")


def test_the_published_files_are_read(shared_data: Path) -> None:
    paths = sorted((shared_data / "published").rglob("*.safetensors"))
    assert paths
    for path in paths:
        cells = read_guidance(path)
        assert cells.xy.shape == (len(cells.sizes), 2) and (cells.xy >= 0).all()
