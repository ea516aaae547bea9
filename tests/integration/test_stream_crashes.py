"""A training stream whose processes are interrupted or killed: all of them end, and nothing of theirs is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from loading_stores import write_store
from short_folder import short_folder
from torch.utils.data import DataLoader

from chammi75.loading import GuidedCrop, TrainingStream

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are told by /proc")

TRAINING = """
import sys
from torch.utils.data import DataLoader
from chammi75.loading import GuidedCrop, TrainingStream

def train(url, context, workers, epochs):
    stream = TrainingStream(url, batch_size=4, crop=GuidedCrop(20), resize=16)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, persistent_workers=workers > 0,
                        multiprocessing_context=context if workers else None)
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        for batch in loader:
            pass
        print("epoch", epoch, flush=True)

if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("stream") / "store").url


@contextmanager
def training(
    url: str, folder: Path, context: str, workers: int, epochs: int = 10**6
) -> Iterator[subprocess.Popen[str]]:
    """A script that trains, in a session of its own, after its first epoch; its temporary files are in ``folder``."""
    script = folder / "train.py"
    script.write_text(TRAINING)
    temporary = short_folder(folder / "temporary")
    process = subprocess.Popen(
        [sys.executable, str(script), url, context, str(workers), str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": temporary},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "epoch 0\n", process.communicate()[1]
        yield process
    finally:
        for member in session(process.pid):
            os.kill(member, signal.SIGKILL)
        process.communicate()


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def left_in_shared_memory(processes: list[int]) -> list[str]:
    """Names in /dev/shm that say that they are of these processes."""
    folder = Path("/dev/shm")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [name for name in names if {*map(str, processes)} & {*name.replace("-", "_").split("_")}]


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_ctrl_c_ends_all_processes_within_seconds_and_leaves_nothing(
    url: str, tmp_path: Path, context: str, workers: int
) -> None:
    with training(url, tmp_path, context, workers) as process:
        processes = session(process.pid)
        assert len(processes) >= 1 + workers
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in said
        assert within(10, lambda: not session(process.pid))
        assert not left_in_shared_memory(processes)
        assert not list((tmp_path / "temporary").iterdir())


def test_workers_of_a_process_that_was_killed_end_by_themselves(url: str, tmp_path: Path) -> None:
    with training(url, tmp_path, "fork", 2) as process:
        processes = session(process.pid)
        assert len(processes) == 3
        process.kill()
        assert within(90, lambda: not session(process.pid))
        assert not left_in_shared_memory(processes)
        assert not list((tmp_path / "temporary").iterdir())


def test_a_training_that_is_done_ends(url: str, tmp_path: Path) -> None:
    with training(url, tmp_path, "fork", 2, epochs=2) as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert not session(process.pid)


def test_a_worker_that_was_killed_is_an_error_at_once(url: str) -> None:
    stream = TrainingStream(url, batch_size=4, crop=GuidedCrop(20), samples_per_epoch=10**6)
    batches = iter(DataLoader(stream, batch_size=None, num_workers=2))
    next(batches)
    os.kill(batches._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="worker"):
        for _ in range(10**5):
            next(batches)
    del batches
    assert len(next(iter(DataLoader(stream, batch_size=None, num_workers=2)))["position"]) == 4


def test_workers_may_be_forked_when_this_process_has_used_threads_and_a_filesystem_of_its_own(
    url: str, tmp_path: Path
) -> None:
    import fsspec

    write_store("memory://crashes/store")
    with fsspec.open("memory://crashes/store/manifest.json") as file:
        assert file.read()
    remote = TrainingStream("memory://crashes/store", batch_size=4, crop=GuidedCrop(20), cache_dir=tmp_path)
    local = TrainingStream(url, batch_size=4, crop=GuidedCrop(20), threads=2, prefetch=3)
    for stream in (remote, local):
        list(stream)
        stream.set_epoch(1)
        found: list[int] = []

        def read(stream: TrainingStream = stream, found: list[int] = found) -> None:
            for batch in DataLoader(stream, batch_size=None, num_workers=2, timeout=30):
                found.extend(batch["position"].tolist())

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        reading.join(60)
        assert not reading.is_alive(), "the workers hang"
        assert sorted(found)[: stream.samples] == list(range(stream.samples))
