"""The methods in two processes give what one process gives for the whole batch; compiled, and in mixed precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import random_views, small_method, small_recipe, some_of
from short_folder import short_folder
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from chammi75.training.progress import Progress

RANKS, STEPS = 2, 2
RUNS = [(method, strategy) for method in ("dino", "mae", "simclr") for strategy in ("boc", "mca")]


def _train(name: str, strategy: str, rank: int, ranks: int) -> dict[str, Any]:
    """A few steps on this rank's part of each batch: losses, the first gradients, and what became of the weights."""
    torch.set_num_threads(1)
    recipe = small_recipe(name, strategy, dino={"freeze_last_layer_epochs": 0})
    method = small_method(recipe)
    wrapped = DistributedDataParallel(method) if ranks > 1 else method
    optimizer = torch.optim.SGD(method.trained.parameters(), lr=0.1)
    losses, gradients = [], {}
    for step in range(STEPS):
        whole, progress = random_views(recipe, samples=8, step=step), Progress(step, 2, 12)
        optimizer.zero_grad()
        loss = wrapped(some_of(whole, slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)), progress)["loss"]
        loss.backward()
        if step == 0:
            gradients = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
        method.after_backward(progress)
        optimizer.step()
        method.after_step(progress)
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), "gradients": gradients, "state": method.state_dict()}


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    try:
        found = {f"{name} {strategy}": _train(name, strategy, rank, RANKS) for name, strategy in RUNS}
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, for all methods."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (short_folder(folder / "link"),), nprocs=RANKS)
    folder = folder / "link"
    return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize(("name", "strategy"), RUNS)
def test_two_processes_give_losses_gradients_and_weights_of_one(
    of_two: list[dict[str, Any]], name: str, strategy: str
) -> None:
    one = _train(name, strategy, 0, 1)
    first, second = (found[f"{name} {strategy}"] for found in of_two)
    assert not torch.equal(first["losses"], second["losses"])  # each has its own samples
    torch.testing.assert_close((first["losses"] + second["losses"]) / 2, one["losses"], rtol=1e-5, atol=0)
    for found in (first, second):
        assert found["gradients"].keys() == one["gradients"].keys()
        torch.testing.assert_close(found["gradients"], one["gradients"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["state"], one["state"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "strategy"), RUNS[::2] + RUNS[3:4])
def test_compiled_networks_give_the_same_losses_under_the_same_names(name: str, strategy: str) -> None:
    torch.set_num_threads(1)
    recipe = small_recipe(name, strategy)
    plain, compiled = small_method(recipe), small_method(recipe)
    compiled.compile_networks(backend="eager", fullgraph=True)
    views, progress = random_views(recipe), Progress(0, 3, 12)
    expected, found = plain(views, progress)["loss"], compiled(views, progress)["loss"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for one, other in zip(plain.trained.parameters(), compiled.trained.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "strategy"), RUNS)
def test_under_bfloat16_losses_are_float32_and_near_those_of_float32(name: str, strategy: str) -> None:
    torch.set_num_threads(1)
    recipe = small_recipe(name, strategy)
    method, views, progress = small_method(recipe), random_views(recipe), Progress(0, 3, 12)
    with torch.no_grad():
        expected = method(views, progress)["loss"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = method(views, progress)["loss"]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.05)
