"""LitData: optimized chunks.

``optimize`` with encoded images as bytes, in chunks of 64 MB; ``StreamingDataset(shuffle=True, transform=…)`` with a
``StreamingDataLoader``; decoded by torchvision in the transform. Local chunks are memory-mapped in place. The
documented type for images, ``Image(bytes=…)``, decodes gray planes to three channels (variant ``documented``); JPEG,
which is what it prefers, loses information.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fields import Field

from peers.remote import Remote
from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "LitData"
PACKAGES = ("litdata",)
VARIANTS = {
    "documented": "its own type Image: decoded to three channels",
    "raw": "pixels stored uncompressed",
}


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """Chunks of 64 MB, its default."""
    import litdata

    inputs = [(variant, field) for field in fields]
    litdata.optimize(
        fn=_row,
        inputs=inputs,
        output_dir=str(folder / "chunks"),
        chunk_bytes="64MB",
        num_workers=1,
        keep_data_ordered=True,
        verbose=False,
    )


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch through its DataLoader."""
    import litdata

    settings: dict[str, Any] = {"shuffle": True, "seed": turn, "transform": partial(_finish, task=task, turn=turn)}
    cache = tempfile.mkdtemp() if remote else None
    try:
        if remote:
            from litdata.streaming import downloader

            downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # a server on loopback has no https
            settings |= {"cache_dir": cache, "storage_options": remote.boto_options}
        dataset = litdata.StreamingDataset(remote.s3("chunks") if remote else str(folder / "chunks"), **settings)
        yield from litdata.StreamingDataLoader(dataset, batch_size=task.batch_size, num_workers=workers)
    finally:
        if cache:
            shutil.rmtree(cache, ignore_errors=True)


def _row(entry: tuple[str, Field]) -> dict[str, Any]:
    import litdata

    variant, field = entry
    image: Any = field.png
    if variant:
        image = litdata.Image(bytes=field.png) if variant == "documented" else field.pixels()
    return {"index": field.index, "cells": field.cells, "image": image}


def _finish(row: dict[str, Any], *, task: Task, turn: int) -> torch.Tensor:
    import torch
    from torchvision.io import decode_image

    image = row["image"]
    if isinstance(image, bytes | memoryview):
        image = decode_image(torch.frombuffer(image, dtype=torch.uint8))
    return task.finish(image[:1] if image.ndim == 3 else image, row["cells"], row["index"], turn)
