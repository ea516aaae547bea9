"""Numbers that change as a training goes on, with the end points that the authors of DINO give them.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021. The learning rate, the weight
decay and the momentum of the teacher have a number for each step; the temperature of the teacher one for each epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chammi75.schemas.training import DinoSettings, OptimizerSettings

SAMPLES_OF_A_RATE = 256
"""Learning rates are given for so many samples a step, and scaled in proportion (Goyal et al. 2017)."""


def cosine_schedule(base: float, final: float, steps: int, warmup_steps: int = 0) -> NDArray[np.float64]:
    """A linear warm-up from 0, then half a cosine from one number towards another.

    The warm-up includes both its ends, so the first step has 0 and ``base`` comes twice: at the end of the warm-up and
    at the start of the cosine. Step i of the n steps after the warm-up has ``final + (base - final) (1 + cos(pi i / n))
    / 2`` with i from 0 to n - 1, so ``final`` is never quite reached.

    Parameters
    ----------
    base, final : float
        Where the cosine starts, and what it runs towards.
    steps : int
        All steps, those of the warm-up among them.
    warmup_steps : int
        Steps of the warm-up. Where there are more of them than steps, the schedule ends within the warm-up.

    Returns
    -------
    ndarray of float64, shape (steps,)

    Examples
    --------
    >>> [round(float(v), 3) for v in cosine_schedule(1.0, 0.0, 7, warmup_steps=3)]
    [0.0, 0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rise = np.linspace(0, base, warmup_steps)[:steps]
    left = steps - len(rise)
    turn = np.pi * np.arange(left) / max(left, 1)
    return np.concatenate((rise, final + 0.5 * (base - final) * (1 + np.cos(turn))))


def learning_rates(
    settings: OptimizerSettings, samples_per_step: int, steps_per_epoch: int, total_steps: int
) -> NDArray[np.float64]:
    """The learning rate of each step, in proportion to the samples of all ranks and accumulated batches.

    Examples
    --------
    >>> from chammi75.schemas.training import OptimizerSettings
    >>> settings = OptimizerSettings(learning_rate=5e-4, warmup_epochs=1)
    >>> float(learning_rates(settings, samples_per_step=512, steps_per_epoch=10, total_steps=100).max())
    0.001
    """
    base = settings.learning_rate * samples_per_step / SAMPLES_OF_A_RATE
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    return cosine_schedule(base, settings.min_learning_rate, total_steps, warmup)


def weight_decays(settings: OptimizerSettings, total_steps: int) -> NDArray[np.float64]:
    """The weight decay of each step: a cosine without warm-up, or the same number throughout.

    Examples
    --------
    >>> from chammi75.schemas.training import OptimizerSettings
    >>> weight_decays(OptimizerSettings(weight_decay=0.05, weight_decay_end=None), 3).tolist()
    [0.05, 0.05, 0.05]
    """
    end = settings.weight_decay if settings.weight_decay_end is None else settings.weight_decay_end
    return cosine_schedule(settings.weight_decay, end, total_steps)


def teacher_momenta(settings: DinoSettings, total_steps: int) -> NDArray[np.float64]:
    """The momentum of DINO's teacher at each step: a cosine from the given number towards 1.

    Examples
    --------
    >>> from chammi75.schemas.training import DinoSettings
    >>> float(teacher_momenta(DinoSettings(), 10)[0])
    0.996
    """
    return cosine_schedule(settings.teacher_momentum, 1.0, total_steps)


def teacher_temperature(settings: DinoSettings, epoch: int) -> float:
    """The temperature of DINO's teacher in an epoch: a straight line with both its ends, then constant.

    Examples
    --------
    >>> from chammi75.schemas.training import DinoSettings
    >>> warm = DinoSettings(teacher_temperature=0.07, warmup_teacher_temperature_epochs=4)
    >>> [round(teacher_temperature(warm, epoch), 2) for epoch in range(6)]
    [0.04, 0.05, 0.06, 0.07, 0.07, 0.07]
    """
    epochs = settings.warmup_teacher_temperature_epochs
    if epoch >= epochs:
        return settings.teacher_temperature
    return float(np.linspace(settings.warmup_teacher_temperature, settings.teacher_temperature, epochs)[epoch])
