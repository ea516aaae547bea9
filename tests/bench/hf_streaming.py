"""``load_dataset(…, streaming=True)``: shuffled against in order, and against datasets' own stream of the same shards.

Streaming Arrow files with datasets became a thousand times slower when it was shuffled (huggingface/datasets issue
7102). Every figure is of a whole pass over a generated store in one process, the buffer's filling included.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from paired import Row, faster, main, slower, time_pairs

from chammi75 import load_dataset
from chammi75.files import create_file, join_url
from chammi75.schemas.record import ImageRecord
from chammi75.store import Cells, EncodedImage, ShardWriter, encode_plane, new_store, shard_path

_CHANNELS = ["nucleus", "er", "protein"]
_SHARD_IMAGES = 2000
_PLANE = 128
_BUFFERS = (100, 1000, 10_000)
_PIXEL_IMAGES = 2000


def write_store(url: str, images: int, seed: int = 0) -> None:
    """A store whose images have three channels and cells, of few different contents."""
    random = np.random.default_rng(seed)
    contents = []
    for _ in range(8):
        planes = [random.gamma(2, 20, (_PLANE, _PLANE)).clip(0, 255).astype(np.uint8) for _ in _CHANNELS]
        cells = [
            Cells(
                random.uniform(0, _PLANE, (count, 2)).astype(np.float32),
                random.uniform(3, 9, count).astype(np.float32),
            )
            for count in random.integers(0, 40, len(_CHANNELS))
        ]
        contents.append(([encode_plane(plane, "deflate") for plane in planes], cells))
    with new_store(url) as writer:
        for number, start in enumerate(range(0, images, _SHARD_IMAGES)):
            path = shard_path("train", number)
            with create_file(join_url(url, path)) as file:
                shard = ShardWriter(file)
                for image in range(start, min(start + _SHARD_IMAGES, images)):
                    planes, cells = contents[image % len(contents)]
                    shard.write(EncodedImage(_record(image), planes, cells, image.to_bytes(32, "big")))
                written = shard.close()
            writer.add_shard(path, "train", written)
        writer.commit(codec="deflate", pixel_bytes=images * len(_CHANNELS) * _PLANE**2)


def _record(image: int) -> ImageRecord:
    names = [f"plate{image // 384}/P{image:06d}-ch{channel}.tif" for channel in range(len(_CHANNELS))]
    groups: dict[str, Any] = {
        "image_id": f"plate{image // 384}/P{image:06d}",
        "experiment": {"study": "study", "plate": f"plate{image // 384}", "well": f"A{image % 384:03d}"},
        "biology": {"organism": "Homo sapiens", "cell_line": "U2OS"},
        "imaging": {"channel": [1, 2, 3], "channel_type": _CHANNELS, "panel": _CHANNELS},
        "microscopy": {"type": "fluorescence", "magnification": 20.0},
        "geometry": {"width": _PLANE, "height": _PLANE, "channels": 3, "dtype": "uint8", "significant_bits": 8},
        "storage": {"filename": names, "path": names},
        "provenance": {"license": "CC0-1.0", "platform": "idr"},
    }
    return ImageRecord.model_validate(groups)


def passing(samples: Callable[[], Iterable[Any]], images: int) -> Callable[[], None]:
    """A pass over all samples, which must be so many."""

    def work() -> None:
        found = sum(1 for _ in samples())
        assert found == images, f"{found} samples of {images}"

    return work


def run(arguments: argparse.Namespace) -> list[Row]:
    """Measure all cases."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        url, small = str(Path(scratch) / "store"), str(Path(scratch) / "small")
        write_store(url, arguments.images)
        write_store(small, _PIXEL_IMAGES)
        return _records(url, arguments) + _pixels(small, arguments) + _against_datasets(small, scratch, arguments)


def _records(url: str, arguments: argparse.Namespace) -> list[Row]:
    stream = load_dataset(url, streaming=True)
    rows = []
    for buffer in _BUFFERS:
        shuffled = stream.shuffle(seed=0, buffer_size=buffer)
        times = time_pairs(
            passing(lambda s=shuffled: s, arguments.images),
            passing(lambda: stream, arguments.images),
            arguments.repeats,
        )
        note = f"{arguments.images:,} images, no pixel touched"
        rows.append(slower(f"records, shuffle({buffer:,}) : in order", times, 1.25, note))
    return rows


def _pixels(url: str, arguments: argparse.Namespace) -> list[Row]:
    stream = load_dataset(url, streaming=True)
    rows = []
    for buffer in _BUFFERS[:2]:
        shuffled = stream.shuffle(seed=0, buffer_size=buffer)
        times = time_pairs(
            passing(lambda s=shuffled: map(_decoded, s), _PIXEL_IMAGES),
            passing(lambda: map(_decoded, stream), _PIXEL_IMAGES),
            arguments.repeats,
        )
        note = f"{_PIXEL_IMAGES:,} images of 3 x {_PLANE} x {_PLANE}, decoded"
        rows.append(slower(f"pixels, shuffle({buffer:,}) : in order", times, 1.25, note))
    return rows


def _against_datasets(url: str, scratch: str, arguments: argparse.Namespace) -> list[Row]:
    import datasets

    files = sorted(str(path) for path in (Path(url) / "shards").glob("*.arrow"))
    plain = datasets.load_dataset(
        "arrow", data_files=files, streaming=True, split="train", cache_dir=str(Path(scratch) / "cache")
    ).shuffle(seed=0, buffer_size=1000)
    ours = load_dataset(url, streaming=True).shuffle(seed=0, buffer_size=1000)
    note = f"{_PIXEL_IMAGES:,} images, shuffle(1000); theirs through Image()"
    whole = time_pairs(
        passing(lambda: map(_decoded, ours), _PIXEL_IMAGES),
        passing(lambda: map(_decoded_by_datasets, plain), _PIXEL_IMAGES),
        arguments.repeats,
    )
    undecoded = time_pairs(
        passing(lambda: ours, _PIXEL_IMAGES), passing(lambda: plain.decode(False), _PIXEL_IMAGES), arguments.repeats
    )
    return [
        faster("decoded planes : datasets' arrow stream", whole, 1.0, note),
        faster("samples, undecoded : datasets' arrow stream", undecoded, None, f"{note}, decode(False)"),
    ]


def _decoded(sample: dict[str, Any]) -> np.ndarray:
    return np.asarray(sample["image"])


def _decoded_by_datasets(sample: dict[str, Any]) -> np.ndarray:
    return np.stack([np.asarray(plane) for plane in sample["planes"]])


if __name__ == "__main__":
    main(__doc__ or "", run, {"--images": {"type": int, "default": 20_000, "help": "images of the generated store"}})
