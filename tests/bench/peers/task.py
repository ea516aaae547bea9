"""What a sample is to become: the same for all, ourselves and peers."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Task:
    """What is made of a plane.

    Attributes
    ----------
    kind : {"cut", "tensor", "plane"}
        ``cut``: a guided crop, as it is (uint8). ``tensor``: a guided crop, resized with antialiasing (float32, 0 to
        255). ``plane``: the whole plane, as it is (uint8).
    crop, size : int
        Edge of the crop, and of what it is resized to, in pixels.
    batch_size : int
    """

    kind: Literal["cut", "tensor", "plane"]
    crop: int = 256
    size: int = 224
    batch_size: int = 32

    def window(self, cells: NDArray[np.int32], height: int, width: int, index: int, turn: int) -> Window:
        """The guided crop of a plane in a turn: y, x, height, width around one of its cells, inside the plane.

        It depends on nothing else, so all contestants cut the same windows in the same turn.
        """
        x, y = (int(value) for value in cells[Random(index * 1_000_003 + turn).randrange(len(cells))])
        y = min(max(y - self.crop // 2, 0), height - self.crop)
        x = min(max(x - self.crop // 2, 0), width - self.crop)
        return y, x, self.crop, self.crop

    def finish(self, pixels: Any, cells: NDArray[np.int32], index: int, turn: int) -> torch.Tensor:
        """The sample out of a decoded plane (an array, or a uint8 tensor): shape (1, height, width)."""
        import torch

        plane = pixels if isinstance(pixels, torch.Tensor) else torch.from_numpy(np.asarray(pixels))
        plane = plane.reshape(plane.shape[-2:])
        if self.kind == "plane":
            return plane[None]
        y, x, height, width = self.window(cells, *plane.shape, index, turn)
        cut = plane[None, y : y + height, x : x + width]
        return cut.contiguous() if self.kind == "cut" else self.resized(cut)

    def resized(self, cut: torch.Tensor) -> torch.Tensor:
        """A crop as float32, resized by torchvision with antialiasing."""
        from torchvision.transforms.v2.functional import resize

        resized: torch.Tensor = resize(cut.float(), [self.size, self.size], antialias=True)
        return resized
