"""NT-Xent against the paper's equation in a plain double loop, and what SimCLR does with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import random_views, small_method, small_recipe

from chammi75.training.methods.simclr import nt_xent
from chammi75.training.progress import Progress

NOW = Progress(0, 3, 12)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _nt_xent_of_loops(projections: np.ndarray, temperature: float) -> tuple[float, float]:
    rows = projections.reshape(-1, projections.shape[-1]).astype(np.float64)
    samples, total, right = projections.shape[1], 0.0, 0
    for i in range(len(rows)):
        partner = (i + samples) % len(rows)
        similar = {
            k: rows[i] @ rows[k] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[k]))
            for k in range(len(rows))
            if k != i
        }
        total -= math.log(
            math.exp(similar[partner] / temperature) / sum(math.exp(value / temperature) for value in similar.values())
        )
        right += max(similar, key=lambda k: similar[k]) == partner
    return total / len(rows), right / len(rows)


@pytest.mark.parametrize(("samples", "temperature"), [(2, 0.5), (7, 0.1), (16, 0.07)])
def test_the_loss_is_equation_1_of_the_paper(samples: int, temperature: float) -> None:
    generator = np.random.default_rng(samples)
    shared = generator.normal(size=(1, samples, 12))
    projections = (shared + generator.normal(size=(2, samples, 12))).astype(np.float32)
    loss, accuracy = nt_xent(torch.from_numpy(projections), temperature)
    expected, share = _nt_xent_of_loops(projections, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert accuracy.item() == pytest.approx(share, abs=1e-6)


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    projections = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rows: nt_xent(rows, 0.2)[0], (projections.requires_grad_(),))


def test_similarities_are_float32_under_autocast() -> None:
    projections = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    expected, _ = nt_xent(projections, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = nt_xent(projections, 0.1)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_it_learns_to_find_the_other_view(strategy: str) -> None:
    recipe = small_recipe("simclr", strategy)
    method = small_method(recipe)
    optimizer = torch.optim.AdamW(method.trained.parameters(), lr=3e-3)
    views = random_views(recipe, samples=8)
    found = {}
    for _ in range(25):
        optimizer.zero_grad()
        found = method(views, NOW)
        found["loss"].backward()
        optimizer.step()
    assert found["loss"].item() < 0.5 * math.log(15)
    assert found["positive_accuracy"].item() > 0.7
    assert 0 < found["feature_std"].item() < 0.2
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert method.backbones() == {"encoder": method.backbone}


def test_the_two_views_of_a_sample_draw_their_own_channels_by_its_position() -> None:
    recipe = small_recipe("simclr", "mca")
    method, views = small_method(recipe), random_views(recipe, samples=40)
    first, second = (method.channels_of(views, view)[1] for view in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, method.channels_of(views, 0)[1])
    for drawn in (first, second):
        assert not (drawn & ~views.present).any()
        assert drawn.any(dim=1).all()
    four = views.present.sum(dim=1) == 4
    assert set(torch.cat((first, second))[four.repeat(2)].sum(dim=1).tolist()) == {1, 2, 3, 4}
