"""What is measured on: real files of ``shared/data`` beside the project where they are, else the simulator's."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PUBLISHED = SHARED / "published"
_TABLE = "CHAMMI-75_train_metadata.csv"
_FOLDERS_16_BIT = {  # folder -> most files of it
    "cdf_JUMP_BR00117006": 3,
    "cdf_NF1_cellpainting_Plate2": 9,
    "bia_BBBC007": 3,
    "cpex_ExampleUntangleWorms": 4,
    "faim_CV8000_minimal": 2,
    "stardist_data": 2,
}
Plane = NDArray[Any]


def published_pngs() -> list[bytes]:
    """The PNG files of the local copy of the published dataset; empty if there is none."""
    return [path.read_bytes() for path in sorted(PUBLISHED.glob("CHAMMI-75_train/*/*.png"))]


def planes_8_bit() -> tuple[list[Plane], str]:
    """8-bit planes, and where they come from."""
    import cv2

    planes = [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) for content in published_pngs()]
    if planes:
        return planes, f"{len(planes)} published planes"
    planes = _simulated("*.png", "uint8")
    return planes, f"{len(planes)} simulated planes"


def planes_16_bit() -> tuple[list[Plane], str]:
    """16-bit planes, and where they come from."""
    import tifffile

    planes = []
    for folder, most in _FOLDERS_16_BIT.items():
        found = 0
        for path in sorted((SHARED / "public" / folder).rglob("*.tif*")):
            page = tifffile.imread(path, key=0)
            if found < most and page.dtype == np.uint16 and page.ndim == 2:
                planes.append(page)
                found += 1
    if planes:
        return planes, f"{len(planes)} public planes"
    planes = _simulated("*.tif*", "uint16")
    return planes, f"{len(planes)} simulated planes"


def _simulated(pattern: str, dtype: str) -> list[Plane]:
    from chammi75.mini.simulate import write_sources
    from chammi75.readers.registry import open_image

    planes: list[Plane] = []
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), size=0.1)
        for path in sorted(Path(folder).rglob(pattern)):
            with open_image(str(path)) as reader:
                series = reader.file.series[0]
                channels = [reader.read_plane(c=c) for c in range(series.sizes["C"])]
            planes += [plane for plane in channels if plane.dtype == dtype]
    return planes


@contextmanager
def published_copies(times: int) -> Iterator[Path]:
    """A published layout with ``times`` as many images as the local copy: each study again, under other names.

    Without a local copy, the simulator's planes are written as 8-bit PNGs in that layout.
    """
    with tempfile.TemporaryDirectory() as scratch:
        origin = PUBLISHED if (PUBLISHED / _TABLE).is_file() else _simulated_layout(Path(scratch) / "origin")
        root = Path(scratch) / "published"
        with (origin / _TABLE).open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (origin / row["storage.path"]).is_file()]
        root.mkdir()
        with (root / _TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            for number in range(times):
                writer.writerows(_copied(row, number, origin, root) for row in rows)
        yield root


def _copied(row: dict[str, str], number: int, origin: Path, root: Path) -> dict[str, str]:
    """A row of the table for copy ``number``, whose files are copied."""
    study = row["experiment.study"]
    named = {key: value.replace(study, f"{study}c{number:02d}") for key, value in row.items()}
    pairs = [(row["storage.path"], named["storage.path"])]
    pairs.append(tuple(_guidance(path) for path in pairs[0]))  # type: ignore[arg-type]
    for old, new in pairs:
        if (origin / old).is_file():
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / old, root / new)
    return named


def _guidance(path: str) -> str:
    return path.replace("CHAMMI-75_train", "CHAMMI-75_guidance").replace(".png", ".safetensors")


def _simulated_layout(root: Path) -> Path:
    import cv2

    from chammi75.readers.published.csv_rows import PUBLISHED_COLUMNS

    folder = root / "CHAMMI-75_train" / "mini0001"
    folder.mkdir(parents=True)
    with (root / _TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, PUBLISHED_COLUMNS, restval="unknown")
        writer.writeheader()
        for number, plane in enumerate(_simulated("*.png", "uint8")):
            name = f"field{number:03d}-ch0.png"
            cv2.imwrite(os.fspath(folder / name), plane)
            writer.writerow(
                {
                    "experiment.study": "mini0001",
                    "imaging.multi_channel_id": f"{number:05d}-mini0001",
                    "imaging.channel": 1,
                    "imaging.channel_type": "bright-field",
                    "geometry.width": plane.shape[1],
                    "geometry.height": plane.shape[0],
                    "geometry.channels": 1,
                    "storage.filename": "mini0001.zip",
                    "storage.path": f"CHAMMI-75_train/mini0001/{name}",
                }
            )
    return root
