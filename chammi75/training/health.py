"""Whether a training is still worth its electricity: losses and weights that are numbers, features that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from torch import Tensor

WINDOW_STEPS = 300
"""A collapse is what lasts for so many steps: networks just initialised look like one for a moment."""

_LEAST_LOOKS = 3
_FLAT, _SHARP = 0.999, 0.001
"""Shares of the greatest entropy, log K, above and below which a teacher says the same of every sample."""

_NO_SPREAD = 0.02
"""Features that have collapsed spread less than this share of what features all over the sphere do, 1 / sqrt(D)."""


class Health:
    """Looks at a training now and then, and remembers since when it looks ill.

    Parameters
    ----------
    width : int
        Numbers of a feature.
    classes : int, optional
        Outputs of the head that a teacher's entropy is over; None where there is no teacher.
    window_steps : int
        Steps that a collapse must last for.
    """

    def __init__(self, width: int, classes: int | None = None, window_steps: int = WINDOW_STEPS) -> None:
        self._spread = _NO_SPREAD / math.sqrt(width)
        self._greatest = None if classes is None else math.log(classes)
        self._window = window_steps
        self._since: int | None = None
        self._looks = 0

    def look(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """What is wrong, in words, or None.

        Parameters
        ----------
        step : int
        metrics : mapping of str to float
            ``feature_std``, and with a teacher ``teacher_entropy`` in nats.

        Examples
        --------
        >>> health = Health(width=64, classes=1024, window_steps=20)
        >>> ill = {"feature_std": 1e-6, "teacher_entropy": 6.9314}
        >>> [health.look(step, ill) is None for step in (0, 10)]
        [True, True]
        >>> print(health.look(20, ill))
        the features have collapsed: for 20 steps, every sample has looked the same (feature_std 1.0e-06, \
teacher_entropy 6.931 of at most 6.931)
        """
        if not self._looks_collapsed(metrics):
            self._since, self._looks = None, 0
            return None
        if self._since is None:
            self._since = step
        self._looks += 1
        if step - self._since < self._window or self._looks < _LEAST_LOOKS:
            return None
        numbers = f"feature_std {metrics['feature_std']:.1e}"
        if self._greatest is not None:
            numbers += f", teacher_entropy {metrics['teacher_entropy']:.3f} of at most {self._greatest:.3f}"
        return (
            f"the features have collapsed: for {step - self._since} steps, every sample has looked the same ({numbers})"
        )

    def _looks_collapsed(self, metrics: Mapping[str, float]) -> bool:
        spread = metrics.get("feature_std", math.nan)
        if not spread < self._spread:  # NaN, of a batch of one, says nothing
            return False
        if self._greatest is None:
            return True
        entropy = metrics.get("teacher_entropy", math.nan)
        return entropy > _FLAT * self._greatest or entropy < _SHARP * self._greatest


def collapse_advice(method: str) -> str:
    """What to try after a collapse."""
    if method == "dino":
        return (
            "lower optimizer.learning_rate or dino.teacher_temperature, or raise dino.freeze_last_layer_epochs or"
            " optimizer.warmup_epochs (log.stop_on_collapse=false goes on all the same)"
        )
    return (
        "lower optimizer.learning_rate, or raise optimizer.warmup_epochs or batch_size (log.stop_on_collapse=false goes"
        " on all the same)"
    )


def check_finite(step: int, is_finite: bool) -> None:
    """Refuse to go on behind a loss that is no number.

    Raises
    ------
    ChammiError
        Saying what to try.
    """
    if not is_finite:
        raise ChammiError(
            f"the loss is NaN or infinite at step {step} or shortly before: the last checkpoint is from before that; go"
            " on from it with a lower optimizer.learning_rate in a new folder (out=…), a lower optimizer.clip, or"
            " devices.precision=32-true instead of 16-mixed"
        )


def check_weights(step: int, weights: Iterable[Tensor]) -> None:
    """Refuse weights that are no numbers, before they become a checkpoint.

    Raises
    ------
    ChammiError
        If a weight is NaN or infinite.
    """
    with torch.no_grad():
        looks = [torch.isfinite(weight).all() for weight in weights if weight.numel()]
        is_finite = bool(torch.stack(looks).all()) if looks else True
    if not is_finite:
        raise ChammiError(
            f"weights are NaN or infinite after step {step}: no checkpoint of it was written, the last one is from"
            " before; go on from it with a lower optimizer.learning_rate in a new folder (out=…)"
        )
