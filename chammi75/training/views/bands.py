"""Bands: linear maps along an axis, in which each number that comes out is a sum of a few neighbours that went in.

Resizing and blurring are such maps. They are kept as what is not zero of their matrices. A GPU multiplies by the whole
matrices; a CPU adds up the few rows, which saves it nine tenths of the multiplications.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from torch import Tensor


class Bands(NamedTuple):
    """A matrix (S, H) of each sample, of which each row has at most K neighbouring entries that are not zero.

    Attributes
    ----------
    first : Tensor of int64, shape (N, S)
        Column of the first entry of each row; at least 0 and below H.
    weights : Tensor of float32, shape (N, S, K)
        The entries; zero in columns from H on.
    """

    first: Tensor
    weights: Tensor

    def of(self, samples: slice) -> Bands:
        """The matrices of some of the samples."""
        return Bands(self.first[samples], self.weights[samples])

    def columns(self) -> Tensor:
        """Column of each entry: int64, shape (N, S, K); those of zeros may lie behind the last."""
        return self.first[..., None] + torch.arange(self.weights.shape[-1], device=self.first.device)

    def matrices(self, length: int) -> Tensor:
        """The matrices as they are usually written: float32, shape (N, S, H) for a length of H.

        Examples
        --------
        >>> import torch
        >>> Bands(torch.tensor([[0, 1]]), torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])).matrices(2).tolist()
        [[[0.5, 0.5], [0.0, 1.0]]]
        """
        count, rows, entries = self.weights.shape
        # room for zeros behind the last column: each entry has a place of its own, and no two race for one
        written = self.weights.new_zeros(count, rows, length + entries).scatter_(2, self.columns(), self.weights)
        return written[..., :length]


def along_both(pixels: Tensor, vertical: Bands, horizontal: Bands) -> Tensor:
    """Apply one map along the columns and one along the rows of each sample's planes.

    Parameters
    ----------
    pixels : Tensor of float32, shape (N, C, H, W)
        Finite.
    vertical, horizontal : Bands
        Matrices (S, H) and (T, W).

    Returns
    -------
    Tensor of float32, shape (N, C, S, T)

    Examples
    --------
    >>> import torch
    >>> mean = Bands(torch.tensor([[0]]), torch.tensor([[[0.5, 0.5]]]))
    >>> float(along_both(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), mean, mean))
    2.5
    """
    return (add_up if pixels.device.type == "cpu" else multiply)(pixels, vertical, horizontal)


def multiply(pixels: Tensor, vertical: Bands, horizontal: Bands) -> Tensor:
    """``along_both`` by products of whole matrices."""
    height, width = pixels.shape[-2:]
    narrowed = torch.matmul(pixels.flatten(1, 2), horizontal.matrices(width).mT)
    return torch.matmul(vertical.matrices(height)[:, None], narrowed.unflatten(1, pixels.shape[1:3]))


def add_up(pixels: Tensor, vertical: Bands, horizontal: Bands) -> Tensor:
    """``along_both`` by sums of a few rows."""
    return _added_up(_added_up(pixels, vertical).mT, horizontal).mT


def _added_up(pixels: Tensor, bands: Bands) -> Tensor:
    """The map along the columns, (N, C, S, W), as weighted sums of rows: embedding bags are sparse products."""
    count, channels, height, width = pixels.shape
    rows, entries = bands.weights.shape[1:]
    planes = torch.arange(count * channels, device=pixels.device).view(count, channels, 1, 1)
    numbers = bands.columns().clamp(max=height - 1)[:, None] + planes * height
    weights = bands.weights[:, None].expand(count, channels, rows, entries)
    added = embedding_bag(
        numbers.view(-1, entries),
        pixels.reshape(-1, width),
        per_sample_weights=weights.reshape(-1, entries),
        mode="sum",
    )
    return added.view(count, channels, rows, width)
