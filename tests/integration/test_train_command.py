"""``chammi75 train``: every shipped recipe trains two steps on a CPU, with a tiny network and a small store."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loading_stores import write_store
from typer.testing import CliRunner

from chammi75.cli import app
from chammi75.training.recipes import load_recipe, recipe_names

for module in ("torch", "timm", "lightning_fabric"):
    pytest.importorskip(module, reason='training needs pip install "chammi75[train]"')

SMALL = (
    "max_steps=2",
    "batch_size=4",
    "data.workers=0",
    "backbone.name=tiny",
    "backbone.patch_size=8",
    "backbone.image_size=32",
    "views.global_views.size=32",
    "views.local_views.size=16",
    "dino.out_dim=64",
    "dino.hidden_dim=32",
    "dino.bottleneck_dim=16",
    "mae.decoder_width=32",
    "mae.decoder_depth=1",
    "mae.decoder_heads=2",
    "simclr.hidden_dim=32",
    "simclr.out_dim=16",
    "devices.accelerator=cpu",
    "devices.devices=1",
    "devices.precision=32-true",
    "devices.threads=1",
    "probe.every_epochs=null",
    "log.every_steps=1",
)
"""What makes any recipe small; what a method has no use for does nothing."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Thirty images of three studies with four, two and one channels, in 16 bits, 8 bits and floats."""
    return write_store(tmp_path_factory.mktemp("stores") / "small").url


def _train(recipe: str, *changes: str) -> str:
    done = CliRunner().invoke(app, ["train", recipe, *changes], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _losses(run: Path) -> dict[int, float]:
    with open(run / "log.csv", newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains(name: str, store: str, tmp_path: Path) -> None:
    changes = (*SMALL, f"store={store}", f"out={tmp_path / 'run'}")
    _train(name, *changes)
    run = tmp_path / "run"
    assert load_recipe(run / "recipe.yaml") == load_recipe(name, changes)
    losses = _losses(run)
    assert set(losses) == {1, 2} and all(math.isfinite(loss) and loss > 0 for loss in losses.values())
    assert list((run / "model").glob("*.safetensors"))


def test_the_same_command_goes_on_with_a_run(store: str, tmp_path: Path) -> None:
    changes = (*SMALL, f"store={store}")
    for steps in (1, 2):
        _train("laptop", *changes, f"out={tmp_path / 'halves'}", f"max_steps={steps}", "epochs=1")
    _train("laptop", *changes, f"out={tmp_path / 'whole'}", "max_steps=2", "epochs=1")
    assert _losses(tmp_path / "halves")[2] == _losses(tmp_path / "whole")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["laptop", "max_step=2"], "max_step=2: there is no key 'max_step'; did you mean 'max_steps'?"),
        (["latop"], "there is no training recipe 'latop': nearest are laptop"),
        (["laptop", "store=nowhere/at/all"], "nowhere/at/all"),
        (["laptop", "devices.precision=16-mixed"], "16-mixed"),
        (["laptop", "batch_size=100000"], "epoch"),
        (["laptop", "data.channels=[gogli]"], "gogli"),
    ],
)
def test_bad_input_is_one_line_and_status_1(words: list[str], said: str, store: str, tmp_path: Path) -> None:
    own = {word.partition("=")[0] for word in words}
    small = [change for change in (*SMALL, f"store={store}") if change.partition("=")[0] not in own]
    done = subprocess.run(
        [sys.executable, "-m", "chammi75.cli", "train", words[0], *small, *words[1:], "out=run"],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("chammi75: ")]
    assert any(said in line for line in lines) and "Traceback" not in done.stderr, done.stderr
