"""The training stream in real processes: stopped and gone on with, killed, and watched for memory."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from loading_stores import write_store
from resuming import Run, all_runs, differences


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("stream") / "store").url


SAMPLE = list(all_runs())[5::43]


@pytest.mark.parametrize("run", SAMPLE, ids=[str(number) for number in range(len(SAMPLE))])
def test_a_run_that_is_stopped_twice_is_one_that_was_not(url: str, run: Run) -> None:
    assert not differences(url, run)


def test_the_sample_has_both_ways_to_start_workers_and_stops_at_an_end() -> None:
    assert {run.context for run in SAMPLE} == {"fork", "spawn"}
    assert any(1.0 in run.stops for run in SAMPLE)
