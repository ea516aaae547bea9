"""WebDataset: tar shards, sequential reading, shuffled shards and a shuffle buffer ahead of the decoder.

Gray planes are decoded as ``l8`` (Pillow to an uint8 array, one channel): ``pil`` and ``rgb`` would make three of one.
Shuffling before decoding, a ``shardshuffle`` and batches made in the pipeline are what its documentation advises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fields import Field

from peers.remote import Remote
from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "WebDataset"
PACKAGES = ("webdataset",)
VARIANTS: dict[str, str] = {}
_SHARD_ROWS = 20


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """Tar files of 20 samples, so that several workers and shard shuffling have something to work with."""
    from webdataset import ShardWriter

    with ShardWriter(str(folder / "train-%05d.tar"), maxcount=_SHARD_ROWS, verbose=0) as writer:
        for field in fields:
            content = BytesIO()
            np.save(content, field.cells)
            writer.write({"__key__": f"{field.index:05d}", "png": field.png, "cells.npy": content.getvalue()})


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch."""
    import torch
    import webdataset as wds

    names = sorted(path.name for path in folder.glob("train-*.tar"))
    urls = [remote.http(name) for name in names] if remote else [str(folder / name) for name in names]

    def finish(sample: dict[str, Any]) -> torch.Tensor:
        return task.finish(sample["png"], sample["cells.npy"], int(sample["__key__"]), turn)

    dataset = (
        wds.WebDataset(urls, shardshuffle=100, seed=turn, empty_check=False)
        .shuffle(100, initial=50)
        .decode("l8")
        .map(finish)
        .batched(task.batch_size, collation_fn=torch.stack)
    )
    yield from wds.WebLoader(dataset, batch_size=None, num_workers=workers)
