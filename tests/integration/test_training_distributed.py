"""Training by two processes: the losses of one, and no rank that outlives another."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")

from loading_stores import write_store
from training_runs import free_port, losses, small_recipe, start, wait_for

from chammi75.errors import ChammiError
from chammi75.schemas.training import TrainingRecipe
from chammi75.training.trainer import train

FIXED = {"drop_path": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("training") / "store").url


def run_together(recipe: TrainingRecipe, folder: Path) -> list[str]:
    """Train in two processes, to the end; what each has printed."""
    port = free_port()
    processes = []
    for rank in range(2):
        (folder / f"rank {rank}").mkdir(exist_ok=True)
        processes.append(start(recipe, folder / f"rank {rank}", rank, 2, port))
    try:
        outputs = [process.communicate(timeout=250)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(store: str, tmp_path: Path) -> None:
    one = small_recipe(store, tmp_path / "one", epochs=2, batch_size=8, backbone=FIXED)
    train(one, on_line=lambda line: None)
    two = small_recipe(store, tmp_path / "two", epochs=2, batch_size=4, backbone=FIXED, max_steps=11)
    run_together(two, tmp_path)
    outputs = run_together(two.model_copy(update={"max_steps": None}), tmp_path)  # stopped, and gone on with
    assert "going on from step 11 of 16" in outputs[0]
    assert "step 12" in outputs[0] and "step 12" not in outputs[1], "the first rank alone speaks"
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in found] == [step for step, _ in expected] == list(range(1, 17))
    for (_, loss), (step, other) in zip(expected, found, strict=True):
        assert other == pytest.approx(loss, abs=1e-5), step
    # one process with the whole batch may go on with what two began
    longer = two.model_copy(update={"max_steps": None, "epochs": 3, "batch_size": 8})
    train(longer, on_line=lambda line: None)
    with pytest.raises(ChammiError, match="steps of 8 samples"):
        train(longer.model_copy(update={"batch_size": 4, "epochs": 4}), on_line=lambda line: None)


def test_a_rank_that_dies_ends_the_others_soon(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path / "run", epochs=5000, batch_size=4, checkpoints={"every_steps": 10**6})
    port = free_port()
    processes = []
    for rank in range(2):
        (tmp_path / f"rank {rank}").mkdir()
        processes.append(start(recipe, tmp_path / f"rank {rank}", rank, 2, port))
    first, second = processes
    try:
        wait_for(first, "step 3/")
        began = time.monotonic()
        second.send_signal(signal.SIGKILL)
        output, _ = first.communicate(timeout=120)
        passed = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert first.returncode == 1
    assert "error: another rank of this run has ended" in output
    assert passed < 100, "it ends by itself, long before the time that a silent rank is given"
