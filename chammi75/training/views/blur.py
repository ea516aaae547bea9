"""Blur: a Gaussian of random width, as if the focus were off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from chammi75.training.views.bands import Bands, along_both

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.schemas.training import ViewSettings
    from chammi75.training.randomness import Draws
    from chammi75.training.views.normalisation import Planes

_NO_SIGMA = 1e-3
"""A Gaussian so narrow has one weight, of 1."""

_REACH = 4
"""Weights beyond so many sigmas are left out: less than a ten-thousandth of the sum."""


def blur_some(view: Tensor, planes: Planes, settings: ViewSettings, draws: Draws) -> Tensor:
    """Blur a share of the views, all channels of one alike; sigma is uniform in ``blur_sigma``.

    Parameters
    ----------
    view : Tensor of float32, shape (N, C, S, S)
    planes : Planes
    settings : ViewSettings
        With ``blur``, the chance, and ``blur_sigma``.
    draws : Draws
    """
    if settings.blur == 0:
        return view
    least, greatest = settings.blur_sigma
    sigmas = draws.between("blur sigma", least, greatest)[:, 0]
    blurred = draws.uniforms("blur", 1)[:, 0] < settings.blur
    return gaussian_blur(view, torch.where(blurred, sigmas, _NO_SIGMA), math.ceil(_REACH * greatest))


def gaussian_blur(view: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Blur each sample by its own sigma, with mirrored edges.

    Parameters
    ----------
    view : Tensor of float32, shape (N, C, S, S)
    sigmas : Tensor of float32, shape (N,)
    radius : int
        Pixels to each side that have a weight; at most S - 1 of them.

    Examples
    --------
    >>> import torch
    >>> gaussian_blur(torch.ones(1, 1, 4, 4), torch.tensor([1.0]), 3).allclose(torch.ones(1, 1, 4, 4))
    True
    """
    size = view.shape[-1]
    radius = min(radius, size - 1)
    offsets = torch.arange(-radius, radius + 1, device=view.device)
    weights = (-0.5 * (offsets / sigmas[:, None]).square()).exp()
    weights = (weights / weights.sum(-1, keepdim=True))[:, None, :].expand(-1, size, -1)
    bands = Bands(torch.arange(size, device=view.device).expand(len(view), size), weights)
    return along_both(pad(view, [radius] * 4, mode="reflect"), bands, bands)
