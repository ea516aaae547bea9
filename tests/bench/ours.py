"""Ourselves, with the interface of a peer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fields import Field, read_fields, save_fields
from peers.remote import Remote
from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "chammi75"
PACKAGES = ("chammi75",)
VARIANTS: dict[str, str] = {}
_SHARD_ROWS = 20


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """A store, one channel an image; the fields beside it."""
    from chammi75.files import create_file, join_url
    from chammi75.store import ShardWriter, new_store, shard_path

    save_fields(folder / "fields", fields)
    url = str(folder / "store")
    with new_store(url) as writer:
        for number, start in enumerate(range(0, len(fields), _SHARD_ROWS)):
            path = shard_path("train", number)
            with create_file(join_url(url, path)) as file:
                shard = ShardWriter(file)
                for field in fields[start : start + _SHARD_ROWS]:
                    shard.write(_encoded(field))
                written = shard.close()
            writer.add_shard(path, "train", written)
        writer.commit(codec="zstd", pixel_bytes=sum(field.pixels().nbytes for field in fields))


def batches(
    folder: Path,
    task: Task,
    *,
    turn: int,
    workers: int,
    remote: Remote | None = None,
    variant: str = "",
    shuffle: str = "global",
    samples: int | None = None,
) -> Iterator[torch.Tensor]:
    """One epoch: crops through ``read_crops``, tensors and whole planes through ``TrainingStream``."""
    if task.kind == "cut":
        yield from _cut(folder, task, turn)
        return
    from torch.utils.data import DataLoader

    from chammi75.loading import GuidedCrop, TrainingStream

    keeps = remote is not None and shuffle.startswith("window:")
    cache = tempfile.mkdtemp() if keeps else None
    try:
        stream = TrainingStream(
            remote.s3("store") if remote else str(folder / "store"),
            seed=turn,
            batch_size=task.batch_size,
            crop=GuidedCrop(task.crop) if task.kind == "tensor" else None,
            resize=task.size if task.kind == "tensor" else None,
            shuffle=shuffle,
            samples_per_epoch=samples,
            cache_dir=cache if keeps else False if remote else None,
            storage_options=remote.fsspec_options if remote else None,
        )
        for batch in DataLoader(stream, batch_size=None, num_workers=workers):
            yield batch["pixels"]
    finally:
        if cache:
            shutil.rmtree(cache, ignore_errors=True)


def _cut(folder: Path, task: Task, turn: int) -> Iterator[torch.Tensor]:
    """Windows of images that are made anew for each batch; where they are in the store is found out before."""
    import torch

    from chammi75 import load_dataset
    from chammi75.loading import MultiChannelImage, read_crops

    cells = {f"{field.index:05d}": field.cells for field in read_fields(folder / "fields")}
    stored = [dict(row["image"]) for row in load_dataset(str(folder / "store"), split="train", streaming=False)]
    order = np.random.default_rng(turn).permutation(len(stored))
    for start in range(0, len(order), task.batch_size):
        images = [MultiChannelImage(stored[k]) for k in order[start : start + task.batch_size]]
        names = [str(image.image_id) for image in images]
        windows = [
            task.window(cells[name], *image.shape[1:], int(name), turn)
            for name, image in zip(names, images, strict=True)
        ]
        yield torch.from_numpy(read_crops(images, np.array(windows)))


def bytes_per_sample(folder: Path, task: Task) -> float:
    """Of the head and of the tiles that a crop touches, or of the whole plane."""
    from chammi75.store import encode_plane, parse_head
    from chammi75.store.plane import tile_ranges

    read = []
    for field in read_fields(folder / "fields"):
        content = encode_plane(field.pixels())
        if task.kind == "plane":
            read.append(len(content))
            continue
        head = parse_head(content)
        window = task.window(field.cells, *field.pixels().shape, field.index, 0)
        read.append(min(head.offsets) + sum(count for _, count in tile_ranges(head, window)))
    return float(np.mean(read))


def _encoded(field: Field) -> Any:
    from chammi75.schemas.record import ImageRecord
    from chammi75.store import Cells, EncodedImage, content_digest, encode_plane

    plane = field.pixels()
    height, width = plane.shape
    name = f"{field.index:05d}"
    record = ImageRecord.model_validate(
        {
            "image_id": name,
            "experiment": {"study": "bench"},
            "imaging": {"channel": [1], "channel_type": ["nucleus"], "panel": ["DAPI"]},
            "geometry": {"width": width, "height": height, "channels": 1, "dtype": "uint8", "significant_bits": 8},
            "storage": {"filename": [f"{name}.png"], "path": [f"{name}.png"]},
            "provenance": {"checksum": [name]},
        }
    )
    cells = [Cells(field.cells.astype(np.float32), np.full(len(field.cells), 30, np.float32))]
    return EncodedImage(record, [encode_plane(plane)], cells, content_digest(record, [plane], cells))
