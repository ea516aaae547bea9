"""How far a training has come."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """Where in a training a step is.

    A named tuple, not a data class: it is an argument of the wrapped network, and the layers that wrap networks
    (PyTorch's DDP, Lightning Fabric's precisions) rebuild tuples and refuse frozen data classes.

    Parameters
    ----------
    step : int
        Steps of the optimiser that were taken before this one, from 0.
    steps_per_epoch : int
        Steps in each epoch.
    total_steps : int
        Steps of the whole training: what schedules are spread over.

    Examples
    --------
    >>> Progress(step=250, steps_per_epoch=100, total_steps=1000).epoch
    2
    """

    step: int
    steps_per_epoch: int
    total_steps: int

    @property
    def epoch(self) -> int:
        """The epoch that the step is in, from 0."""
        return self.step // self.steps_per_epoch
