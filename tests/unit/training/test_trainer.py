"""The trainer on the CPU: what a run leaves, what it refuses, and what stops it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")

import torch
from loading_stores import write_store
from training_runs import losses, small_recipe

from chammi75.errors import ChammiError, RecipeError, StoreError
from chammi75.training.checkpoints import list_checkpoints, read_checkpoint
from chammi75.training.data import channel_lookup, make_stream, steps_per_epoch
from chammi75.training.devices import device_errors, make_fabric
from chammi75.training.logs import CsvLog, read_log
from chammi75.training.methods import Method
from chammi75.training.recipes import load_recipe
from chammi75.training.trainer import train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("training") / "store").url


def quiet(line: str) -> None:
    """Drop a line."""


SIMCLR: dict[str, Any] = {"method": "simclr", "views": {"local_views": {"count": 0, "size": 8, "scale": (0.1, 0.4)}}}
MAE: dict[str, Any] = {
    "method": "mae",
    "views": {**SIMCLR["views"], "global_views": {"count": 1, "size": 16, "scale": (0.4, 1.0)}},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
}


@pytest.mark.parametrize("strategy", ["boc", "mca"])
@pytest.mark.parametrize("method", [{}, SIMCLR, MAE], ids=["dino", "simclr", "mae"])
def test_every_method_trains_with_every_strategy(
    store: str, tmp_path: Path, method: dict[str, Any], strategy: str
) -> None:
    recipe = small_recipe(store, tmp_path / "run", strategy=strategy, max_steps=3, **method)
    folder = train(recipe, on_line=quiet)
    found = losses(folder)
    assert [step for step, _ in found] == [1, 2, 3]
    assert all(loss > 0 for _, loss in found)
    assert load_recipe(folder / "recipe.yaml") == recipe
    assert (folder / "model" / "model.safetensors").is_file()


def test_an_epoch_ends_with_a_probe_and_a_model(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(
        store,
        tmp_path / "run",
        epochs=2,
        probe={"every_epochs": 2, "label": "experiment.study", "neighbours": 3},
        checkpoints={"every_steps": 5, "keep": 2, "models_every_epochs": 1},
    )
    lines: list[str] = []
    folder = train(recipe, on_line=lines.append)
    probes = [row for row in read_log(folder / "log.csv") if "probe_accuracy" in row]
    assert [row["step"] for row in probes] == [16.0]
    assert any("kNN probe of experiment.study" in line for line in lines)
    assert [checkpoint.step for checkpoint in list_checkpoints(folder / "checkpoints")] == [15, 16]
    assert all("samples/s  waiting for data" in line and "left" in line for line in lines if line.startswith("step 1/"))


def test_a_probe_changes_no_loss(store: str, tmp_path: Path) -> None:
    probed = {"every_epochs": 1, "label": "experiment.study"}
    for name, changes in (("with", {"probe": probed}), ("without", {})):
        train(small_recipe(store, tmp_path / name, epochs=2, **SIMCLR, **changes), on_line=quiet)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path / "run", max_steps=8)
    folder = train(recipe, on_line=quiet)
    before = losses(folder)
    last = list_checkpoints(folder / "checkpoints")[-1].path
    last.write_bytes(last.read_bytes()[:-1])
    lines: list[str] = []
    train(recipe, on_line=lines.append)
    assert "is damaged" in lines[0] and "going on from step 4 of 8" in lines[1]
    assert losses(folder) == before


def test_a_run_of_another_recipe_is_refused_and_left_alone(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path / "run", max_steps=2)
    train(recipe, on_line=quiet)
    other = recipe.model_copy(update={"seed": 1, "optimizer": recipe.optimizer.model_copy(update={"clip": 1.0})})
    with pytest.raises(RecipeError, match=r"optimizer\.clip was 3\.0 and is 1\.0; seed was 0 and is 1"):
        train(other, on_line=quiet)
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    train(recipe.model_copy(update={"max_steps": 3, "title": "another"}), on_line=quiet)
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2, 3]


def test_a_folder_with_other_files_is_no_run(store: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(StoreError, match="holds files and no run"):
        train(small_recipe(store, tmp_path), on_line=quiet)


def test_a_folder_that_cannot_be_written_is_told(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chammi75.training.run_folder.save_recipe", full)
    with pytest.raises(StoreError, match=r"recipe\.yaml cannot be written \(No space left"):
        train(small_recipe(store, tmp_path / "run"), on_line=quiet)


def test_images_of_a_probe_that_the_store_lacks_are_told_with_what_to_set(store: str, tmp_path: Path) -> None:
    probe = {"every_epochs": 1, "label": "experiment.study", "selection": {"study": "elsewhere"}}
    with pytest.raises(RecipeError, match=r"probe\.selection: .*elsewhere.*probe\.every_epochs=null"):
        train(small_recipe(store, tmp_path / "run", probe=probe), on_line=quiet)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", 0)
    log.write(1, {"loss": 1.0})
    log._file.close()
    log._file = open("/dev/full", "a")  # noqa: SIM115 - the log closes it
    with pytest.raises(ChammiError, match=r"log\.csv cannot be written \(No space left"):
        log.write(2, {"loss": 1.0})
    log.close()  # says nothing of its own: the error before is the one to be seen


def test_networks_that_cannot_be_compiled_are_told(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path, devices={"compile": True})
    with (
        pytest.raises(ChammiError, match=r"devices\.compile=false \(No working C\+\+ compiler"),
        device_errors(recipe),
    ):
        raise torch._dynamo.exc.TorchDynamoException("No working C++ compiler\nand more")


def test_a_batch_larger_than_the_epoch_names_the_numbers(store: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"a step takes 128 samples \(64 x 1 rank x accumulate 2\).* 70 planes"):
        train(small_recipe(store, tmp_path / "run", batch_size=64, accumulate=2), on_line=quiet)


def test_a_channel_that_no_chosen_image_has_is_an_error(store: str, tmp_path: Path) -> None:
    data = {"channels": ["protein"], "selection": {"study": "plate2"}}
    with pytest.raises(RecipeError, match=r"no chosen image of .* has a channel 'protein'.*they have er, nucleus"):
        train(small_recipe(store, tmp_path / "run", data=data), on_line=quiet)


def test_channels_of_the_vocabulary_become_those_of_the_table() -> None:
    from chammi75.schemas.vocabulary import vocabulary

    names = [term.name for term in vocabulary("channel_types").terms]
    lookup = channel_lookup([names[3], names[1]])
    assert lookup[torch.tensor([1, 3, 0, -1])].tolist() == [1, 0, 2, 2]


def test_samples_that_fill_no_step_are_left_out(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path, batch_size=8, accumulate=2)
    assert [steps_per_epoch(make_stream(recipe, 0, ranks), recipe) for ranks in (1, 2, 4)] == [4, 2, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"accelerator": "cuda"}, "cuda is asked for, and PyTorch .*devices.accelerator=auto"),
        ({"precision": "16-mixed"}, "16-mixed needs a CUDA device.*bf16-mixed"),
        ({"parallel": "fsdp"}, "fsdp needs CUDA devices"),
        ({"nodes": 4}, "4 nodes need a launcher"),
    ],
)
def test_devices_that_are_not_there_are_said(store: str, tmp_path: Path, devices: dict[str, Any], words: str) -> None:
    recipe = small_recipe(store, tmp_path, devices=devices)
    with pytest.raises(RecipeError, match=words):
        make_fabric(recipe.devices, recipe.optimizer)


def test_out_of_memory_says_what_to_lower(store: str, tmp_path: Path) -> None:
    recipe = small_recipe(store, tmp_path)
    with (
        pytest.raises(ChammiError, match=r"out of memory: lower batch_size \(now 8\) .*bf16-mixed"),
        device_errors(recipe),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="something else"), device_errors(recipe):
        raise RuntimeError("something else")


def test_a_loss_that_is_no_number_stops_the_run_behind_its_last_good_checkpoint(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Method.__call__

    def spoilt(method: Method, views: Any, progress: Any) -> Any:
        measured = forward(method, views, progress)
        return {**measured, "loss": measured["loss"] * torch.nan} if progress.step == 5 else measured

    monkeypatch.setattr(Method, "__call__", spoilt)
    recipe = small_recipe(store, tmp_path / "run", log={"every_steps": 3})
    with pytest.raises(ChammiError, match="loss is NaN or infinite at step 6"):
        train(recipe, on_line=quiet)
    (last,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert last.step == 4
    assert all(bool(value.isfinite().all()) for value in read_checkpoint(last)["method"].values())


def test_a_collapse_stops_the_run_unless_it_was_told_to_go_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chammi75.training.trainer.Health.look", lambda *_: "the features have collapsed")
    with pytest.raises(ChammiError, match=r"step 1: the features have collapsed; lower optimizer\.learning_rate"):
        train(small_recipe(store, tmp_path / "one"), on_line=quiet)
    lines: list[str] = []
    train(small_recipe(store, tmp_path / "two", max_steps=2, log={"stop_on_collapse": False}), on_line=lines.append)
    assert sum("the features have collapsed" in line for line in lines) == 2


def test_accumulated_batches_are_one_large_batch(store: str, tmp_path: Path) -> None:
    fixed = {"drop_path": 0.0}
    for name, batch_size, accumulate in (("one", 8, 1), ("two", 4, 2)):
        recipe = small_recipe(store, tmp_path / name, batch_size=batch_size, accumulate=accumulate, backbone=fixed)
        train(recipe.model_copy(update={"max_steps": 10}), on_line=quiet)
    for (_, loss), (step, other) in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert other == pytest.approx(loss, abs=1e-5), step


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="this system does not say how much memory there is")
def test_memory_does_not_grow_with_the_steps(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []

    def measure(line: str) -> None:
        if line.startswith("step "):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    recipe = small_recipe(
        store, tmp_path / "run", epochs=50, max_steps=300, checkpoints={"every_steps": 50}, log={"every_steps": 10}
    )
    train(recipe, on_line=measure)
    assert len(sizes) == 30
    assert max(sizes[20:]) - max(sizes[10:20]) < 5, sizes  # MB; a network's weights and gradients are some
