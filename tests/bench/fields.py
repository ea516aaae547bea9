"""Fields of view of a wanted size, with their cells: real planes, unfolded by reflection, their noise untouched.

Each pixel of a field is a pixel of a real plane: larger fields are tiled by mirroring rows and columns at the borders,
from a place drawn at random on (no interpolation, no scaling), and every second turn through the planes is transposed.
PNGs are written as OpenCV writes them if told nothing, as the published ones are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inputs import PUBLISHED, planes_8_bit
from numpy.typing import NDArray


@dataclass(frozen=True)
class Field:
    """One field of view.

    Attributes
    ----------
    index : int
    png : bytes
        The plane, 8 bits, gray.
    cells : ndarray, shape (n, 2), int32
        Centres as (x, y), in pixels; never empty.
    """

    index: int
    png: bytes
    cells: NDArray[np.int32]

    def pixels(self) -> NDArray[np.uint8]:
        """The plane, decoded."""
        import cv2

        pixels: NDArray[np.uint8] = cv2.imdecode(np.frombuffer(self.png, np.uint8), cv2.IMREAD_UNCHANGED)
        return pixels


def write_fields(folder: Path, edge: int, count: int) -> str:
    """Write ``count`` fields of ``edge`` x ``edge`` pixels to a new folder, and say what they were made of."""
    import cv2

    planes, origin = planes_8_bit()
    centres = _centres(planes)
    fields = []
    for index in range(count):
        plane, cells = planes[index % len(planes)], centres[index % len(planes)]
        if index // len(planes) % 2:
            plane, cells = plane.T, cells[:, ::-1]
        rows, columns = (
            _unfolded(length, edge, np.random.default_rng((index, axis))) for axis, length in enumerate(plane.shape)
        )
        field = np.ascontiguousarray(plane[rows][:, columns])
        fields.append(Field(index, cv2.imencode(".png", field)[1].tobytes(), _moved(cells, rows, columns)))
    save_fields(folder, fields)
    return f"{count} fields of {edge} px out of {origin}, unfolded by reflection"


def save_fields(folder: Path, fields: Sequence[Field]) -> None:
    """Write fields to a new folder: a PNG and an array of cells each."""
    folder.mkdir(parents=True)
    for field in fields:
        (folder / f"{field.index:05d}.png").write_bytes(field.png)
        np.save(folder / f"{field.index:05d}.npy", field.cells)


def read_fields(folder: Path) -> list[Field]:
    """The fields of a folder."""
    paths = sorted(folder.glob("*.png"))
    return [Field(int(path.stem), path.read_bytes(), np.load(path.with_suffix(".npy"))) for path in paths]


def _unfolded(length: int, edge: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Which rows of a plane of ``length`` rows the ``edge`` rows of a field are."""
    start = random.integers(0, length - edge + 1) if length >= edge else random.integers(0, 2 * length)
    folded = (start + np.arange(edge)) % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)


def _moved(cells: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
    """Where cells of a plane lie in a field; the field's middle if none does."""
    found = [(x, y) for cx, cy in cells for y in np.flatnonzero(rows == cy) for x in np.flatnonzero(columns == cx)]
    return np.array(found or [(len(columns) // 2, len(rows) // 2)], np.int32)


def _centres(planes: Sequence[NDArray[Any]]) -> list[NDArray[np.int64]]:
    """Published cell centres of each plane as (x, y); where there are none, one at random in each square of 100 px."""
    from safetensors.numpy import load_file

    paths = sorted(PUBLISHED.glob("CHAMMI-75_train/*/*.png"))
    if len(paths) != len(planes):
        paths = [Path()] * len(planes)
    centres = []
    for number, (path, plane) in enumerate(zip(paths, planes, strict=True)):
        guidance = PUBLISHED / "CHAMMI-75_guidance" / path.parent.name / f"{path.stem}.safetensors"
        if guidance.is_file():
            centres.append(load_file(guidance)["data"].astype(np.int64))
            continue
        height, width = plane.shape
        corners = np.array([(x, y) for y in range(0, height, 100) for x in range(0, width, 100)])
        shifts = np.random.default_rng(number).integers(0, 100, corners.shape)
        centres.append(np.minimum(corners + shifts, (width - 1, height - 1)))
    return centres
