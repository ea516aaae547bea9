"""Lance: a table with a column of encoded images.

The documented way for random access: ``SafeLanceDataset`` (map-style, one ``take`` a batch) with ``get_safe_loader``
and a shuffling sampler; images are decoded by the user, here by torchvision, the faster one. ``LanceDataset``, its
iterable, scans in stored order and cannot shuffle beyond its fragments.
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

TITLE = "Lance"
PACKAGES = ("pylance",)
VARIANTS: dict[str, str] = {}


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """One table."""
    import lance
    import pyarrow as pa

    columns = {
        "index": [field.index for field in fields],
        "cells": [field.cells.tobytes() for field in fields],
        "image": pa.array([field.png for field in fields], pa.large_binary()),
    }
    lance.write_dataset(pa.table(columns), str(folder / "planes.lance"))


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch through its DataLoader."""
    from functools import partial

    from lance.torch.data import SafeLanceDataset, get_safe_loader

    if remote:
        dataset = SafeLanceDataset(remote.s3("planes.lance"), dataset_options={"storage_options": remote.lance_options})
    else:
        dataset = SafeLanceDataset(str(folder / "planes.lance"))
    settings: dict[str, Any] = {"shuffle": True, "collate_fn": partial(_collate, task=task, turn=turn)}
    if not workers:  # its defaults are those of worker processes, which a DataLoader without any refuses
        settings |= {"persistent_workers": False, "multiprocessing_context": None}
    yield from get_safe_loader(dataset, batch_size=task.batch_size, num_workers=workers, **settings)


def _collate(rows: list[dict[str, Any]], *, task: Task, turn: int) -> torch.Tensor:
    import torch
    from torchvision.io import decode_image

    samples = []
    for row in rows:
        plane = decode_image(torch.frombuffer(bytearray(row["image"]), dtype=torch.uint8))
        cells = np.frombuffer(row["cells"], np.int32).reshape(-1, 2)
        samples.append(task.finish(plane, cells, row["index"], turn))
    return torch.stack(samples)
