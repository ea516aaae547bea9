"""Hugging Face datasets with an Image feature.

Local: a map-style ``Dataset`` (memory-mapped Arrow), decoded and transformed on the fly by ``with_transform``, shuffled
by the DataLoader's sampler: what "Use with PyTorch" and "Process image data" advise for random access. Remote: Parquet
with ``streaming=True``, ``shuffle(buffer_size=…)``, as "Stream" and "Differences between Dataset and IterableDataset"
advise, with row groups of 100 rows, as for images on the Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fields import Field

from peers.remote import Remote
from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "datasets (Image)"
PACKAGES = ("datasets",)
VARIANTS = {"parquet": "Parquet, streamed"}
_ROWS_PER_FILE = 20


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """An Arrow dataset on disk; as variant ``parquet``, files of 20 rows for reading over a network."""
    from datasets import Dataset, Features, Image, List, Value

    features = Features({"index": Value("int64"), "cells": List(List(Value("int32"))), "image": Image()})
    columns = {
        "index": [field.index for field in fields],
        "cells": [field.cells.tolist() for field in fields],
        "image": [{"bytes": field.png, "path": None} for field in fields],
    }
    dataset = Dataset.from_dict(columns, features=features)
    if variant != "parquet":
        dataset.save_to_disk(folder)
        return
    for number, start in enumerate(range(0, len(fields), _ROWS_PER_FILE)):
        part = dataset.select(range(start, min(start + _ROWS_PER_FILE, len(fields))))
        part.to_parquet(folder / f"train-{number:05d}.parquet", batch_size=100)


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch through a DataLoader."""
    from datasets import load_dataset, load_from_disk
    from torch.utils.data import DataLoader

    def transform(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        entries = zip(rows["image"], rows["cells"], rows["index"], strict=True)
        return {"pixels": [task.finish(image, np.array(cells), index, turn) for image, cells, index in entries]}

    if remote is None:
        dataset = load_from_disk(str(folder)).with_transform(transform)
        loader = DataLoader(dataset, task.batch_size, shuffle=True, num_workers=workers)
    else:
        urls = [remote.s3(path.name) for path in sorted(folder.glob("*.parquet"))]
        options = remote.fsspec_options
        stream = load_dataset("parquet", data_files=urls, split="train", streaming=True, storage_options=options)
        stream = stream.shuffle(seed=turn, buffer_size=100).map(
            transform, batched=True, batch_size=task.batch_size, remove_columns=stream.column_names
        )
        loader = DataLoader(stream, task.batch_size, num_workers=workers)
    for batch in loader:
        yield batch["pixels"]
