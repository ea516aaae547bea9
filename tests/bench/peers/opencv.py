"""OpenCV: a PNG file in memory, decoded whole on one thread, and cut. No loader around it, no tensor made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fields import Field, read_fields, save_fields

from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "OpenCV (PNG)"
PACKAGES = ("opencv-python-headless",)
VARIANTS: dict[str, str] = {}


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """The PNG files as they are."""
    save_fields(folder / "fields", fields)


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Any = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch; the files are read before it begins."""
    import torch

    fields = read_fields(folder / "fields")
    order = np.random.default_rng(turn).permutation(len(fields))
    for start in range(0, len(order), task.batch_size):
        chosen = [fields[k] for k in order[start : start + task.batch_size]]
        yield torch.stack([task.finish(field.pixels(), field.cells, field.index, turn) for field in chosen])
