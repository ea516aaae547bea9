"""The schedules, against the formulas written out for each step."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

from chammi75.schemas.training import DinoSettings, OptimizerSettings
from chammi75.training.progress import Progress
from chammi75.training.schedules import (
    cosine_schedule,
    learning_rates,
    teacher_momenta,
    teacher_temperature,
    weight_decays,
)


@pytest.mark.parametrize(
    ("base", "final", "steps", "warmup"),
    [(5e-4, 1e-6, 1000, 100), (0.04, 0.4, 77, 0), (0.996, 1.0, 313, 0), (1.0, 0.0, 10, 1), (2.0, 1.0, 5, 5)],
)
def test_a_schedule_is_its_formula_at_every_step(base: float, final: float, steps: int, warmup: int) -> None:
    expected = []
    for step in range(steps):
        if step < warmup:
            expected.append(0.0 if warmup == 1 else base * step / (warmup - 1))
        else:
            share = (step - warmup) / (steps - warmup)
            expected.append(final + 0.5 * (base - final) * (1 + math.cos(math.pi * share)))
    found = cosine_schedule(base, final, steps, warmup)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_warm_up_has_both_its_ends_so_that_the_base_comes_twice() -> None:
    found = cosine_schedule(3.0, 1.0, 20, 4)
    assert found[0] == 0
    assert found[3] == found[4] == 3.0
    assert found[-1] > 1.0  # the final number is never reached


def test_a_training_that_ends_within_its_warm_up_only_rises() -> None:
    np.testing.assert_allclose(cosine_schedule(1.0, 0.0, 3, 11), [0, 0.1, 0.2], rtol=0, atol=1e-12)
    assert len(cosine_schedule(1.0, 0.0, 0, 5)) == 0


def test_the_learning_rate_grows_with_the_samples_of_a_step() -> None:
    settings = OptimizerSettings(learning_rate=5e-4, min_learning_rate=1e-6, warmup_epochs=2.5)
    found = learning_rates(settings, samples_per_step=1024, steps_per_epoch=4, total_steps=40)
    np.testing.assert_allclose(found, cosine_schedule(2e-3, 1e-6, 40, 10), rtol=0, atol=1e-12)


def test_weight_decay_grows_or_stays() -> None:
    np.testing.assert_allclose(
        weight_decays(OptimizerSettings(), 30), cosine_schedule(0.04, 0.4, 30), rtol=0, atol=1e-12
    )
    constant = weight_decays(OptimizerSettings(weight_decay=0.1, weight_decay_end=None), 30)
    np.testing.assert_allclose(constant, np.full(30, 0.1), rtol=0, atol=1e-15)


def test_the_momentum_of_the_teacher_starts_at_its_setting_and_rises() -> None:
    momenta = teacher_momenta(DinoSettings(teacher_momentum=0.99), 50)
    assert momenta[0] == pytest.approx(0.99, abs=1e-12)
    assert (np.diff(momenta) > 0).all()
    assert momenta[-1] < 1


def test_the_temperature_of_the_teacher_is_a_line_with_both_ends_and_then_constant() -> None:
    settings = DinoSettings(
        warmup_teacher_temperature=0.04, teacher_temperature=0.07, warmup_teacher_temperature_epochs=30
    )
    expected = [0.04 + 0.03 * epoch / 29 for epoch in range(30)] + [0.07] * 10
    found = [teacher_temperature(settings, epoch) for epoch in range(40)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert teacher_temperature(DinoSettings(teacher_temperature=0.05), 0) == 0.05


def test_an_epoch_begins_with_the_step_after_its_predecessors() -> None:
    assert [Progress(step, 3, 9).epoch for step in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
