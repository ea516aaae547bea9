"""MosaicML Streaming: MDS shards.

The documented way: a column of the encoding ``png`` (decoded by Pillow), a subclass of ``StreamingDataset`` that
transforms in ``__getitem__``, ``shuffle=True`` with the default algorithm, and the ``batch_size`` told to both dataset
and loader. The encoding is one of our own that stores the given PNG bytes and decodes as ``png`` does: ``png`` itself
(variant ``documented``) compresses each plane again with Pillow, and those decode slower.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fields import Field

from peers.remote import Remote
from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "MosaicML Streaming (MDS)"
PACKAGES = ("mosaicml-streaming",)
VARIANTS = {
    "documented": 'its own encoding "png": compressed again by Pillow',
    "raw": "pixels stored uncompressed",
}
_SHARD_BYTES = 2**23


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """Shards of 8 MiB, so that shuffling and several workers have something to work with (the default is 64 MiB)."""
    from PIL import Image
    from streaming import MDSWriter

    _register()
    encoding = {"": "given_png", "documented": "png", "raw": "ndarray:uint8"}[variant]
    columns = {"index": "int", "cells": "ndarray:int32", "image": encoding}
    with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=_SHARD_BYTES) as writer:
        for field in fields:
            image = {"": field.png, "documented": Image.fromarray(field.pixels()), "raw": field.pixels()}[variant]
            writer.write({"index": field.index, "cells": field.cells, "image": image})


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch through a DataLoader. Over a network, shards go to an empty cache first, as they must."""
    from streaming import StreamingDataLoader, StreamingDataset

    _register()

    class Planes(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return task.finish(row["image"], row["cells"], row["index"], turn)

    settings: dict[str, Any] = {"shuffle": True, "shuffle_seed": turn, "batch_size": task.batch_size}
    cache = tempfile.mkdtemp() if remote else None
    try:
        where = {"remote": remote.s3("mds"), "local": cache} if remote else {"local": str(folder / "mds")}
        dataset = Planes(**where, **settings)
        yield from StreamingDataLoader(dataset, batch_size=task.batch_size, num_workers=workers)
        del dataset
    finally:
        if cache:
            shutil.rmtree(cache, ignore_errors=True)


def _register() -> None:
    from streaming.base.format.mds.encodings import PNG, _encodings

    class GivenPNG(PNG):  # type: ignore[misc]
        def encode(self, obj: bytes) -> bytes:
            return obj

    _encodings["given_png"] = GivenPNG
