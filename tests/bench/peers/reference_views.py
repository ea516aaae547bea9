"""The original recipe's loading: whole PNGs out of a zip archive, and ten views of each, one image at a time.

As published (CaicedoLab/CHAMMI-75@b84a4ec): the plane is decoded whole and cast to float16, cut around a cell;
saturated pixels become noise and the crop is normalised, cast to float16 again; then come random resized crops
(bicubic, antialiased) and flips by torchvision. All of this in the worker processes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from peers.reference import build as build  # the same archive
from peers.task import Task


class _Views:
    """The dataset: a list of views for each image."""

    def __init__(self, folder: Path, recipe: Any, seed: int) -> None:
        from torchvision.transforms import v2

        self.path, self.seed, self.views = folder / "planes.zip", seed, recipe.views
        self.task = Task("tensor", crop=recipe.data.crop)
        self.archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(self.path) as archive:
            self.names = [name for name in archive.namelist() if name.endswith(".png")]
        flips = [
            v2.RandomHorizontalFlip(recipe.views.horizontal_flip),
            v2.RandomVerticalFlip(recipe.views.vertical_flip),
        ]
        self.crops = [
            v2.Compose(
                [
                    v2.RandomResizedCrop(
                        crops.size,
                        scale=crops.scale,
                        ratio=crops.ratio,
                        interpolation=v2.InterpolationMode.BICUBIC,
                        antialias=True,
                    ),
                    *flips,
                ]
            )
            for crops in (recipe.views.global_views, recipe.views.local_views)
            for _ in range(crops.count)
        ]

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, position: int) -> list[Any]:
        import torch
        from torchvision.io import decode_image

        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        name = self.names[position % len(self.names)]
        plane = decode_image(torch.frombuffer(bytearray(self.archive.read(name)), dtype=torch.uint8))
        plane = plane.to(torch.float16)
        cells = np.load(BytesIO(self.archive.read(f"{Path(name).stem}.npy")))
        y, x, height, width = self.task.window(cells, *plane.shape[-2:], int(Path(name).stem), self.seed + position)
        crop = plane[:, y : y + height, x : x + width].float()
        crop = torch.where(crop == 255, torch.empty_like(crop).uniform_(200, 255), crop)
        crop = torch.nn.functional.instance_norm(crop[None], eps=1e-7)[0].to(torch.float16)
        return [view(crop) for view in self.crops]


def batches(folder: Path, recipe: Any, seed: int, device: str) -> Iterator[Any]:
    """Views of batches, without end, as our method takes them."""
    import torch
    from torch.utils.data import DataLoader

    from chammi75.training.views import Views

    dataset = _Views(folder, recipe, seed)
    loader = DataLoader(dataset, recipe.batch_size, shuffle=False, num_workers=2, pin_memory=device == "cuda")
    for number, views in enumerate(loader):
        count = len(views[0])
        yield Views(
            pixels=[view.to(device, non_blocking=True).float() for view in views],
            channel_ids=torch.zeros((count, 1), dtype=torch.int64, device=device),
            present=torch.ones((count, 1), dtype=torch.bool, device=device),
            positions=torch.arange(number * count, (number + 1) * count, device=device),
            epoch=0,
            constant=torch.zeros((), dtype=torch.int64, device=device),
        )
