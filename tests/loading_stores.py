"""Small datasets for the tests of loading: a store, and a copy of the published layout, whose pixels are known."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chammi75.files import create_file, join_url
from chammi75.schemas.record import ImageRecord
from chammi75.store import Cells, EncodedImage, ShardWriter, content_digest, encode_plane, new_store, shard_path

STUDIES: list[dict[str, Any]] = [
    {
        "study": "plate1",
        "organism": "Homo sapiens",
        "cell_line": "U2OS",
        "type": "fluorescence",
        "magnification": 20.0,
        "license": "CC-BY-4.0",
        "platform": "idr",
        "channels": ["nucleus", "er", "protein", "protein"],
        "dtype": "uint16",
    },
    {
        "study": "plate2",
        "organism": "Mus musculus",
        "cell_line": "3T3",
        "type": "fluorescence",
        "magnification": 63.0,
        "license": "CC0-1.0",
        "platform": "bbbc",
        "channels": ["nucleus", "er"],
        "dtype": "uint8",
    },
    {
        "study": "plate3",
        "organism": None,
        "cell_line": None,
        "type": "bright-field",
        "magnification": None,
        "license": "CC-BY-4.0",
        "platform": "idr",
        "channels": ["bright-field"],
        "dtype": "float32",
    },
]


@dataclass(frozen=True)
class Known:
    """A dataset, and what must come out of it."""

    url: str
    pixels: dict[str, np.ndarray]
    cells: dict[str, list[Cells | None] | None]

    @property
    def ids(self) -> list[str]:
        return list(self.pixels)


def write_store(url: str | Path, images: int = 30, codec: Any = "zstd", storage_options: Any = None) -> Known:
    """A store of images of three studies, in shards of seven."""
    encoded, pixels, cells = [], {}, {}
    for number in range(images):
        image, planes = _image(number, codec)
        encoded.append(image)
        pixels[image.record.image_id] = np.stack(planes)
        cells[image.record.image_id] = list(image.cells) or None
    with new_store(str(url), storage_options) as writer:
        for number, start in enumerate(range(0, images, 7)):
            path = shard_path("train", number)
            with create_file(join_url(str(url), path), storage_options) as file:
                shard = ShardWriter(file)
                for image in encoded[start : start + 7]:
                    shard.write(image)
                written = shard.close()
            writer.add_shard(path, "train", written)
        writer.commit(codec=codec, pixel_bytes=sum(array.nbytes for array in pixels.values()))
    return Known(str(url), pixels, cells)


def _image(number: int, codec: Any) -> tuple[EncodedImage, list[np.ndarray]]:
    random = np.random.default_rng(number)
    study = STUDIES[number * 3 // 30 % 3]
    height, width = (300, 280) if number == 0 else (40 + number % 3, 48)
    count = len(study["channels"])
    planes = [random.integers(0, 250, (height, width)).astype(study["dtype"]) for _ in range(count)]
    cells: list[Cells | None] = []
    if number % 4:  # every fourth has no annotation; of the others, the last channel has none in every second
        cells = [
            Cells(random.uniform(0, 40, (n, 2)).astype(np.float32), random.uniform(3, 9, n).astype(np.float32))
            for n in random.integers(0, 5, count)
        ]
        if number % 2 and count > 1:
            cells[-1] = None
    names = [f"P{number:02d}_{channel}.tif" for channel in range(count)]
    record = ImageRecord.model_validate(
        {
            "image_id": f"{study['study']}/P{number:02d}_*.tif",
            "experiment": {"study": study["study"], "plate": f"plate '{number % 2}'", "well": f"A{number:02d}"},
            "biology": {"organism": study["organism"], "cell_line": study["cell_line"]},
            "imaging": {
                "channel": list(range(1, count + 1)),
                "channel_type": study["channels"],
                "panel": [f"<{name}> & dye" for name in study["channels"]],
            },
            "microscopy": {"type": study["type"], "magnification": study["magnification"]},
            "geometry": {
                "width": width,
                "height": height,
                "channels": count,
                "dtype": study["dtype"],
                "pixel_size_um": 0.5 if number % 2 else None,
                "significant_bits": None if study["dtype"] == "float32" else 8,
            },
            "storage": {"filename": names, "path": names},
            "provenance": {"license": study["license"], "platform": study["platform"], "checksum": names},
            "quality": {"focus": number / 10, "per_channel": {"focus": [float(k) for k in range(count)]}},
        }
    )
    content = content_digest(record, planes, cells)
    return EncodedImage(record, [encode_plane(plane, codec) for plane in planes], cells, content), planes


def write_published(folder: Path, images: int = 12) -> Known:
    """A copy of the published layout: a metadata table, PNG planes, guidance files."""
    from PIL import Image
    from safetensors.numpy import save_file

    pixels, cells, rows = {}, {}, []
    for number in range(images):
        random = np.random.default_rng(100 + number)
        types = ["nucleus", "protein", "protein"] if number % 2 else ["nucleus"]
        study = f"study{number % 3:04d}"
        name = f"img{number:03d}"
        planes, known = [], []
        for channel, channel_type in enumerate(types):
            plane = random.integers(0, 255, (32, 36 + number)).astype(np.uint8)
            path = f"CHAMMI-75_train/{study}/{name}-ch{channel}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane).save(folder / path)
            planes.append(plane)
            cell = None
            if number % 4 and channel == 0:
                xy = random.integers(0, 30, (number, 2)).astype(np.int64)
                sizes = random.integers(5, 50, number).astype(np.int64)
                guidance = folder / "CHAMMI-75_guidance" / study / f"{name}-ch{channel}.safetensors"
                guidance.parent.mkdir(parents=True, exist_ok=True)
                save_file({"data": xy, "sizes": sizes}, guidance)
                cell = Cells(xy.astype(np.float32), sizes.astype(np.float32))
            known.append(cell)
            rows.append(
                {
                    "experiment.study": study,
                    "experiment.plate": "01",
                    "experiment.well": f"B{number:02d}",
                    "experiment.reagent": "unknown",
                    "experiment.control": "no",
                    "biology.organism": "Homo sapiens" if number % 2 else "Mus musculus",
                    "biology.cell_line": "unknown",
                    "biology.cell_type": "unknown",
                    "imaging.multi_channel_id": f"{study}/{name}",
                    "imaging.panel": "GFP",
                    "imaging.channel": channel + 1,
                    "imaging.channel_type": channel_type,
                    "microscopy.type": "fluorescence",
                    "microscopy.magnification": "20",
                    "microscopy.fov": "unknown",
                    "geometry.width": plane.shape[1],
                    "geometry.height": plane.shape[0],
                    "geometry.depth": "unknown",
                    "geometry.channels": len(types),
                    "geometry.z_slice": "unknown",
                    "geometry.timepoint": "unknown",
                    "storage.filename": f"{name}-ch{channel}.png",
                    "storage.path": path,
                }
            )
        image_id = f"{study}/{name}-ch*.png"
        pixels[image_id] = np.stack(planes)
        cells[image_id] = known if any(cell is not None for cell in known) else None
    with open(folder / "CHAMMI-75_small_metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return Known(str(folder), pixels, cells)
