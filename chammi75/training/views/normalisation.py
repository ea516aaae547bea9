"""Normalisation of each plane by its own mean and deviation, and what is done about planes that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-7
"""Is added to the variance, as in the paper's InstanceNorm."""

_GREATEST = 1e15
"""No camera counts so far; the squares of what is below can be added up in float32."""

_EDGES = (-2, -1)


class Planes(NamedTuple):
    """Planes, and what they were like before.

    Attributes
    ----------
    pixels : Tensor of float32, shape (N, C, H, W)
        Zero where there is padding.
    mean, deviation : Tensor of float32, shape (N, C, 1, 1)
        Of the pixels as they are now; the deviation of a constant plane is 0.
    """

    pixels: Tensor
    mean: Tensor
    deviation: Tensor


def fill_bad_pixels(pixels: Tensor, inside: Tensor) -> Tensor:
    """Give pixels that are not finite, or beyond 1e15, the mean of the plane's others; 0 where there is no other.

    After normalisation they are 0, and change nothing. Only floats can have such pixels.

    Parameters
    ----------
    pixels : Tensor of float32, shape (N, C, H, W)
    inside : Tensor of bool, shape (N, 1, H, W)

    Returns
    -------
    Tensor of float32, shape (N, C, H, W)

    Examples
    --------
    >>> import torch
    >>> pixels = torch.tensor([[[[1.0, 3.0, float("nan"), float("inf")]]]])
    >>> fill_bad_pixels(pixels, torch.ones(1, 1, 1, 4, dtype=torch.bool)).flatten().tolist()
    [1.0, 3.0, 2.0, 2.0]
    """
    good = (pixels.abs() <= _GREATEST) & inside
    least = torch.where(good, pixels, torch.inf).amin(_EDGES, keepdim=True)
    greatest = torch.where(good, pixels, -torch.inf).amax(_EDGES, keepdim=True)
    kept = torch.where(good, pixels, 0.0)
    count = good.sum(_EDGES, keepdim=True)
    # within the plane's range, so that a constant plane stays exactly constant
    mean = torch.minimum(torch.maximum(kept.sum(_EDGES, keepdim=True) / count.clamp(min=1), least), greatest)
    return torch.where(inside & ~good, torch.where(count > 0, mean, 0.0), kept)


def constant_planes(pixels: Tensor, inside: Tensor) -> Tensor:
    """Which planes have one value everywhere in the crop; zeros are one, so empty planes are among them.

    Parameters
    ----------
    pixels : Tensor, shape (N, C, H, W)
    inside : Tensor of bool, shape (N, 1, H, W)

    Returns
    -------
    Tensor of bool, shape (N, C)

    Examples
    --------
    >>> import torch
    >>> pixels = torch.tensor([[[[5, 5, 0]], [[5, 6, 0]]]])
    >>> constant_planes(pixels, torch.tensor([[[[True, True, False]]]])).tolist()
    [[True, False]]
    """
    differs = (pixels != pixels[..., :1, :1]) & inside
    return differs.view(torch.uint8).amax(_EDGES) == 0  # the greatest byte is found faster than any() is


def measure(pixels: Tensor, inside: Tensor) -> Planes:
    """The planes as they are, with mean and biased deviation of the crops' own pixels."""
    _, mean, deviation = _centred(pixels, inside)
    return Planes(pixels, mean, deviation)


def normalise(pixels: Tensor, inside: Tensor, epsilon: float = EPSILON) -> Planes:
    """Subtract each plane's mean over the whole crop, and divide by the root of its biased variance and ``epsilon``.

    This is instance normalisation (D. Ulyanov, A. Vedaldi and V. Lempitsky 2016). The mean is found in two passes, the
    second over what the first left, and the variance from what both left: in a single pass, float32 would lose the
    contrast of a plane that is much brighter than it varies. A constant plane gives zeros.

    Parameters
    ----------
    pixels : Tensor of float32, shape (N, C, H, W)
        Finite; zero in the padding.
    inside : Tensor of bool, shape (N, 1, H, W)
        The crops' own pixels: no other has a part in mean and variance.
    epsilon : float

    Returns
    -------
    Planes
        Of mean 0 and deviation 1, or 0 where the plane is constant; zero in the padding.

    Examples
    --------
    >>> import torch
    >>> pixels = torch.tensor([[[[1.0, 3.0, 0.0]], [[9.0, 9.0, 0.0]]]])
    >>> normalise(pixels, torch.tensor([[[[True, True, False]]]])).pixels.round(decimals=3).int().tolist()
    [[[[-1, 1, 0]], [[0, 0, 0]]]]
    """
    centred, _, deviation = _centred(pixels, inside)
    varies = deviation > 0
    scale = torch.where(varies, (deviation.square() + epsilon).rsqrt(), 0.0)
    return Planes(centred.mul_(scale), torch.zeros_like(scale), varies.to(scale.dtype))


def _centred(pixels: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels less their plane's mean and 0 in the padding, that mean, and the biased deviation."""
    weight = inside.to(pixels.dtype)
    count = weight.sum(_EDGES, keepdim=True).clamp(min=1)
    constant = constant_planes(pixels, inside)[..., None, None]
    first = pixels.sum(_EDGES, keepdim=True) / count
    centred = (pixels - first).mul_(weight)
    second = centred.sum(_EDGES, keepdim=True) / count
    centred.addcmul_(weight, second, value=-1)
    deviation = torch.linalg.vector_norm(centred, dim=_EDGES, keepdim=True) / count.sqrt()
    return centred, first + second, torch.where(constant, 0.0, deviation)
