"""Small stores, written with the store's own writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chammi75.schemas.record import ImageRecord
from chammi75.store import Cells, EncodedImage, ShardWriter, content_digest, encode_plane, new_store, shard_path


@dataclass(frozen=True)
class Image:
    """An image before it is encoded."""

    record: ImageRecord
    planes: list[np.ndarray]
    cells: list[Cells | None]

    def encoded(self, codec: Any = "zstd") -> EncodedImage:
        planes = [encode_plane(plane, codec) for plane in self.planes]
        return EncodedImage(self.record, planes, self.cells, content_digest(self.record, self.planes, self.cells))


def make_image(number: int, channels: int = 2, dtype: str = "uint16", height: int = 150, width: int = 140) -> Image:
    """An image of noise over a gradient; every third has no annotation, others lack the cells of one channel."""
    random = np.random.default_rng(number)
    planes = []
    for channel in range(channels):
        ramp = np.add.outer(np.arange(height), np.arange(width)) * (channel + 1) % 200
        planes.append((ramp + random.integers(0, 30, (height, width))).astype(dtype))
    cells: list[Cells | None] = []
    if number % 3:
        for channel in range(channels):
            count = 0 if channel == channels - 1 else 2 + number
            xy = random.uniform(0, width, (count, 2)).astype(np.float32)
            cells.append(Cells(xy, random.uniform(5, 50, count).astype(np.float32)))
        cells[number % channels] = None if channels > 1 and number % 3 == 2 else cells[number % channels]
    types = [["nucleus", "er", "golgi", None][channel % 4] for channel in range(channels)]
    record = ImageRecord.model_validate(
        {
            "image_id": f"plate1/A{number:02d}_*.tif",
            "experiment": {"study": "plate1", "well": f"A{number:02d}"},
            "biology": {"organism": "Homo sapiens" if number % 2 else "Mus musculus"},
            "imaging": {
                "channel": list(range(1, channels + 1)),
                "channel_type": types,
                "panel": ["DAPI", "ConA", "WGA", None][:channels],
            },
            "microscopy": {"magnification": 20.0},
            "geometry": {
                "width": width,
                "height": height,
                "channels": channels,
                "dtype": dtype,
                "significant_bits": None if dtype == "float32" else 8,
            },
            "storage": {
                "filename": [f"A{number:02d}_{channel}.tif" for channel in range(channels)],
                "path": [f"A{number:02d}_{channel}.tif" for channel in range(channels)],
            },
        }
    )
    return Image(record, planes, cells)


def write_store(
    url: str | Path, images: Sequence[Image], codec: Any = "zstd", per_shard: int = 3, batch_bytes: int = 32 * 10**6
) -> Path:
    """A store of images, in shards of ``per_shard``."""
    from chammi75.files import create_file, join_url

    with new_store(str(url)) as writer:
        for number, start in enumerate(range(0, len(images), per_shard)):
            path = shard_path("train", number)
            with create_file(join_url(writer.url, path)) as file:
                shard = ShardWriter(file, batch_bytes)
                for image in images[start : start + per_shard]:
                    shard.write(image.encoded(codec))
                written = shard.close()
            writer.add_shard(path, "train", written)
        writer.commit(codec=codec, pixel_bytes=sum(plane.nbytes for image in images for plane in image.planes))
    return Path(url)


@pytest.fixture(scope="session")
def image_maker() -> Callable[..., Image]:
    return make_image


@pytest.fixture(scope="session")
def store_writer() -> Callable[..., Path]:
    return write_store
