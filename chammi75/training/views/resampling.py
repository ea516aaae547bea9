"""Resampling: windows of crops, antialiased, at the size of a view."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from chammi75.training.views.bands import Bands, along_both

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.training.views.orientation import Orientations
    from chammi75.training.views.windows import Windows

Interpolation = Literal["bicubic", "bilinear"]


class Resampling(NamedTuple):
    """How a view of each sample is cut out, resized, flipped and turned, all at once.

    Attributes
    ----------
    vertical, horizontal : Bands
        Matrices (S, H) and (S, W).
    transposed : Tensor of bool, shape (N,), or None
    """

    vertical: Bands
    horizontal: Bands
    transposed: Tensor | None

    def of(self, samples: slice) -> Resampling:
        """The same for some of the samples."""
        transposed = None if self.transposed is None else self.transposed[samples]
        return Resampling(self.vertical.of(samples), self.horizontal.of(samples), transposed)


def plan_resampling(
    windows: Windows, orientations: Orientations, size: int, interpolation: Interpolation, shape: tuple[int, int]
) -> Resampling:
    """The matrices that cut windows out, resize them with antialiasing, and flip them.

    Parameters
    ----------
    windows : Windows
    orientations : Orientations
    size : int
        Edge S of the views.
    interpolation : {"bicubic", "bilinear"}
    shape : (int, int)
        Height and width of the padded crops.
    """
    height, width = shape
    return Resampling(
        _resizing(windows.top, windows.height, orientations.upside_down, size, interpolation, height),
        _resizing(windows.left, windows.width, orientations.left_right, size, interpolation, width),
        orientations.transposed,
    )


def resample(pixels: Tensor, plan: Resampling) -> Tensor:
    """The views, float32, shape (N, C, S, S), of planes of shape (N, C, H, W)."""
    views = along_both(pixels, plan.vertical, plan.horizontal)
    return views if plan.transposed is None else torch.where(plan.transposed[:, None, None, None], views.mT, views)


def _resizing(
    starts: Tensor, lengths: Tensor, flipped: Tensor, size: int, interpolation: Interpolation, edge: int
) -> Bands:
    """The matrices (S, edge) that resize stretches of an axis to S pixels.

    The weights are those of PyTorch's ``interpolate(antialias=True)``, and of Pillow: the kernel, made wider by the
    factor that a stretch is made shorter by, around each new pixel's centre, without what lies outside of the stretch;
    they add up to 1.
    """
    reach, kernel = _KERNELS[interpolation]
    steps = (lengths / size)[:, None]
    widening = steps.clamp(min=1)
    places = torch.arange(size, device=starts.device)
    places = torch.where(flipped[:, None], size - 1 - places, places)
    centres = steps * (places + 0.5)
    support = reach * widening
    first = (centres - support + 0.5).clamp(min=0).to(torch.int64)
    # to ask a GPU how long the longest is would mean to wait for it
    longest = int(lengths.max()) if lengths.device.type == "cpu" and not torch.compiler.is_compiling() else edge
    entries = torch.arange(math.ceil(2 * reach * max(1.0, longest / size)) + 1, device=starts.device)
    columns = first[..., None] + entries
    weights = kernel((columns - centres[..., None] + 0.5) / widening[..., None])
    weights = torch.where(columns < lengths[:, None, None], weights, 0.0)
    return Bands(first + starts[:, None], weights / weights.sum(-1, keepdim=True))


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -1/2 (R. Keys 1981)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_KERNELS: dict[Interpolation, tuple[int, Callable[[Tensor], Tensor]]] = {
    "bicubic": (2, _cubic),
    "bilinear": (1, _triangle),
}
"""Name -> how far a kernel reaches to each side, and the kernel."""
