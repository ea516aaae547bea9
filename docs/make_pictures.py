"""Draws the pictures of the README and the documentation from the embedded dataset, with the library's own code.

Run ``python docs/make_pictures.py``; it takes as long as ``mini`` takes to build.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75 import MultiChannelImage, load_dataset
from chammi75.files import write_atomically
from chammi75.pictures import channel_strip

Picture = NDArray[np.uint8]

FOLDER = Path(__file__).resolve().parent / "images"
TILE = 150
SHOWN = {
    "mini0001": ("experiment.reagent = 'DMSO'", "experiment.reagent = 'brefeldin A'"),
    "mini0002": ("geometry.timepoint = 1 AND geometry.z_slice = 1",),
    "mini0003": ("experiment.well = 'A1'", "experiment.well = 'B2'"),
    "mini0004": tuple(f"experiment.well = '{well}'" for well in ("B02", "C05", "D05", "E05", "F05", "G05")),
    "mini0005": ("geometry.z_slice = 0", "geometry.z_slice = 2"),
    "mini0006": tuple(f"geometry.timepoint = {frame}" for frame in (0, 1, 2, 3)),
    "mini0007": ("experiment.plate = 'HE-7501'", "experiment.plate = 'HE-7502'"),
    "mini0008": tuple(f"experiment.well = '{row}01'" for row in "ABCDEF"),
}
"""Of each study, the conditions whose first image is shown."""

COLUMNS = {"mini0001": 1, "mini0004": 2, "mini0005": 1, "mini0008": 2}
"""How many images lie side by side, where not all do."""


def first_image(study: str, where: str) -> MultiChannelImage:
    """The first image of a study that meets a condition."""
    sample: dict[str, Any] = next(iter(load_dataset("mini", streaming=True, study=study, where=where)))
    image: MultiChannelImage = sample["image"]
    return image


def strip(image: MultiChannelImage) -> Picture:
    """All channels of an image together, and each alone; the middle square where it is not square."""
    _, height, width = image.shape
    side = min(height, width)
    planes = image.crop((height - side) // 2, (width - side) // 2, side, side)
    return channel_strip(
        planes,
        image.channels,
        captions=image.panels,
        thumb=TILE,
        pixel_size_um=image.pixel_size_um,
        significant_bits=image.significant_bits,
    )


def beside(pictures: Iterable[Picture]) -> Picture:
    """Pictures from left to right, the lower ones filled up with their own background."""
    listed = list(pictures)
    height = max(len(picture) for picture in listed)
    return np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), "edge") for p in listed], axis=1)


def below(pictures: Iterable[Picture]) -> Picture:
    """Pictures from top to bottom, the narrower ones filled up with their own background."""
    listed = list(pictures)
    width = max(picture.shape[1] for picture in listed)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), "edge") for p in listed])


def small_png(picture: Picture) -> bytes:
    """A PNG of 256 colours: noise does not compress, and a repository keeps every version of its pictures."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.FLOYDSTEINBERG).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def main() -> None:
    """Write ``docs/images/*.png``."""
    strips = {study: [strip(first_image(study, where)) for where in found] for study, found in SHOWN.items()}
    pictures = {}
    for study, drawn in strips.items():
        columns = COLUMNS.get(study, len(drawn))
        pictures[study] = below(beside(drawn[start : start + columns]) for start in range(0, len(drawn), columns))
    pictures["mini"] = below([strips["mini0001"][0], beside([*strips["mini0002"], *strips["mini0003"]])])
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        write_atomically(FOLDER / f"{name}.png", small_png(picture))


if __name__ == "__main__":
    main()
