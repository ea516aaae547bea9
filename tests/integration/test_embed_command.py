"""``chammi75 embed``: what it prints and returns, killed in its midst, and under two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="models need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import pyarrow.parquet as pq
import torch
import typer
from loading_stores import write_store
from typer.testing import CliRunner

from chammi75.commands import embed
from chammi75.errors import ChammiError
from chammi75.schemas.model_card import InputSettings, ModelConfig
from chammi75.schemas.training import BackboneSettings
from chammi75.training.backbones import build_backbone
from chammi75.training.embedding import embed_store
from chammi75.training.models import save_model

EMBED = """
import sys, time, torch
torch.set_num_threads(1)
from chammi75.training.embedding import embed_store
model, store, out, pause = sys.argv[1:]
report = embed_store(model, store, out, part_images=3, device="cpu", workers=0,
                     advance=lambda images: time.sleep(float(pause)))
print(report.finished, report.embedded)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "plates").url


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSettings(name="tiny", image_size=32), "boc")
    config = ModelConfig(
        library_version="0",
        title="a test",
        architecture="tiny",
        width=64,
        patch_size=16,
        image_size=32,
        input=InputSettings(dtypes=["uint8", "uint16", "float32"]),
    )
    return str(save_model(tmp_path_factory.mktemp("models") / "model", backbone, config))


@pytest.fixture(scope="module")
def whole(model, store, tmp_path_factory):
    """The file that one process writes without a break."""
    file = tmp_path_factory.mktemp("whole") / "f.parquet"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert embed_store(model, store, file, part_images=3, device="cpu").embedded == 30
    torch.set_num_threads(before)
    return file.read_bytes()


def run(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    embed.register(app)
    return CliRunner().invoke(app, ["embed", *arguments])


def start(model, store, out, pause=0.0, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", EMBED, model, store, str(out), str(pause)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_it_writes_the_file_and_says_so(model, store, tmp_path):
    out = tmp_path / "f.parquet"
    options = ["--out", str(out), "--workers", "0", "--device", "cpu", "--study", "plate1"]
    done = run(model, store, *options)
    assert done.exit_code == 0, done.output
    count = pq.read_metadata(out).num_rows
    assert f"{count} rows of {count} images." in done.output
    again = run(model, store, *options, "--json")
    assert again.exit_code == 0
    said = json.loads(again.stdout[again.stdout.index("{") : again.stdout.rindex("}") + 1])
    assert (said["rows"], said["embedded"], said["finished"]) == (count, 0, True)


def test_wrong_usage_is_told_before_a_model_is_loaded(store, tmp_path):
    for options in (["--crop", "half"], ["--crop-size", "big"], ["--which", "both"], ["--unknown-channels", "x"]):
        done = run("no-model", store, "--out", str(tmp_path / "f.parquet"), *options)
        assert done.exit_code == 2, done.output
    failed = run("no-model", store, "--out", str(tmp_path / "f.parquet"))
    assert isinstance(failed.exception, ChammiError)


def test_killed_in_its_midst_the_same_command_goes_on(model, store, whole, tmp_path):
    out = tmp_path / "f.parquet"
    killed = start(model, store, out, pause=0.5)
    deadline = time.monotonic() + 60
    work = tmp_path / ".f.parquet.work"
    while len(list(work.glob("part-*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    there = len(list(work.glob("part-*")))
    assert 2 <= there < 10
    assert not out.exists()
    assert start(model, store, out).communicate()[0] == f"True {30 - 3 * there}\n"
    assert out.read_bytes() == whole
    assert sorted(file.name for file in Path(tmp_path).iterdir()) == ["f.parquet"]


def test_two_ranks_share_the_work_and_the_last_puts_it_together(model, store, whole, tmp_path):
    out = tmp_path / "f.parquet"
    ranks = [start(model, store, out, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    said = sorted(rank.communicate()[0].split() for rank in ranks)
    assert [embedded for _, embedded in said] == ["15", "15"]
    assert "True" in {finished for finished, _ in said}
    assert out.read_bytes() == whole
