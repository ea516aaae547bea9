"""A training stream under a training loop: ranks that wait for one another, idle workers, memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from loading_stores import write_store
from memory import growth, memory
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from chammi75.loading import GuidedCrop, TrainingStream

TESTS = Path(__file__).resolve().parents[1]

RANK = """
import datetime, json, os, sys
import torch
from torch.utils.data import DataLoader
from chammi75.loading import GuidedCrop, TrainingStream

def train(url, meeting):
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=int(os.environ.pop("RANK")), world_size=int(os.environ.pop("WORLD_SIZE")),
        timeout=datetime.timedelta(seconds=60),
    )
    seen = {}
    for last in ("pad", "drop"):
        stream = TrainingStream(url, batch_size=4, last=last, crop=GuidedCrop(20), resize=16)
        seen[last] = []
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in DataLoader(stream, batch_size=None, num_workers=1):
                torch.distributed.all_reduce(batch["pixels"].mean())  # waits for the other rank, as gradients do
                seen[last] += batch["position"].tolist()
        seen[last + " state"] = stream.state_dict(after=batch)
    print(json.dumps(seen))
    torch.distributed.destroy_process_group()

if __name__ == "__main__":
    train(*sys.argv[1:])
"""

INDEX = """
import pickle, sys
from pathlib import Path
import numpy as np
from memory import memory
from chammi75.loading import GuidedCrop, TrainingStream

small = TrainingStream(sys.argv[1], batch_size=64, crop=None)
small.reader().choose(0, np.arange(64))
idle = memory().own
for path in sys.argv[2:]:
    stream = pickle.loads(Path(path).read_bytes())
    reader = stream.reader()
    for position in range(0, stream.samples, 64 * 97):
        reader.choose(0, np.arange(position, position + 64))
    print(memory().own - idle)
    del stream, reader
"""

needs_memory = pytest.mark.skipif(memory() is None, reason="this system does not say how much memory a process has")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("stream") / "store").url


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in tests/bench can be imported."""
    monkeypatch.syspath_prepend(str(TESTS / "bench"))


def test_ranks_that_wait_for_one_another_come_to_the_end_together(url: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(RANK)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), url, f"file://{tmp_path / 'meeting'}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    try:
        first, second = (json.loads(rank.communicate(timeout=120)[0]) for rank in ranks)
    finally:
        for rank in ranks:
            rank.kill()
    planes = TrainingStream(url).samples
    assert planes % 8, "the last batches must not come out even"
    for last, length in (("pad", -(-planes // 8) * 8), ("drop", planes // 8 * 8)):
        assert len(first[last]) == len(second[last]) == length
        assert sorted(first[last] + second[last]) == sorted([*range(length), *range(length)])
        assert first[f"{last} state"] == second[f"{last} state"]


class Tagged(IterableDataset):  # type: ignore[type-arg]
    """A stream whose batches say which worker made them."""

    def __init__(self, stream: TrainingStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        assert info is not None
        for batch in self._stream:
            yield {**batch, "worker": info.id}


def test_more_workers_than_shards_all_have_work(tmp_path: Path) -> None:
    one = write_store(tmp_path / "one shard", images=7)
    stream = TrainingStream(one.url, batch_size=2, crop=GuidedCrop(20), samples_per_epoch=60)
    loader = DataLoader(Tagged(stream), batch_size=None, num_workers=3)
    workers = [batch["worker"] for batch in loader]
    assert {worker: workers.count(worker) for worker in workers} == {0: 10, 1: 10, 2: 10}


@needs_memory
def test_a_worker_holds_no_copy_of_the_index(url: str, tmp_path: Path, bench: None) -> None:
    from synthetic_index import make

    make(tmp_path / "large", 200_000)
    paths = []
    for options in ({}, {"selection": {"organism": "Homo sapiens"}}, {"weighting": "log"}):
        stream = TrainingStream(str(tmp_path / "large"), batch_size=64, crop=None, **options)  # type: ignore[arg-type]
        content = pickle.dumps(stream)
        assert len(content) < 100_000
        paths.append(tmp_path / f"stream {len(paths)}")
        paths[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", INDEX, url, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    grown = [float(line) for line in done.stdout.split()]
    index = (tmp_path / "large" / "index.arrow").stat().st_size / 1e6
    assert len(grown) == 3 and max(grown) < 8 < index / 3, f"{grown} MB, and the index has {index}"


@needs_memory
def test_memory_is_flat_from_epoch_to_epoch(tmp_path: Path, bench: None) -> None:
    from soak import soak

    known = write_store(tmp_path / "store", images=120)
    series, samples = soak(known.url, minutes=0.1, workers=2, every_s=0.1, readings=15, quiet=True)
    assert samples > 1000
    assert growth(series) < 5, series  # MB, of three processes; one batch has more than one
