"""The moving average of parameters, against a plain loop in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

import torch
from torch import nn

from chammi75.training.averaging import update_average


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    network[0].bias.requires_grad_(False)
    return network


def test_several_updates_are_those_of_a_loop_over_every_parameter() -> None:
    average, momenta = _network(0), [0.9, 0.95, 0.996, 1.0, 0.0, 0.3]
    expected = [parameter.detach().double().numpy() for parameter in average.parameters()]
    for seed, momentum in enumerate(momenta):
        model = _network(seed + 1)
        update_average(average, model, momentum)
        for place, parameter in enumerate(model.parameters()):
            expected[place] = momentum * expected[place] + (1 - momentum) * parameter.detach().double().numpy()
        for found, wanted in zip(average.parameters(), expected, strict=True):
            np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=0, atol=1e-6)


def test_parameters_that_do_not_learn_take_part() -> None:
    average, model = _network(0), _network(1)
    before = average[0].bias.clone()
    update_average(average, model, 0.5)
    assert torch.allclose(average[0].bias, (before + model[0].bias) / 2)
    assert not torch.equal(average[0].bias, before)


def test_what_is_equal_stays_exactly_equal() -> None:
    average, model = _network(4), _network(4)
    for _ in range(50):
        update_average(average, model, 0.9963)
    for found, wanted in zip(average.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, wanted)
