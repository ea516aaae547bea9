"""DINO's loss, centre, teacher and last layer, against the paper's formulas in plain float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import random_views, small_method, small_recipe, some_of

from chammi75.training.methods.dino import Dino, cross_entropy_of_pairs, sharpen
from chammi75.training.progress import Progress


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _loss_of_loops(student: np.ndarray, teacher: np.ndarray, centre: np.ndarray, ts: float, tt: float) -> float:
    """All pairs, all samples, one after the other, in float64."""
    total, pairs = 0.0, 0
    for one in range(len(teacher)):
        for other in range(len(student)):
            if one == other:
                continue
            pairs += 1
            for sample in range(student.shape[1]):
                q = _softmax((teacher[one, sample] - centre) / tt)
                p = _softmax(student[other, sample] / ts)
                total -= float((q * np.log(p)).sum()) / student.shape[1]
    return total / pairs


@pytest.mark.parametrize(("teachers", "views"), [(2, 10), (2, 2), (3, 5)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 5.0])
def test_the_loss_is_that_of_all_pairs_of_different_views(teachers: int, views: int, scale: float) -> None:
    generator = np.random.default_rng(views)
    student = generator.normal(size=(views, 3, 40)).astype(np.float32) * scale
    teacher = generator.normal(size=(teachers, 3, 40)).astype(np.float32) * scale
    centre = generator.normal(size=40).astype(np.float32) * 0.1 * scale
    targets = sharpen(torch.from_numpy(teacher), torch.from_numpy(centre), 0.04)
    found = cross_entropy_of_pairs(torch.from_numpy(student), targets, 0.1)
    expected = _loss_of_loops(*(values.astype(np.float64) for values in (student, teacher, centre)), 0.1, 0.04)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = sharpen(torch.randn(2, 2, 6, generator=generator, dtype=torch.float64), torch.zeros(6), 0.07)
    assert torch.autograd.gradcheck(lambda scores: cross_entropy_of_pairs(scores, targets, 0.1), (student,))


def test_no_gradient_reaches_the_teacher() -> None:
    scores = torch.randn(2, 3, 6, requires_grad=True)
    assert not sharpen(scores, torch.zeros(6), 0.04).requires_grad


def test_losses_are_taken_in_float32_where_networks_are_not() -> None:
    scores = torch.randn(2, 3, 6).bfloat16()
    targets = sharpen(scores, torch.zeros(6), 0.04)
    assert targets.dtype == cross_entropy_of_pairs(scores, targets, 0.1).dtype == torch.float32


def _step(method: Dino, optimizer: torch.optim.Optimizer, batches: list, progress: Progress) -> list[float]:
    optimizer.zero_grad()
    losses = []
    for views in batches:
        loss = method(views, progress)["loss"]
        (loss / len(batches)).backward()
        losses.append(loss.item())
    method.after_backward(progress)
    optimizer.step()
    method.after_step(progress)
    return losses


def test_losses_and_centre_of_several_steps_are_those_of_the_raw_scores() -> None:
    recipe = small_recipe("dino", dino={"warmup_teacher_temperature_epochs": 2, "teacher_temperature": 0.07})
    method = small_method(recipe)
    assert isinstance(method, Dino)
    optimizer = torch.optim.SGD(method.trained.parameters(), lr=0.5)
    centre = np.zeros(48)
    for step in range(5):
        progress = Progress(step, 2, 12)
        views = random_views(recipe, step=step)
        with torch.no_grad():
            crops = [(planes, views.channel_ids, views.present) for planes in views.pixels]
            student, teacher = (
                np.stack([network.head(network.backbone(*crop)).double().numpy() for crop in seen])
                for network, seen in ((method.student, crops), (method.teacher, crops[:2]))
            )
        [loss] = _step(method, optimizer, [views], progress)
        temperature = [0.04, 0.07, 0.07][step // 2]
        assert loss == pytest.approx(_loss_of_loops(student, teacher, centre, 0.1, temperature), rel=1e-5)
        centre = 0.9 * centre + 0.1 * teacher.reshape(-1, 48).mean(axis=0)
        np.testing.assert_allclose(method.centre.numpy(), centre, rtol=1e-5, atol=1e-8)
    assert np.abs(centre).max() > 1e-3


def test_accumulated_batches_move_networks_and_centre_as_one_batch_does() -> None:
    recipe = small_recipe("dino")
    whole, parts = small_method(recipe), small_method(recipe)
    one, other = (torch.optim.SGD(method.trained.parameters(), lr=0.5) for method in (whole, parts))
    for step in range(3):
        views, progress = random_views(recipe, step=step), Progress(step, 3, 12)
        [loss] = _step(whole, one, [views], progress)
        halves = _step(parts, other, [some_of(views, slice(0, 3)), some_of(views, slice(3, 6))], progress)
        assert sum(halves) / 2 == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_method_that_is_only_evaluated_does_not_move_its_centre() -> None:
    recipe = small_recipe("dino")
    method = small_method(recipe).eval()
    method(random_views(recipe), Progress(0, 3, 12))
    method.after_step(Progress(0, 3, 12))
    assert not method.centre.any()


def test_the_last_layer_rests_in_the_first_epochs_and_does_not_decay() -> None:
    recipe = small_recipe("dino", dino={"freeze_last_layer_epochs": 1})
    method = small_method(recipe)
    optimizer = torch.optim.AdamW(method.trained.parameters(), lr=0.1, weight_decay=0.5)
    directions = method.student.head.last_layer.weight_v
    start, body = directions.detach().clone(), method.student.head.mlp[0].weight.detach().clone()
    for step in range(3):  # the first epoch
        _step(method, optimizer, [random_views(recipe, step=step)], Progress(step, 3, 12))
    assert torch.equal(directions, start)
    assert not torch.equal(method.student.head.mlp[0].weight, body)
    _step(method, optimizer, [random_views(recipe, step=3)], Progress(3, 3, 12))
    assert not torch.equal(directions, start)
    assert torch.equal(method.student.head.last_layer.weight_g, torch.ones(48, 1))


def test_teacher_and_student_start_equal_and_only_the_student_learns_by_gradients() -> None:
    recipe = small_recipe("dino")
    method = small_method(recipe)
    torch.testing.assert_close(method.teacher.state_dict(), method.student.state_dict(), rtol=0, atol=0)
    method(random_views(recipe), Progress(0, 3, 12))["loss"].backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    for name, parameter in method.student.named_parameters():
        assert (parameter.grad is None) == (name == "head.last_layer.weight_g"), name


def test_only_the_student_has_stochastic_depth() -> None:
    recipe = small_recipe("dino", backbone={"drop_path": 0.9})
    method = small_method(recipe)
    assert method.train().student.training
    assert not any(module.training for module in method.teacher.modules())
    planes = torch.randn(16, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.teacher.backbone(planes), method.teacher.backbone(planes))
        assert not torch.equal(method.student.backbone(planes), method.student.backbone(planes))


def test_features_come_from_the_teacher_and_both_backbones_have_names() -> None:
    method = small_method(small_recipe("dino"))
    assert method.backbone is method.teacher.backbone
    assert method.backbones() == {"teacher": method.teacher.backbone, "student": method.student.backbone}
    assert method.trained is method.student


def test_views_of_one_size_go_through_the_backbone_together_and_all_rows_through_the_head_once() -> None:
    recipe = small_recipe("dino")
    method = small_method(recipe)
    passes: list[tuple[int, ...]] = []
    method.student.backbone.register_forward_pre_hook(lambda _, given: passes.append(tuple(given[0].shape)))
    method.student.head.register_forward_pre_hook(lambda _, given: passes.append(tuple(given[0].shape)))
    method(random_views(recipe, samples=4), Progress(0, 3, 12))
    assert passes == [(8, 1, 32, 32), (12, 1, 16, 16), (20, 64)]


def test_the_student_sees_some_channels_and_the_teacher_all_that_there_are() -> None:
    recipe = small_recipe("dino", "mca")
    method = small_method(recipe)
    seen: dict[str, torch.Tensor] = {}
    for name, network in (("student", method.student), ("teacher", method.teacher)):
        network.backbone.register_forward_pre_hook(
            lambda _, given, name=name: seen.setdefault(name, given[2].clone()) is None or None
        )
    views = random_views(recipe, samples=40)
    method(views, Progress(0, 3, 12))
    assert torch.equal(seen["teacher"], torch.cat([views.present] * 2))
    first, second = seen["student"].chunk(2)
    for drawn in (first, second):
        assert not (drawn & ~views.present).any()
        assert (drawn.sum(dim=1) >= 1).all()
        assert (drawn.sum(dim=1) < views.present.sum(dim=1)).any()
    assert not torch.equal(first, second)  # each view has its own draw


def test_without_sampling_the_student_sees_all_channels() -> None:
    recipe = small_recipe("dino", "mca", channels={"sampling": False})
    method, views = small_method(recipe), random_views(recipe)
    assert torch.equal(method.channels_of(views, 1)[1], views.present)


def test_the_figures_tell_entropy_divergence_and_spread() -> None:
    recipe = small_recipe("dino")
    method = small_method(recipe)
    views = random_views(recipe)
    found = method(views, Progress(0, 3, 12))
    with torch.no_grad():
        features = [method.backbone(planes) for planes in views.pixels[:2]]
        scores = np.stack([method.teacher.head(rows).double().numpy() for rows in features])
    q = np.stack([[_softmax(row / 0.04) for row in view] for view in scores])
    entropy = float(-(q * np.log(q)).sum(axis=-1).mean())
    assert found["teacher_entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert found["student_teacher_kl"].item() == pytest.approx(found["loss"].item() - entropy, abs=1e-5)
    assert found["student_teacher_kl"].item() > 0
    rows = features[0].double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert found["feature_std"].item() == pytest.approx(rows.std(axis=0).mean(), rel=1e-4)
    assert found["centre_norm"].item() == 0
    assert not any(value.requires_grad for name, value in found.items() if name != "loss")
    assert all(value.shape == () for value in found.values())
    alone = method(some_of(views, slice(0, 1)), Progress(0, 3, 12))
    assert math.isnan(alone["feature_std"].item())  # one sample has no spread
