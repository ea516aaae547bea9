"""Runs that are stopped by whatever stops runs, and go on as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")

from loading_stores import write_store
from training_runs import losses, small_recipe, start, wait_for

from chammi75.errors import StoreError
from chammi75.training.checkpoints import list_checkpoints
from chammi75.training.trainer import train


def quiet(line: str) -> None:
    """Drop a line."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("training") / "store").url


@pytest.fixture(scope="module")
def unbroken(store: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    """The losses of a run of three epochs with eight steps each that nobody stops."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train(small_recipe(store, out), on_line=quiet)
    found = losses(out)
    assert [step for step, _ in found] == list(range(1, 25))
    return found


def test_a_run_in_pieces_has_the_losses_of_an_unbroken_one(
    store: str, unbroken: list[tuple[int, float]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    lines: list[str] = []
    for last in (3, 8, 11, None):  # within an epoch, at the end of one, and between checkpoints
        train(small_recipe(store, out, max_steps=last), on_line=lines.append)
    assert losses(out) == unbroken
    assert any("going on from step 8 of 11" in line for line in lines)


def test_workers_change_nothing_before_or_behind_a_stop(
    store: str, unbroken: list[tuple[int, float]], tmp_path: Path
) -> None:
    for last, workers in ((11, 2), (None, 0)):
        recipe = small_recipe(store, tmp_path / "run", max_steps=last, data={"workers": workers})
        train(recipe, on_line=quiet)
    assert losses(tmp_path / "run") == unbroken


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_process_goes_on_with_the_same_losses(
    store: str, unbroken: list[tuple[int, float]], tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    out = tmp_path / "run"
    recipe = small_recipe(store, out, data={"workers": workers})
    process = start(recipe, tmp_path)
    try:
        before = wait_for(process, "step 10/24")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    if number == signal.SIGTERM:
        assert process.returncode == 0
        assert "stopped by SIGTERM after step" in rest and "start the same command again" in rest
    else:
        assert process.returncode == -signal.SIGKILL
    last = list_checkpoints(out / "checkpoints")[-1].step
    reached = max(step for step, _ in losses(out))
    assert reached < 24, f"the run had ended before the signal came: {before}"
    assert last == reached if number == signal.SIGTERM else reached - 4 <= last <= reached
    lines: list[str] = []
    train(recipe, on_line=lines.append)
    assert f"going on from step {last} of 24" in lines[0]
    assert losses(out) == unbroken


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path / "run", epochs=200, data={"workers": 1})
    process = start(recipe, tmp_path)
    try:
        wait_for(process, "step 2/")
        with pytest.raises(StoreError, match="another process trains in"):
            train(recipe, on_line=quiet)
        process.kill()
        process.wait(60)
    finally:
        process.kill()
    # at once, though the killed process's worker may live on for some seconds
    train(recipe.model_copy(update={"epochs": 1}), on_line=quiet)
    assert losses(tmp_path / "run")[-1][0] >= 2


def test_accumulated_batches_resume_too(store: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"batch_size": 5, "accumulate": 2, "epochs": 2}
    train(small_recipe(store, tmp_path / "whole", **changes), on_line=quiet)
    for last in (2, 7, None):
        train(small_recipe(store, tmp_path / "pieces", max_steps=last, **changes), on_line=quiet)
    assert losses(tmp_path / "pieces") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 2 * (70 // 10)
