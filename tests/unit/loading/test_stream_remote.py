"""The training stream over a network: the same samples, few bytes, and what goes wrong on the way."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from loading_stores import Known, write_store

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from slow_server import Fault, SlowServer, slow_server
from torch.utils.data import DataLoader

from chammi75.errors import ChammiError, StoreError, UnreachableError
from chammi75.loading import GuidedCrop, TrainingStream
from chammi75.store.node_cache import CacheError
from chammi75.transfer import Patience

OPTIONS: dict[str, Any] = {"seed": 4, "batch_size": 8, "crop": GuidedCrop(24), "resize": 20}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SlowServer, Known]]:
    folder = tmp_path_factory.mktemp("served")
    known = write_store(folder / "bucket" / "store")
    with slow_server(folder, latency_s=0.001) as server:
        yield server, known


@pytest.fixture
def server(served: tuple[SlowServer, Known]) -> SlowServer:
    served[0].reset()
    return served[0]


def remote(server: SlowServer, **options: Any) -> TrainingStream:
    return TrainingStream("s3://bucket/store", storage_options=server.s3_options, **{**OPTIONS, **options})


def fingerprints(batches: Any) -> list[Any]:
    return [
        (batch["position"].tolist(), batch["image_id"], batch["window"].tolist(), batch["pixels"].numpy().tobytes())
        for batch in batches
    ]


@pytest.mark.parametrize("shuffle", ["global", "window:2"])
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_remote_store_gives_what_a_local_one_gives(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path, shuffle: str, keeps: bool, workers: int
) -> None:
    stream = remote(server, shuffle=shuffle, cache_dir=tmp_path if keeps else False)
    local = TrainingStream(served[1].url, shuffle=shuffle, **OPTIONS)
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        local.set_epoch(epoch)
        found = DataLoader(stream, batch_size=None, num_workers=workers)
        assert fingerprints(found) == fingerprints(local)


def test_shards_of_windows_are_asked_for_once(server: SlowServer, tmp_path: Path) -> None:
    stream = remote(server, shuffle="window:2", cache_dir=tmp_path)
    shards = 5
    for epoch in range(3):
        stream.set_epoch(epoch)
        list(stream)
    whole = sum(path.stat().st_size for path in Path(tmp_path).rglob("*") if path.is_file())
    asked = [request for request in server.seen() if "/shards/" in request.path and request.method == "GET"]
    assert len({request.path for request in asked}) == shards
    assert server.counts().body_bytes < 1.3 * whole
    before = server.counts().requests
    again = remote(server, shuffle="window:2", cache_dir=tmp_path)
    list(again)
    assert not [r for r in server.seen()[before:] if "/shards/" in r.path and r.method == "GET"]


def test_nothing_is_kept_where_nothing_is_to_be(server: SlowServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CHAMMI75_CACHE", str(tmp_path / "cache"))
    list(remote(server, shuffle="window:2", cache_dir=False))
    assert not (tmp_path / "cache").exists()


def test_only_the_bytes_of_chosen_channels_are_fetched(server: SlowServer, tmp_path: Path) -> None:
    list(remote(server, crop=None, resize=None, cache_dir=tmp_path))
    everything = server.counts().body_bytes
    server.reset()
    chosen = {"organism": "Homo sapiens", "select_channels": ["er"]}
    samples = list(remote(server, selection=chosen, crop=None, resize=None, cache_dir=tmp_path))
    assert {word for sample in samples for word in sample["channel_type"]} == {"er"}
    assert server.counts().body_bytes < 0.3 * everything


def test_a_cache_too_small_is_refused_before_anything_is_read_with_the_numbers(
    server: SlowServer, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"two windows of 3 shards.*bytes"):
        remote(server, shuffle="window:3", cache_dir=tmp_path, cache_limit="100kB")
    with pytest.raises(ChammiError, match="cache_limit"):
        remote(server, shuffle="window:3", cache_dir=tmp_path, cache_limit="much")


def test_a_cached_shard_that_was_garbled_is_fetched_again(server: SlowServer, tmp_path: Path) -> None:
    stream = remote(server, shuffle="window:2", cache_dir=tmp_path)
    first = fingerprints(stream)
    for path in Path(tmp_path).rglob("*.arrow"):
        if path.stat().st_size > 20_000:
            stat = path.stat()
            content = bytearray(path.read_bytes())
            for at in range(3000, len(content) - 3000, 500):
                content[at] ^= 0xFF
            with path.open("r+b") as file:
                file.write(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = remote(server, shuffle="window:2", cache_dir=tmp_path)
    assert fingerprints(again) == first


def test_a_busy_server_and_broken_connections_are_borne(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path
) -> None:
    wanted = fingerprints(TrainingStream(served[1].url, **OPTIONS))
    stream = remote(server, cache_dir=tmp_path)
    server.fail(
        Fault("status", path="/shards/", status=503, times=3),
        Fault("reset", path="/shards/", after_bytes=10, times=3),
    )
    assert fingerprints(stream) == wanted


def test_a_shard_that_is_gone_is_named_or_skipped(server: SlowServer, tmp_path: Path) -> None:
    gone = Fault("status", path="train-00002", status=404, times=None)
    stream = remote(server, cache_dir=tmp_path)
    server.fail(gone)
    with pytest.raises(StoreError, match="train-00002"):
        list(stream)
    skipping = remote(server, cache_dir=tmp_path, on_error="skip")
    with pytest.warns(UserWarning, match="train-00002"):
        assert sum(len(batch["position"]) for batch in skipping) >= skipping.samples
    assert skipping.replaced


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    quick = partial(Patience, stall_s=0.2, deadline_s=1.0, first_wait_s=0.01, longest_wait_s=0.05)
    monkeypatch.setattr("chammi75.transfer.Patience", quick)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("stall", after_bytes=10, times=3),
        Fault("truncate", after_bytes=10, times=3),
        Fault("short", after_bytes=3, times=3),
        Fault("status", status=503, retry_after_s=0, times=3),
        Fault("status", status=429, times=3),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
@pytest.mark.parametrize("shuffle", ["global", "window:2"])
@pytest.mark.usefixtures("hasty")
def test_what_passes_changes_nothing(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path, shuffle: str, fault: Fault
) -> None:
    stream = remote(server, shuffle=shuffle, cache_dir=tmp_path)
    server.fail(replace(fault, path="/shards/", skip=1))
    assert fingerprints(stream) == fingerprints(TrainingStream(served[1].url, shuffle=shuffle, **OPTIONS))
    assert server.counts().failed == 3


@pytest.mark.parametrize("shuffle", ["global", "window:2"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.usefixtures("hasty")
def test_a_server_that_goes_away_ends_the_epoch_and_no_sample_is_skipped(
    server: SlowServer, tmp_path: Path, shuffle: str, on_error: str
) -> None:
    stream = remote(server, shuffle=shuffle, cache_dir=tmp_path, on_error=on_error)
    server.fail(Fault("stall", path="/shards/", times=None, skip=2))
    start = monotonic()
    with pytest.raises(UnreachableError, match=r"stalls.*asked \d+ times.*network and the server are up"):
        list(stream)
    assert monotonic() - start < 10
    assert not stream.replaced


def test_a_shard_of_another_length_is_skipped_or_named(server: SlowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chammi75.transfer.Patience", partial(Patience, deadline_s=0.05, first_wait_s=0.01))
    server.fail(Fault("short", path="train-00002", times=None, after_bytes=1))
    skipping = remote(server, on_error="skip")
    with pytest.warns(UserWarning, match="train-00002"):
        list(skipping)
    assert skipping.replaced
    with pytest.raises(ChammiError, match=r"train-00002.* bytes where "):
        list(remote(server))


@pytest.mark.parametrize("maps", [True, False])
def test_ranges_of_cached_shards_are_read_where_they_must_not_be_mapped(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path, monkeypatch: Any, maps: bool
) -> None:
    monkeypatch.setattr("chammi75.store.node_cache.cache.is_own_disk", lambda folder: maps)
    stream = remote(server, shuffle="window:2", cache_dir=tmp_path)
    assert fingerprints(stream) == fingerprints(TrainingStream(served[1].url, shuffle="window:2", **OPTIONS))
    read = stream._cache.traffic.read_bytes
    assert (read == 0) == maps


def test_a_cache_that_somebody_removes_is_filled_again(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path
) -> None:
    stream = remote(server, shuffle="window:2", cache_dir=tmp_path / "cache")
    found = []
    for batch in stream:
        found += fingerprints([batch])
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert found == fingerprints(TrainingStream(served[1].url, shuffle="window:2", **OPTIONS))


def test_a_cache_that_cannot_be_used_any_longer_is_no_reason_to_skip_samples(
    server: SlowServer, tmp_path: Path
) -> None:
    stream = remote(server, shuffle="window:1", cache_dir=tmp_path / "cache", on_error="skip", prefetch=1)
    batches = iter(stream)
    next(batches)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheError, match="is a file: name a folder"):
        list(batches)


def _iterate(stream: TrainingStream, found: Any) -> None:
    found.put(fingerprints(stream))


def test_processes_that_start_on_an_empty_cache_fetch_each_shard_once(server: SlowServer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    streams = [remote(server, shuffle="window:5", cache_dir=tmp_path, rank=rank, world_size=2) for rank in range(2)]
    processes = [context.Process(target=_iterate, args=(stream, found), daemon=True) for stream in streams]
    for process in processes:
        process.start()
    batches = [batch for _ in processes for batch in found.get(timeout=60)]
    for process in processes:
        process.join(60)
    assert {position for positions, *_ in batches for position in positions} >= set(range(streams[0].samples))
    gets = [request.path for request in server.seen() if "/shards/" in request.path and request.method == "GET"]
    assert len(gets) == len(set(gets)) == 5


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_that_a_rerun_trips_over(
    server: SlowServer, served: tuple[SlowServer, Known], tmp_path: Path
) -> None:
    stream = remote(server, shuffle="window:2", cache_dir=tmp_path)
    server.fail(Fault("stall", path="/shards/", times=None, after_bytes=100))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=list, args=(stream,), daemon=True)
    process.start()
    deadline = monotonic() + 30
    while not list(tmp_path.rglob("*.part")) and monotonic() < deadline:
        sleep(0.01)
    assert list(tmp_path.rglob("*.part"))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    server.reset()
    again = remote(server, shuffle="window:2", cache_dir=tmp_path)
    assert fingerprints(again) == fingerprints(TrainingStream(served[1].url, shuffle="window:2", **OPTIONS))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_after_their_parent_has(server: SlowServer, served: tuple[SlowServer, Known], method: str) -> None:
    stream = TrainingStream(f"{server.url}/bucket/store", **OPTIONS)
    wanted = fingerprints(TrainingStream(served[1].url, **OPTIONS))
    assert fingerprints(stream) == wanted
    assert fingerprints(DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context=method)) == wanted


def test_credentials_that_lie_around_do_not_matter(
    server: SlowServer, served: tuple[SlowServer, Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert fingerprints(remote(server)) == fingerprints(TrainingStream(served[1].url, **OPTIONS))
    assert not any(request.authorization for request in server.seen())
