"""The exponential moving average of a network's parameters: DINO's teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def update_average(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """Move every parameter of ``average`` towards that of ``model``: a = momentum a + (1 - momentum) p, in place.

    All parameters take part, those too that do not learn. Written as a step towards the model, so that two equal
    numbers stay exactly equal.

    Parameters
    ----------
    average, model : nn.Module
        Two networks of one architecture.
    momentum : float
        What is kept of the average, in [0, 1].

    Examples
    --------
    >>> teacher, student = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    >>> for network, value in ((teacher, 1.0), (student, 2.0)):
    ...     for parameter in network.parameters():
    ...         _ = torch.nn.init.constant_(parameter, value)
    >>> update_average(teacher, student, momentum=0.75)
    >>> teacher.weight.item()
    1.25
    """
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - momentum)
