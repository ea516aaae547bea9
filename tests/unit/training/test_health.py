"""What stops a training that has gone wrong."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

import torch

from chammi75.errors import ChammiError
from chammi75.training.health import Health, check_finite, check_weights, collapse_advice

UNIFORM, SHARP = math.log(1000), 0.0


def looks(metrics: dict[str, float], steps: range, classes: int | None = 1000) -> list[str]:
    health = Health(width=100, classes=classes, window_steps=300)
    return [words for step in steps if (words := health.look(step, metrics)) is not None]


@pytest.mark.parametrize("entropy", [UNIFORM, SHARP])
def test_features_that_stay_alike_with_a_teacher_that_says_nothing_are_a_collapse(entropy: float) -> None:
    words = looks({"feature_std": 1e-5, "teacher_entropy": entropy}, range(0, 301, 10))
    assert len(words) == 1
    assert "the features have collapsed: for 300 steps" in words[0]


@pytest.mark.parametrize(
    "metrics",
    [
        {
            "feature_std": 0.05,
            "teacher_entropy": UNIFORM,
        },  # a network just made: nothing said, and features that differ
        {"feature_std": 0.05, "teacher_entropy": SHARP},
        {"feature_std": 1e-5, "teacher_entropy": 3.0},
        {"feature_std": math.nan, "teacher_entropy": UNIFORM},  # a batch of one
    ],
)
def test_one_sign_alone_is_no_collapse(metrics: dict[str, float]) -> None:
    assert looks(metrics, range(0, 2000, 10)) == []


def test_a_moment_is_no_collapse() -> None:
    health = Health(width=100, classes=1000, window_steps=300)
    ill, well = {"feature_std": 0.0, "teacher_entropy": UNIFORM}, {"feature_std": 0.09, "teacher_entropy": 3.0}
    for step in range(0, 3000, 10):
        assert health.look(step, well if step % 250 == 0 else ill) is None


def test_without_a_teacher_the_spread_of_features_tells() -> None:
    assert len(looks({"feature_std": 1e-5}, range(0, 301, 10), classes=None)) == 1
    assert looks({"feature_std": 0.05}, range(0, 301, 10), classes=None) == []


def test_a_loss_that_is_no_number_says_what_to_lower() -> None:
    check_finite(5, is_finite=True)
    with pytest.raises(ChammiError, match=r"step 5 .*optimizer\.learning_rate"):
        check_finite(5, is_finite=False)


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = torch.nn.Linear(3, 2)
    check_weights(5, network.parameters())
    with torch.no_grad():
        network.bias[1] = torch.nan
    with pytest.raises(ChammiError, match="no checkpoint of it was written"):
        check_weights(5, network.parameters())


def test_advice_names_settings_that_there_are() -> None:
    from chammi75.training.recipes import load_recipe

    for method in ("dino", "simclr", "mae"):
        words = [word.strip("(),") for word in collapse_advice(method).replace("=false", "").split() if "." in word]
        for key in words:
            value: object = load_recipe("laptop")
            for part in key.split("."):
                value = getattr(value, part)
