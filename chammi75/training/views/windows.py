"""Windows: which part of each crop a view shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.schemas.training import CropViews
    from chammi75.training.randomness import Draws

_TRIES = 10


class Windows(NamedTuple):
    """Rectangles in the crops, in pixels: four tensors of int64, shape (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_windows(sizes: Tensor, settings: CropViews, draws: Draws) -> Windows:
    """Windows of random area, proportions and place, distributed as those of torchvision's ``RandomResizedCrop``.

    Area is uniform in ``scale`` (of the crop's), the logarithm of width over height in ``ratio``; the first of ten
    tries that fits is taken, anywhere in the crop (C. Szegedy et al., "Going deeper with convolutions", CVPR 2015).
    Where none fits, it is the largest window of allowed proportions in the middle.

    Parameters
    ----------
    sizes : Tensor of int64, shape (N, 2)
        Height and width of each crop.
    settings : CropViews
        With ``scale`` and ``ratio``.
    draws : Draws

    Examples
    --------
    >>> import torch
    >>> from chammi75.schemas.training import CropViews
    >>> from chammi75.training.randomness import Draws
    >>> sizes, settings = torch.tensor([[30, 40]]), CropViews(count=1, size=8, scale=(1, 1), ratio=(1, 1))
    >>> draw_windows(sizes, settings, Draws(0, 0, torch.tensor([0]), "view"))  # no square of this area fits
    Windows(top=tensor([0]), left=tensor([5]), height=tensor([30]), width=tensor([30]))
    """
    heights, widths = sizes[:, :1], sizes[:, 1:]
    (least_scale, greatest_scale), (least_ratio, greatest_ratio) = settings.scale, settings.ratio
    areas = draws.between("area", least_scale, greatest_scale, _TRIES) * (heights * widths)
    ratios = draws.between("ratio", math.log(least_ratio), math.log(greatest_ratio), _TRIES).exp()
    tried_widths = (areas * ratios).sqrt().round().to(torch.int64)
    tried_heights = (areas / ratios).sqrt().round().to(torch.int64)
    fits = (tried_widths > 0) & (tried_widths <= widths) & (tried_heights > 0) & (tried_heights <= heights)
    chosen = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.any(1)

    proportions = widths / heights
    tall = torch.where(
        proportions < least_ratio, (widths / least_ratio).round().to(torch.int64).clamp(min=1), heights
    ).minimum(heights)
    wide = torch.where(
        proportions > greatest_ratio, (heights * greatest_ratio).round().to(torch.int64).clamp(min=1), widths
    ).minimum(widths)
    height = torch.where(found, tried_heights.gather(1, chosen)[:, 0], tall[:, 0])
    width = torch.where(found, tried_widths.gather(1, chosen)[:, 0], wide[:, 0])

    place = draws.uniforms("place", 2)
    rows, columns = heights[:, 0] - height, widths[:, 0] - width
    return Windows(
        top=torch.where(found, _whole(place[:, 0], rows), rows // 2),
        left=torch.where(found, _whole(place[:, 1], columns), columns // 2),
        height=height,
        width=width,
    )


def _whole(chance: Tensor, greatest: Tensor) -> Tensor:
    """Whole numbers from 0 to the greatest, all as likely."""
    return (chance * (greatest + 1)).to(torch.int64).minimum(greatest)
