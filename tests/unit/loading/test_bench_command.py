"""``chammi75 bench``: what it prints of stores, copies of the published layout and archives, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loading_stores import Known
from typer.testing import CliRunner

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from chammi75.cli import app
from chammi75.errors import ChammiError
from chammi75.loading import GuidedCrop, TrainingStream
from chammi75.loading.stream.measure import measure_stages

QUICK = ("--seconds", "0.1", "--workers", "0", "--batch-size", "8")


def figures(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["bench", *arguments, *QUICK, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def encoded_bytes(known: Known) -> int:
    return sum(path.stat().st_size for path in (Path(known.url) / "shards").iterdir())


def test_the_figures_of_a_store_are_plausible(store: Known) -> None:
    found = figures(store.url, "--crop", "whole", "--resize", "0")
    planes = sum(len(pixels) for pixels in known_pixels(store))
    assert found["samples"] == planes and found["requests_per_sample"] == 0
    assert 0.5 * encoded_bytes(store) / planes < found["bytes_per_sample"] < 1.5 * encoded_bytes(store) / planes
    assert found["stages_ms"]["resize"] == 0 and min(found["stages_ms"].values()) >= 0
    (rate,) = found["rates"]
    assert rate["workers"] == 0 and rate["samples_per_s"] > 10 and 0 < rate["first_batch_s"] < 60
    smaller = figures(store.url, "--crop", "8", "--resize", "16", "--mode", "mca", "--shuffle", "window:1")
    assert smaller["samples"] == len(store.ids)


def known_pixels(known: Known) -> list[Any]:
    return list(known.pixels.values())


def test_the_published_layout_is_measured_in_place(published: Known) -> None:
    found = figures(published.url, "--crop", "cell")
    assert found["samples"] == sum(map(len, known_pixels(published))) and found["bytes_per_sample"] > 100


def test_tables_say_where_the_time_goes(store: Known) -> None:
    done = CliRunner().invoke(app, ["bench", store.url, *QUICK, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("choose", "read", "decode", "resize", "collate", "workers", "samples/s", "Once through all"):
        assert word in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip()[:2] in ("0 ", "1 ")] == ["0", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/nowhere at all",), "nothing here"),
        (("STORE", "--crop", "big"), "--crop"),
        (("STORE", "--crop", "0"), "--crop"),
        (("STORE", "--mode", "rgb"), "mode"),
        (("STORE", "--shuffle", "window"), "shuffle"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(store: Known, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ChammiError, match=words):
        named = [store.url if word == "STORE" else word for word in arguments]
        CliRunner().invoke(app, ["bench", *named, *QUICK], catch_exceptions=False)


def test_resizing_takes_time_of_its_own_and_stages_add_up(store: Known) -> None:
    stream = TrainingStream(store.url, batch_size=8, crop=GuidedCrop(32), resize=224, samples_per_epoch=10**6)
    stages = measure_stages(stream, 0.2)
    assert stages.resize > stages.decode / 4  # to 49 times as many pixels
    parts = (stages.choose, stages.read, stages.decode, stages.resize, stages.collate)
    assert stages.total == pytest.approx(sum(parts)) and min(parts) >= 0


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="what a process has mapped is told by /proc")
def test_ctrl_c_ends_a_measurement_with_one_line(store: Known) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "chammi75.cli", "bench", store.url, "--seconds", "300", "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while "train-0" not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < end:
            time.sleep(0.1)  # until it reads shards
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said and "Ctrl-C" in said
