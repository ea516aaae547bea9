"""Saturation noise: pixels that the camera could not measure become uniform noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from chammi75.training.randomness import Draws, as_uniforms, pixel_counters, pixel_noise, random_words, sample_keys

if TYPE_CHECKING:
    from torch import Tensor

_PURPOSE = "saturation noise"


def add_saturation_noise(
    pixels: Tensor, inside: Tensor, saturations: Tensor, shares: tuple[float, float], draws: Draws
) -> Tensor:
    """Replace saturated pixels by uniform noise, as the CHAMMI-75 paper does before normalisation.

    Parameters
    ----------
    pixels : Tensor of float32, shape (N, C, H, W)
        In the units of the camera. It is changed.
    inside : Tensor of bool, shape (N, 1 or C, H, W)
        The crops' own pixels; no other one is replaced.
    saturations : Tensor of float32, shape (N,)
        The value from which a pixel is saturated; no pixel of a sample is where it is NaN.
    shares : (float, float)
        Of its saturation: noise lies between the two. (200 / 255, 1) is [200, 255) in 8 bits.
    draws : Draws

    Returns
    -------
    Tensor of float32, shape (N, C, H, W)

    Examples
    --------
    >>> import torch
    >>> pixels, inside = torch.tensor([[[[7.0, 255.0]]]]), torch.ones(1, 1, 1, 2, dtype=torch.bool)
    >>> draws = Draws(0, 0, torch.tensor([0]), "crop")
    >>> noisy = add_saturation_noise(pixels, inside, torch.tensor([255.0]), (200 / 255, 1.0), draws)
    >>> float(noisy[0, 0, 0, 0]), 200 <= float(noisy[0, 0, 0, 1]) < 255
    (7.0, True)
    """
    saturated = (pixels >= saturations[:, None, None, None]) & inside
    replace = replace_few if pixels.device.type == "cpu" else replace_anywhere
    return replace(pixels, saturated, saturations, shares, draws)


def replace_few(
    pixels: Tensor, saturated: Tensor, saturations: Tensor, shares: tuple[float, float], draws: Draws
) -> Tensor:
    """Draw noise where it is needed: best on a CPU. On a GPU, to find out where that is would mean to wait for it."""
    samples, channels, rows, columns = saturated.nonzero(as_tuple=True)
    keys = sample_keys(draws.seed, draws.epoch, draws.positions, _purpose(draws))
    chance = as_uniforms(random_words(keys[samples], pixel_counters(channels, rows, columns)))
    pixels[samples, channels, rows, columns] = _noise(chance, shares) * saturations[samples]
    return pixels


def replace_anywhere(
    pixels: Tensor, saturated: Tensor, saturations: Tensor, shares: tuple[float, float], draws: Draws
) -> Tensor:
    """Draw noise for every pixel, and use what is needed: the same numbers, without a look at how many these are."""
    channels, height, width = pixels.shape[1:]
    chance = pixel_noise(draws.seed, draws.epoch, draws.positions, _purpose(draws), (channels, height, width))
    return torch.where(saturated, _noise(chance, shares) * saturations[:, None, None, None], pixels)


def _noise(chance: Tensor, shares: tuple[float, float]) -> Tensor:
    least, greatest = shares
    return least + chance * (greatest - least)


def _purpose(draws: Draws) -> str:
    return f"{draws.name}: {_PURPOSE}"
