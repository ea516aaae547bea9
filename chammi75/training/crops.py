"""Crops: what the loader hands to training, as tensors on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from torch import Tensor

_KEPT = (torch.uint8, torch.uint16, torch.float32)
_NEEDED = ("pixels", "size", "saturation", "channel_id", "position", "epoch")


@dataclass(frozen=True)
class Crops:
    """A batch of crops of mixed size: each in the upper left corner of its planes, and zeros beside it.

    Attributes
    ----------
    pixels : Tensor of uint8, uint16 or float32, shape (N, C, H, W)
    sizes : Tensor of int64, shape (N, 2)
        Height and width of each.
    saturations : Tensor of float32, shape (N,)
        The greatest value that the camera could give; NaN where unknown.
    channel_ids : Tensor of int64, shape (N, C)
        Numbers of the channel types in the vocabulary; -1 where there is none.
    present : Tensor of bool, shape (N, C)
        Which channels there are.
    positions : Tensor of int64, shape (N,)
        Of the samples in their epoch: with the epoch and a seed, what random numbers depend on.
    epoch : int
    """

    pixels: Tensor
    sizes: Tensor
    saturations: Tensor
    channel_ids: Tensor
    present: Tensor
    positions: Tensor
    epoch: int

    @classmethod
    def from_batch(cls, batch: Mapping[str, Any]) -> Crops:
        """The crops of a batch of ``TrainingStream``, in mode ``boc`` or ``mca``, with or without ``resize``.

        Raises
        ------
        ChammiError
            If it is not such a batch.

        Examples
        --------
        >>> import torch
        >>> batch = {"pixels": torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "size": torch.full((2, 2), 8), "epoch": 0}
        >>> numbers = {"saturation": torch.full((2,), 255.0), "channel_id": torch.zeros(2, dtype=torch.int64)}
        >>> Crops.from_batch({**batch, **numbers, "position": torch.arange(2)}).channel_ids.shape
        torch.Size([2, 1])
        """
        missing = [name for name in _NEEDED if name not in batch]
        if missing:
            raise ChammiError(
                f"this batch has no {', '.join(missing)}: crops are made of batches as TrainingStream yields them"
            )
        pixels = batch["pixels"]
        if not isinstance(pixels, torch.Tensor) or pixels.ndim != 4:
            shape = tuple(getattr(pixels, "shape", ()))
            raise ChammiError(
                f"the pixels of a batch have the shape (N, C, H, W), not {shape}: give batch_size to TrainingStream,"
                " and batch_size=None to the DataLoader"
            )
        if pixels.dtype not in _KEPT:
            pixels = pixels.to(torch.float32)
        count, channels = pixels.shape[:2]
        places = torch.arange(channels, device=pixels.device)
        numbers = batch.get("num_channels")
        present = (
            torch.ones(count, channels, dtype=torch.bool, device=pixels.device)
            if numbers is None
            else places < numbers[:, None]
        )
        return cls(
            pixels=pixels,
            sizes=batch["size"],
            saturations=batch["saturation"].to(torch.float32),
            channel_ids=batch["channel_id"].reshape(count, channels),
            present=present,
            positions=batch["position"],
            epoch=int(batch["epoch"]),
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, samples: slice) -> Crops:
        """Some of the crops, as views of the same memory."""
        return Crops(**{name: value[samples] for name, value in self._tensors().items()}, epoch=self.epoch)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Crops:
        """The same crops on another device; pixels travel in the type that they have."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self._tensors().items()}
        return Crops(**moved, epoch=self.epoch)

    def inside(self) -> Tensor:
        """Which pixels are the crops' own, and not padding: bool, shape (N, 1, H, W).

        Examples
        --------
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> sizes = torch.tensor([[1, 2]])
        >>> crops = Crops(torch.ones(1, 1, 2, 3), sizes, one[0], one.long(), one.bool(), one[0].long(), 0)
        >>> crops.inside().int().tolist()
        [[[[1, 1, 0], [0, 0, 0]]]]
        """
        height, width = self.pixels.shape[-2:]
        rows = torch.arange(height, device=self.sizes.device) < self.sizes[:, :1]
        columns = torch.arange(width, device=self.sizes.device) < self.sizes[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "pixels": self.pixels,
            "sizes": self.sizes,
            "saturations": self.saturations,
            "channel_ids": self.channel_ids,
            "present": self.present,
            "positions": self.positions,
        }
