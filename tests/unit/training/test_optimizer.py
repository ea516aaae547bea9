"""Groups of parameters, freezing, clipping and AdamW."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import small_method, small_recipe
from torch import nn

from chammi75.errors import RecipeError
from chammi75.schemas.training import OptimizerSettings
from chammi75.training.optimizer import (
    build_optimizer,
    clip_gradients,
    freeze_parameters,
    parameter_groups,
    set_schedules,
)


def _student() -> nn.Module:
    return small_method(small_recipe("dino")).trained


def _names(module: nn.Module, group: dict[str, object]) -> set[str]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}  # type: ignore[attr-defined]


def test_biases_and_norms_do_not_decay_and_all_else_does() -> None:
    student = _student()
    first, second = parameter_groups(student, OptimizerSettings(weight_decay=0.04))
    assert first["weight_decay"] == 0.04
    assert second["weight_decay"] == 0.0
    decaying, others = _names(student, first), _names(student, second)
    assert {"backbone.cls_token", "backbone.pos_embed", "head.last_layer.weight_v", "head.mlp.0.weight"} <= decaying
    assert {"backbone.norm.weight", "backbone.blocks.0.attn.qkv.bias", "head.mlp.4.bias"} <= others
    assert "head.last_layer.weight_g" not in decaying | others  # its length stays 1
    learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert decaying | others == learning
    assert not decaying & others


def test_a_last_layer_that_is_not_normed_learns_its_length() -> None:
    student = small_method(small_recipe("dino", dino={"out_dim": 8, "norm_last_layer": False})).trained
    first, _ = parameter_groups(student, OptimizerSettings())
    assert "head.last_layer.weight_g" in _names(student, first)


def test_each_layer_below_learns_more_slowly() -> None:
    student = _student()
    groups = parameter_groups(student, OptimizerSettings(layer_decay=0.5))
    scales = {name: group["scale"] for group in groups for name in _names(student, group)}
    assert scales["head.mlp.0.weight"] == scales["backbone.norm.weight"] == 1
    assert scales["backbone.blocks.1.mlp.fc1.weight"] == scales["backbone.blocks.1.norm1.bias"] == 0.5
    assert scales["backbone.blocks.0.attn.qkv.weight"] == 0.25
    assert scales["backbone.pos_embed"] == scales["backbone.patch_embed.proj.bias"] == 0.125


def test_schedules_reach_each_group_by_its_scale_and_decay_only_those_that_decay() -> None:
    student = _student()
    optimizer = build_optimizer(student, OptimizerSettings(layer_decay=0.5, betas=(0.9, 0.95)))
    set_schedules(optimizer, learning_rate=0.01, weight_decay=0.3)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.01 * group["scale"]
        assert group["weight_decay"] == (0.3 if group["decays"] else 0.0)
        assert group["betas"] == (0.9, 0.95)
        assert group["eps"] == 1e-8


def test_frozen_prefixes_match_whole_parts_of_names() -> None:
    network = nn.ModuleDict({"backbone": nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(11))})})
    freeze_parameters(network, ["backbone.blocks.1", "backbone.blocks.3.bias"])
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert still == {"backbone.blocks.1.weight", "backbone.blocks.1.bias", "backbone.blocks.3.bias"}


def test_frozen_parameters_stay_as_they_are_and_the_others_learn() -> None:
    from method_batches import random_views

    from chammi75.training.progress import Progress

    recipe = small_recipe("simclr", optimizer={"freeze": ["backbone.patch_embed", "backbone.blocks.0"]})
    method = small_method(recipe)
    before = {name: parameter.detach().clone() for name, parameter in method.trained.named_parameters()}
    optimizer = build_optimizer(method.trained, recipe.optimizer)
    method(random_views(recipe), Progress(0, 3, 12))["loss"].backward()
    optimizer.step()
    for name, parameter in method.trained.named_parameters():
        frozen = name.startswith(("backbone.patch_embed.", "backbone.blocks.0."))
        assert torch.equal(parameter, before[name]) == frozen, name


def test_a_prefix_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no parameter starts with 'backbone.patch_embd'.*'backbone.patch_embed'"):
        freeze_parameters(_student(), ["backbone.patch_embd"])
    with pytest.raises(RecipeError, match="names begin with backbone, head"):
        freeze_parameters(_student(), ["zzzzz"])
    with pytest.raises(RecipeError, match="no parameter starts with ''"):
        freeze_parameters(_student(), [""])


def test_freezing_everything_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no parameter that learns"):
        freeze_parameters(_student(), ["backbone", "head"])


def _with_gradients() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2), (1,))]
    for parameter, length in zip(parameters[:3], (0.1, 4.0, 30.0), strict=True):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient / gradient.norm() * length
    return parameters


def test_each_gradient_is_shortened_by_its_own_norm() -> None:
    parameters = _with_gradients()
    before = [parameter.grad.double().numpy().copy() for parameter in parameters[:3]]
    total = clip_gradients(parameters, 3.0, "parameter")
    assert total.item() == pytest.approx(math.sqrt(0.1**2 + 4**2 + 30**2), rel=1e-6)
    for parameter, gradient in zip(parameters, before, strict=False):
        factor = 3.0 / (math.sqrt((gradient**2).sum()) + 1e-6)
        np.testing.assert_allclose(parameter.grad.numpy(), gradient * min(factor, 1), rtol=1e-6)
    assert parameters[3].grad is None


def test_all_gradients_are_shortened_by_the_norm_of_all() -> None:
    ours, theirs = _with_gradients(), _with_gradients()
    total = clip_gradients(ours, 3.0, "global")
    expected = torch.nn.utils.clip_grad_norm_(theirs, 3.0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=0)


def test_without_a_limit_gradients_stay_and_their_norm_is_still_told() -> None:
    parameters = _with_gradients()
    before = [parameter.grad.clone() for parameter in parameters[:3]]
    assert clip_gradients(parameters, None, "parameter").item() == pytest.approx(30.2655, rel=1e-4)
    for parameter, gradient in zip(parameters, before, strict=False):
        assert torch.equal(parameter.grad, gradient)
    assert clip_gradients([parameters[3]], 1.0, "global").item() == 0
