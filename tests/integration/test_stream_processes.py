"""The training stream in real processes: stopped and gone on with, killed, and watched for memory."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from loading_stores import write_store
from resuming import Run, all_runs, differences


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("stream") / "store").url


def sample_of_runs() -> list[Run]:
    """A few of the runs of ``tests/bench/resume_matrix.py``: those that start few processes, of each kind some."""
    cheap = [run for run in all_runs() if 0 < run.started_workers <= (24 if run.context == "fork" else 4)]
    inside = [run for run in cheap if 0.4 in run.stops]
    behind = [run for run in cheap if run.stops[0] == 1.0]
    return [
        run
        for runs, context, most in ((inside, "fork", 3), (behind, "fork", 2), (inside, "spawn", 1))
        for run in [run for run in runs if run.context == context][::3][:most]
    ]


SAMPLE = sample_of_runs()


@pytest.mark.parametrize("run", SAMPLE, ids=[str(number) for number in range(len(SAMPLE))])
def test_a_run_that_is_stopped_twice_is_one_that_was_not(url: str, run: Run) -> None:
    assert not differences(url, run)


def test_the_sample_has_both_ways_to_start_workers_and_stops_at_an_end() -> None:
    assert {run.context for run in SAMPLE} == {"fork", "spawn"}
    assert any(1.0 in run.stops for run in SAMPLE)
