"""The reference's way: PNG files in a zip archive; whole decode, cut, antialiased resize.

The published loader reads an entry with ``zipfile``, decodes it with ``torchvision.io.decode_image``, casts the whole
plane to float16, cuts around a cell and resizes with torchvision. Here the cast comes after the cut, which is kinder to
it; how it really is, is the variant ``documented``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fields import Field

from peers.task import Task

if TYPE_CHECKING:
    import torch

TITLE = "the reference's way (zip, PNG, torchvision)"
PACKAGES = ("torchvision",)
VARIANTS = {"documented": "as published: the whole plane cast to float16"}


def build(folder: Path, fields: Sequence[Field], variant: str = "") -> None:
    """An archive, stored without compressing the PNGs again, as the published one."""
    with zipfile.ZipFile(folder / "planes.zip", "w", zipfile.ZIP_STORED) as archive:
        for field in fields:
            archive.writestr(f"{field.index:05d}.png", field.png)
            content = BytesIO()
            np.save(content, field.cells)
            archive.writestr(f"{field.index:05d}.npy", content.getvalue())


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Any = None, variant: str = ""
) -> Iterator[torch.Tensor]:
    """One epoch through a DataLoader."""
    from torch.utils.data import DataLoader

    archive = _Archive(folder, task, turn, cast_first=variant == "documented")
    return iter(DataLoader(archive, task.batch_size, shuffle=True, num_workers=workers))


class _Archive:
    """A dataset over the archive; one file handle for each process."""

    def __init__(self, folder: Path, task: Task, turn: int, cast_first: bool = False) -> None:
        self.path, self.task, self.turn, self.cast_first = folder / "planes.zip", task, turn, cast_first
        self.archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(self.path) as archive:
            self.names = [name for name in archive.namelist() if name.endswith(".png")]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> torch.Tensor:
        import torch
        from torchvision.io import decode_image

        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        name = self.names[position]
        plane = decode_image(torch.frombuffer(bytearray(self.archive.read(name)), dtype=torch.uint8))
        if self.cast_first:
            plane = plane.to(torch.float16)
        cells = np.load(BytesIO(self.archive.read(f"{Path(name).stem}.npy")))
        return self.task.finish(plane, cells, int(Path(name).stem), self.turn)
