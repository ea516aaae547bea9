"""What ranks tell each other; with a single process, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor


def world() -> tuple[int, int]:
    """This process's rank and how many there are: 0 and 1 where there is but one.

    Examples
    --------
    >>> world()
    (0, 1)
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, without a gradient; in place where there is more than one.

    Examples
    --------
    >>> sum_over_ranks(torch.tensor([2.0])).item()
    2.0
    """
    if world()[1] > 1:
        distributed.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, those of rank 0 first, with gradients that flow back to the rank that each came from.

    Parameters
    ----------
    rows : Tensor, shape (N, D)
        As many on every rank.

    Returns
    -------
    Tensor, shape (ranks N, D)
        Its gradient is summed over the ranks.

    Examples
    --------
    >>> gather_rows(torch.eye(2)).shape
    torch.Size([2, 2])
    """
    return _GatherRows.apply(rows) if world()[1] > 1 else rows


class _GatherRows(torch.autograd.Function):  # type: ignore[misc,unused-ignore]
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(world()[1])]
        distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        rank, ranks = world()
        # every rank's loss uses these rows; not in place, the gradient is autograd's
        return sum_over_ranks(gradient.clone(memory_format=torch.contiguous_format)).chunk(ranks)[rank]
