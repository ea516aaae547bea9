"""What the simulator knows of every image: where the cells are, what was done to them, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from chammi75.errors import ReadError
from chammi75.files import write_atomically

TRUTH_FILE = "truth.json"
"""Name of the file in a study's folder."""


@dataclass(frozen=True)
class CellTruth:
    """One cell whose nucleus lies in the picture.

    ``x`` and ``y`` are the centre of its chromatin in pixels, ``area_px`` the pixels that the cell covers in the
    picture. In anaphase and telophase each daughter has an entry. ``track`` stays the same through a movie, ``parent``
    is the track that divided into this one; both are None where cells are not followed.
    """

    x: float
    y: float
    area_px: int
    phase: str
    track: int | None = None
    parent: int | None = None


@dataclass(frozen=True)
class ImageTruth:
    """One image: all channels at one z and one t.

    ``path`` is relative to the study's folder; ``z_slice`` and ``timepoint`` count from 0 and are None in files of one
    plane per channel. ``duplicate_of`` is the path of the image that this one repeats: with the same pixels if
    ``duplicate`` is ``"exact"``, the same cells with another noise and a shift of some pixels if ``"near"``.
    ``defects`` are words such as ``"blurred"``, ``"saturated"``, ``"empty"``.
    """

    path: str
    width: int
    height: int
    phenotype: str
    cells: tuple[CellTruth, ...]
    z_slice: int | None = None
    timepoint: int | None = None
    duplicate: Literal["exact", "near"] | None = None
    duplicate_of: str | None = None
    defects: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyTruth:
    """One study: its name, the seed and size that it was made with, and its images in the order of their making."""

    study: str
    seed: int
    size: float
    images: tuple[ImageTruth, ...]

    def at(self, path: str, *, z_slice: int | None = None, timepoint: int | None = None) -> ImageTruth:
        """The image of that path, z-slice and timepoint.

        Raises
        ------
        KeyError
            If there is none.
        """
        for image in self.images:
            if (image.path, image.z_slice, image.timepoint) == (path, z_slice, timepoint):
                return image
        raise KeyError(f"{self.study} has no image {path} with z={z_slice}, t={timepoint}")


_CELL_FIELDS = tuple(field.name for field in fields(CellTruth))


def write_truth(folder: Path, truth: StudyTruth) -> Path:
    """Write ``truth`` to ``folder/truth.json``; cells become rows below one header, since a movie has thousands."""
    images = []
    for image in truth.images:
        entry = {key: value for key, value in asdict(image).items() if key != "cells"}
        entry["cells"] = [[getattr(cell, name) for name in _CELL_FIELDS] for cell in image.cells]
        images.append(entry)
    head = {"study": truth.study, "seed": truth.seed, "size": truth.size, "cell_columns": list(_CELL_FIELDS)}
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in images)
    text = json.dumps(head)[:-1] + ', "images": [\n' + lines + "\n]}\n"
    path = folder / TRUTH_FILE
    write_atomically(path, text.encode())
    return path


def read_truth(folder: Path) -> StudyTruth:
    """What is true of the study in ``folder``, as `chammi75.mini.simulate.write_sources` wrote it.

    Parameters
    ----------
    folder : pathlib.Path
        A study's folder, such as ``sources/mini0001``.

    Raises
    ------
    ReadError
        If there is no truth.json, or it is not one of ours.
    """
    path = Path(folder) / TRUTH_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReadError(
            str(path), "there is no such file; give the folder of one simulated study (…/mini0001)"
        ) from error
    except ValueError as error:
        raise ReadError(str(path), f"not JSON: {error}") from error
    try:
        columns = content["cell_columns"]
        images = tuple(_image(entry, columns) for entry in content["images"])
        return StudyTruth(study=content["study"], seed=content["seed"], size=content["size"], images=images)
    except (KeyError, TypeError, ValueError) as error:
        raise ReadError(
            str(path), f"not the truth of a simulated study ({error!r}); simulate the sources anew"
        ) from error


def _image(entry: dict[str, Any], columns: Sequence[str]) -> ImageTruth:
    cells = tuple(CellTruth(**dict(zip(columns, row, strict=True))) for row in entry["cells"])
    return ImageTruth(**{**entry, "cells": cells, "defects": tuple(entry["defects"])})
