"""Random numbers that are computed for any sample alone: counters and keys go in, and no generator has a state.

A number depends on the seed, the epoch, the sample's position in it and the purpose, so that a sample's views are the
same in any batch, on any rank or device, and in a run that was resumed. The generator is splitmix64 (G. Steele, D. Lea
and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): what it gives for a key and a counter is
the finaliser of ``key + (counter + 1) * gamma``, all in integers of 64 bits that wrap around. It is meant to look
random, not to keep a secret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the step of splitmix64."""

_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_AXIS_BITS = 21
"""Rows and columns have so many bits of a pixel's counter: planes of two million pixels an edge."""


def uniforms(
    seed: int,
    epoch: int,
    positions: Tensor,
    purpose: str,
    count: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform random numbers for samples, by their positions.

    Parameters
    ----------
    seed, epoch : int
        From 0 on.
    positions : Tensor of int64, shape (N,)
    purpose : str
        What they are for: numbers of different purposes have nothing to do with each other.
    count : int
        Numbers of each sample. The first ones do not depend on how many there are.
    dtype : torch.dtype
        ``float32`` has 24 random bits, ``float64`` 53.

    Returns
    -------
    Tensor, shape (N, count)
        In [0, 1), on the device of the positions, and the same bits on every device.

    Examples
    --------
    >>> import torch
    >>> uniforms(0, 3, torch.tensor([5, 6]), "a toss", 2).shape
    torch.Size([2, 2])
    >>> both, alone = uniforms(0, 3, torch.tensor([5, 6]), "a toss", 2), uniforms(0, 3, torch.tensor([6]), "a toss", 2)
    >>> bool((both[1] == alone[0]).all())
    True
    """
    keys = sample_keys(seed, epoch, positions, purpose)
    counters = torch.arange(count, device=positions.device)
    return as_uniforms(random_words(keys[:, None], counters), dtype)


def pixel_noise(
    seed: int,
    epoch: int,
    positions: Tensor,
    purpose: str,
    shape: tuple[int, int, int],
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A uniform random number for each pixel of each sample.

    A pixel's number depends on its channel, row and column, and not on ``shape``: it is the same however far a batch
    is padded.

    Parameters
    ----------
    seed, epoch : int
    positions : Tensor of int64, shape (N,)
    purpose : str
    shape : (int, int, int)
        Channels, height and width; each edge at most 2**21.
    dtype : torch.dtype

    Returns
    -------
    Tensor, shape (N, C, H, W)
        In [0, 1), on the device of the positions.

    Examples
    --------
    >>> import torch
    >>> one = torch.tensor([7])
    >>> small, large = (pixel_noise(0, 0, one, "noise", (1, edge, edge)) for edge in (2, 3))
    >>> bool((small == large[..., :2, :2]).all())
    True
    """
    keys = sample_keys(seed, epoch, positions, purpose)
    channels, rows, columns = (torch.arange(edge, device=positions.device) for edge in shape)
    counters = pixel_counters(channels[:, None, None], rows[:, None], columns)
    return as_uniforms(random_words(keys[:, None, None, None], counters), dtype)


@dataclass(frozen=True)
class Draws:
    """Where the random numbers of some samples come from, for one thing that is made of them.

    Attributes
    ----------
    seed, epoch : int
    positions : Tensor of int64, shape (N,)
    name : str
        What is made: a part of the purpose of all its numbers.
    """

    seed: int
    epoch: int
    positions: Tensor
    name: str

    def uniforms(self, purpose: str, count: int) -> Tensor:
        """Numbers in [0, 1), shape (N, count), float32."""
        return uniforms(self.seed, self.epoch, self.positions, f"{self.name}: {purpose}", count)

    def between(self, purpose: str, least: float, greatest: float, count: int = 1) -> Tensor:
        """Numbers in [least, greatest), shape (N, count), float32."""
        return least + self.uniforms(purpose, count) * (greatest - least)

    def of(self, samples: slice) -> Draws:
        """The same for some of the samples."""
        return replace(self, positions=self.positions[samples])


def sample_keys(seed: int, epoch: int, positions: Tensor, purpose: str) -> Tensor:
    """A key for each sample and a purpose: int64, shape (N,), of the positions' shape.

    Examples
    --------
    >>> import torch
    >>> sample_keys(0, 0, torch.arange(3), "a toss").unique().numel()
    3
    """
    base = _base_key(seed, epoch, purpose)
    return _finalised(positions * _signed(_GAMMA) + _signed(base))


def pixel_counters(channels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The counters of pixels, int64; the three broadcast against each other.

    Examples
    --------
    >>> import torch
    >>> int(pixel_counters(torch.tensor(0), torch.tensor(1), torch.tensor(2))) == 2**21 + 2
    True
    """
    return (((channels << _AXIS_BITS) + rows) << _AXIS_BITS) + columns


def random_words(keys: Tensor, counters: Tensor) -> Tensor:
    """64 random bits, as int64, for keys and counters from 0 on that broadcast against each other.

    Examples
    --------
    The first number of splitmix64 for a state that its authors' implementation has been run with:

    >>> import torch
    >>> int(random_words(torch.tensor(1234567), torch.tensor(0)))
    6457827717110365317
    """
    return _finalised(keys + (counters + 1) * _signed(_GAMMA))


def as_uniforms(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random words as numbers in [0, 1): their upper 24 bits (float32), or 53 (float64).

    Examples
    --------
    >>> import torch
    >>> as_uniforms(torch.tensor([0, -1, 2**62])).tolist()
    [0.0, 0.9999999403953552, 0.25]
    """
    bits = 53 if dtype == torch.float64 else 24
    return _shifted(words, 64 - bits).to(dtype).mul_(2.0**-bits)


@lru_cache(maxsize=1024)
def _base_key(seed: int, epoch: int, purpose: str) -> int:
    """What seed, epoch and purpose give together, unsigned; hashed once for many batches."""
    text = f"{seed}\n{epoch}\n{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _finalised(words: Tensor) -> Tensor:
    """The finaliser of splitmix64, in place."""
    words ^= _shifted(words, 30)
    words *= _signed(_FIRST)
    words ^= _shifted(words, 27)
    words *= _signed(_SECOND)
    words ^= _shifted(words, 31)
    return words


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros coming in: torch's own shift repeats the sign."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return (word & _MASK) - 2**64 if word & 2**63 else word & _MASK
