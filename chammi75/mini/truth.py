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

    Parameters
    ----------
    path : str
        Its file, relative to the study's folder; that of its first channel where each has a file of its own.
    width, height : int
        In pixels.
    phenotype : str
        What was done to its cells shows as this.
    cells : tuple of CellTruth
        The cells that it shows.
    z_slice, timepoint : int, optional
        They count from 0, and are None in files of one plane per channel.
    duplicate : {"exact", "near"}, optional
        Whether it repeats another image: with the same pixels, or the same cells with another noise and another
        position or brightness.
    duplicate_of : str, optional
        Path of the image that it repeats, at the same z and t.
    defects : tuple of str
        Words such as ``"blurred"``, ``"saturated"``, ``"empty"``, ``"debris"``, ``"swapped channels"``.
    group : str
        Images of one group show the same piece of sample: slices, frames, overlapping tiles and duplicates. Whoever
        splits a dataset keeps groups together.
    channel_paths : tuple of str
        The file of each channel, in stored order, where each has its own.
    swapped : tuple of int, optional
        Positions of two channels, from 0, of which each shows what the other should.
    reagent : str, optional
        What the cells were treated with.
    dose_um : float, optional
        Its concentration in µM.
    effect : float, optional
        Share of the phenotype's full effect that this dose has, 0 to 1.
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
    group: str = ""
    channel_paths: tuple[str, ...] = ()
    swapped: tuple[int, int] | None = None
    reagent: str | None = None
    dose_um: float | None = None
    effect: float | None = None


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


def place_in_picture(y: float, x: float, shape: tuple[int, int]) -> tuple[float, float] | None:
    """A place to a hundredth of a pixel, or None where the nearest pixel is not in a picture of ``shape``.

    Examples
    --------
    >>> place_in_picture(3.14159, 9.4, (10, 10)), place_in_picture(3.0, 9.497, (10, 10))
    ((3.14, 9.4), None)
    """
    y, x = round(y, 2), round(x, 2)
    return (y, x) if 0 <= round(y) < shape[0] and 0 <= round(x) < shape[1] else None


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
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return ImageTruth(**{**entry, **lists, "cells": cells})
