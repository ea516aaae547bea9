"""The training stream over a network: the same samples, few bytes, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loading_stores import Known, write_store

pytest.importorskip("torch", reason="the training stream needs PyTorch")

from slow_server import Fault, SlowServer, slow_server
from torch.utils.data import DataLoader

from chammi75.errors import ChammiError, StoreError
from chammi75.loading import GuidedCrop, TrainingStream

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
            import os

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
