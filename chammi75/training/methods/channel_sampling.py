"""Hierarchical channel sampling: how many channels, then which.

Bao et al., "Channel Vision Transformers: An Image Is Worth 1 x 16 x 16 Words", ICLR 2024. The authors draw once for a
batch; here each sample has its own draw, which depends on its position in the epoch alone, so that it does not matter
on which rank or in which company it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi75.training.randomness import uniforms

if TYPE_CHECKING:
    from torch import Tensor


def sample_channels(present: Tensor, seed: int, epoch: int, positions: Tensor, purpose: str) -> Tensor:
    """Draw a number of channels, uniformly from 1 to all that a sample has, and then so many of them.

    Parameters
    ----------
    present : Tensor of bool, shape (N, C)
        Channels that each sample has.
    seed, epoch : int
    positions : Tensor of int64, shape (N,)
        Of the samples in the epoch.
    purpose : str
        Draws for different purposes have nothing to do with each other.

    Returns
    -------
    Tensor of bool, shape (N, C)
        Channels that are used: some of those that are present, one at least; it does not depend on how many absent
        channels a batch is padded with.

    Examples
    --------
    >>> import torch
    >>> present = torch.tensor([[True, True, True, False]])
    >>> drawn = [sample_channels(present, 0, 0, torch.tensor([position]), "view 0") for position in range(200)]
    >>> {int(which.sum()) for which in drawn}, any(bool(which[0, 3]) for which in drawn)
    ({1, 2, 3}, False)
    """
    numbers = uniforms(seed, epoch, positions, purpose, 1 + present.shape[1])
    there = present.sum(dim=1)
    count = 1 + (numbers[:, 0] * there).long().clamp(max=there - 1)
    places = numbers[:, 1:].masked_fill(~present, 2).argsort(dim=1, stable=True).argsort(dim=1)
    return present & (places < count[:, None])
