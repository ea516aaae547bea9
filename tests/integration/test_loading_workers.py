"""Torch workers under every start method, over local and remote stores and the published layout; how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_published, write_store
from loopback import s3_server
from short_folder import short_folder
from torch.utils.data import DataLoader

from chammi75 import collate, load_dataset
from chammi75.errors import ReadError, StoreError

CASES = [  # spawned workers import torch anew, which takes seconds each
    (True, "fork", 4),
    (True, "spawn", 4),
    (True, "forkserver", 2),
    (False, "fork", 4),
    (False, "spawn", 2),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_published(tmp_path_factory.mktemp("published"))


def check_epoch(loader: DataLoader[Any], known: Known) -> list[str]:
    """Each sample once, with its own pixels."""
    seen = []
    for batch in loader:
        seen += batch["image_id"]
        for name, pixels in zip(batch["image_id"], batch["image"], strict=True):
            assert np.array_equal(pixels.numpy(), known.pixels[name])
    assert sorted(seen) == sorted(known.ids)
    return seen


@pytest.mark.parametrize(("streaming", "method", "workers"), CASES)
def test_workers_yield_every_sample_once(store: Known, streaming: bool, method: str, workers: int) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    dataset = load_dataset(store.url, streaming=streaming)
    next(iter(dataset))  # the parent has files open when it forks
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=4, num_workers=workers, collate_fn=collate, multiprocessing_context=method
    )
    check_epoch(loader, store)


def test_persistent_workers_shuffle_anew_in_each_epoch(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=0, buffer_size=6)
    loader: DataLoader[Any] = DataLoader(
        stream, batch_size=3, num_workers=2, collate_fn=collate, persistent_workers=True
    )
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append(check_epoch(loader, store))
    assert orders[0] != orders[1]


def test_workers_read_the_published_layout_in_place(published: Known) -> None:
    stream = load_dataset(published.url, streaming=True, select_channels=["nucleus", "protein"])
    check_epoch(DataLoader(stream, batch_size=5, num_workers=4, collate_fn=collate), published)


def test_workers_after_a_split_by_node_share_one_part(store: Known) -> None:
    from datasets.distributed import split_dataset_by_node

    seen: list[str] = []
    for rank in range(3):
        part = split_dataset_by_node(load_dataset(store.url, streaming=True), rank, 3)
        for batch in DataLoader(part, batch_size=4, num_workers=2, collate_fn=collate):
            seen += batch["image_id"]
    assert sorted(seen) == sorted(store.ids)


def test_workers_stream_a_shuffled_part_that_was_mapped(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=1).map(_with_mean)
    means = {}
    for batch in DataLoader(stream, batch_size=4, num_workers=2, collate_fn=collate):
        means.update(zip(batch["image_id"], batch["mean"], strict=True))
    assert means == {name: float(pixels.mean()) for name, pixels in store.pixels.items()}


def _with_mean(sample: dict[str, Any]) -> dict[str, Any]:
    return {"mean": float(np.asarray(sample["image"]).mean())}


def test_mini_loads_filters_and_streams(tmp_path: Path) -> None:
    from chammi75.mini.dataset import build_mini

    build_mini(tmp_path / "sources", tmp_path / "store", size=0.1)
    url = str(tmp_path / "store")
    whole = load_dataset(url, split=None)
    assert len(set(whole["image_id"])) == len(whole) > 3
    types = whole[0]["image"].channels
    found = load_dataset(url, split=None, channel_type=types, streaming=True)
    for sample in found:
        assert set(types) <= set(sample["image"].channels)
        assert np.asarray(sample["image"]).std() > 0


@pytest.mark.parametrize(
    ("streaming", "method"), [(True, "fork"), (True, "spawn"), (True, "forkserver"), (False, "fork")]
)
def test_workers_read_a_bucket_that_their_parent_has_used(store: Known, streaming: bool, method: str) -> None:
    with s3_server() as server:
        from chammi75.files import filesystem_of

        name = f"used-before-{method}-{streaming}".lower()  # all servers of a process are one
        bucket, _ = filesystem_of(f"s3://{name}", server.options)
        bucket.mkdir(name)
        bucket.put(store.url, f"{name}/store", recursive=True)
        dataset = load_dataset(f"s3://{name}/store", streaming=streaming, storage_options=server.options)
        assert np.asarray(next(iter(dataset))["image"]).any()  # an event loop and a thread run in the parent
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=4, num_workers=2, collate_fn=collate, multiprocessing_context=method
        )
        check_epoch(loader, store)


@pytest.mark.parametrize("images", [1, 3])
def test_there_may_be_more_workers_than_images(tmp_path: Path, images: int) -> None:
    known = write_store(tmp_path / "store", images=images)
    stream = load_dataset(known.url, streaming=True)
    loader: DataLoader[Any] = DataLoader(
        stream.shuffle(seed=0), batch_size=2, num_workers=4, collate_fn=collate, persistent_workers=True
    )
    for epoch in range(2):
        stream.set_epoch(epoch)
        check_epoch(loader, known)


def drain(dataset: Any) -> None:
    """All batches of two workers. Their end is not left to the garbage collector: torch takes five seconds then."""
    batches: Any = iter(DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate))
    try:
        list(batches)
    finally:
        batches._shutdown_workers()


def _cut(shard: Path) -> None:
    with open(shard, "r+b") as file:
        file.truncate(shard.stat().st_size // 3)


def _flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    for at in range(2000, len(content), 500):
        content[at] ^= 0xFF
    shard.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip], ids=["vanished", "cut short", "flipped"])
@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "dataset"])
def test_a_worker_s_failure_comes_back_as_ours_and_names_the_shard(
    tmp_path: Path, streaming: bool, damage: Callable[[Path], None]
) -> None:
    known = write_store(tmp_path / "store", images=20)
    dataset = load_dataset(known.url, streaming=streaming)
    damage(tmp_path / "store" / "shards" / "train-00001.arrow")
    with pytest.raises(StoreError, match=r"train-00001\.arrow"):
        drain(dataset)


def test_a_worker_s_failure_on_the_published_layout_names_the_file(tmp_path: Path) -> None:
    known = write_published(tmp_path)
    stream = load_dataset(known.url, streaming=True)
    gone = next(tmp_path.glob("CHAMMI-75_train/*/*-ch0.png"))
    gone.unlink()
    with pytest.raises(ReadError, match=gone.name):
        drain(stream)


SCRIPT = """
import sys
from torch.utils.data import DataLoader
from chammi75 import collate, load_dataset

def means(samples):
    return [float(sample["image"].crop(0, 0, 8, 8).mean()) for sample in samples]

if __name__ == "__main__":
    url, method, batches = sys.argv[1:]
    made = {"tensors": collate, "numbers": means}[batches]
    stream = load_dataset(url, streaming=True).shuffle(seed=0, buffer_size=8).repeat(None)
    loader = DataLoader(
        stream, batch_size=1, num_workers=2, collate_fn=made, persistent_workers=True, multiprocessing_context=method
    )
    batches = iter(loader)
    for number, batch in enumerate(batches):
        if number == 4:
            print(*[worker.pid for worker in batches._workers], flush=True)
"""


def _gone(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )  # its new parent has not looked
    except OSError:
        return True


@contextmanager
def running(
    store: Known, folder: Path, method: str, batches: str = "tensors"
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A training that goes on for ever, and the workers of it; nothing of it may be left at the end."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    scratch = Path(short_folder(folder / "scratch"))
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), store.url, method, batches],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            workers = [int(word) for word in process.stdout.readline().split()]
            assert len(workers) == 2
            yield process, workers
            ends = time.monotonic() + 30  # torch's workers ask every five seconds if their parent lives
            while not all(map(_gone, workers)) and time.monotonic() < ends:
                time.sleep(0.1)
            assert all(map(_gone, workers))
        finally:
            if not all(map(_gone, [process.pid, *workers])):
                os.killpg(process.pid, signal.SIGKILL)
    pids = {process.pid, *workers}
    left = [path for path in Path("/dev/shm").glob("torch_*") if int(path.name.split("_")[1]) in pids]
    assert left == []
    # multiprocessing makes folders pymp-…; torch, when a worker dies, tries with ten empty tmp… if it can open files
    others = [path for path in scratch.iterdir() if not path.name.startswith(("pymp-", "torch"))]
    assert [path for path in others if not (path.name.startswith("tmp") and path.stat().st_size == 0)] == []


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@linux
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ctrl_c_ends_parent_and_workers(store: Known, tmp_path: Path, method: str) -> None:
    with running(store, tmp_path, method) as (process, _):
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and "KeyboardInterrupt" in errors


@linux
def test_a_worker_that_is_killed_ends_the_training_with_a_message(store: Known, tmp_path: Path) -> None:
    # with tensors torch may print less: it has just asked the dead worker for the memory of one
    with running(store, tmp_path, "fork", "numbers") as (process, workers):
        os.kill(workers[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and f"DataLoader worker (pid {workers[1]}) is killed" in errors, errors


@linux
def test_workers_of_a_killed_training_end_and_a_rerun_works(store: Known, tmp_path: Path) -> None:
    with running(store, tmp_path, "fork") as (process, _):
        process.kill()
        process.communicate(timeout=60)
    (tmp_path / "scratch").unlink()
    stream = load_dataset(store.url, streaming=True)
    check_epoch(DataLoader(stream, batch_size=4, num_workers=2, collate_fn=collate), store)


def _private_anonymous_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@linux
def test_memory_of_persistent_workers_is_flat(store: Known) -> None:
    stream = load_dataset(store.url, streaming=True).shuffle(seed=0, buffer_size=10)
    loader: DataLoader[Any] = DataLoader(
        stream.repeat(None), batch_size=5, num_workers=2, collate_fn=collate, multiprocessing_context="fork"
    )
    batches: Any = iter(loader)
    used = []
    for _ in range(12):
        assert len(list(islice(batches, 12))) == 12  # two epochs
        used.append(sum(_private_anonymous_kb(worker.pid) for worker in batches._workers))
    assert used[-1] - used[3] < 8_000, used
