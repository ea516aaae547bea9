"""Positions: the learned table of a vision transformer, fitted to the grid of patches of an input."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    import torch

_SHIFT = 0.1


def interpolate_positions(
    table: torch.Tensor, height: int, width: int, *, reference: bool = True, at_native: bool = False
) -> torch.Tensor:
    """Positions of a grid of ``height`` by ``width`` patches, by bicubic interpolation of the square table.

    DINO (Caron et al. 2021), and so the reference, adds 0.1 to height and width before it divides by the table's edge,
    lest a rounding error lose a row. PyTorch takes the quotient for the scale of the grid too, so positions are
    sampled a little off: by up to a tenth of a patch of the input. Weights that were trained so need it so.

    Parameters
    ----------
    table : Tensor of shape (1, n * n, D)
        Positions of the patches, row by row, without that of the CLS token.
    height, width : int
        Of the input, in patches.
    reference : bool
        The way above. False: scaled by exactly ``height / n`` and ``width / n``.
    at_native : bool
        With ``reference``: interpolate, with the shift, even where the grid is the table's own, as the reference's
        ChannelViT does.

    Returns
    -------
    Tensor of shape (1, height * width, D)
        Of the table's dtype; the table itself where the grid is its own.

    Examples
    --------
    >>> import torch
    >>> table = torch.arange(4.0).reshape(1, 4, 1)
    >>> interpolate_positions(table, 2, 2) is table
    True
    >>> interpolate_positions(table, 1, 1, reference=False)[0, :, 0].tolist()
    [1.5]
    >>> [round(x, 3) for x in interpolate_positions(table, 1, 1)[0, :, 0].tolist()]
    [1.194]
    """
    edge = isqrt(table.shape[1])
    if height == width == edge and not (reference and at_native):
        return table
    grid = table.reshape(1, edge, edge, -1).permute(0, 3, 1, 2).float()
    if reference:
        scale = ((height + _SHIFT) / edge, (width + _SHIFT) / edge)
        fitted = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    else:
        fitted = functional.interpolate(grid, size=(height, width), mode="bicubic")
    return fitted.permute(0, 2, 3, 1).reshape(1, height * width, -1).to(table.dtype)
