"""Copies from and to an S3 bucket, by byte ranges; the server is on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_store
from loopback import S3, s3_server

from chammi75.errors import StoreError
from chammi75.store import open_store, verify
from chammi75.store.copy import copy_store, plan_copy
from chammi75.store.copy import images as images_module
from chammi75.store.parts import combine, expand

pytest.importorskip("moto.server")


def ranges_of_shards(server: S3) -> list[int]:
    """Lengths of the ranges of shards that were asked for."""
    return [one.range_bytes for one in server.seen if one.method == "GET" and "/shards/" in one.path]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def options(server: S3) -> dict[str, Any]:
    return server.options


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return write_store(tmp_path_factory.mktemp("local") / "store")


@pytest.fixture(scope="module")
def remote(local: Known, options: dict[str, Any]) -> str:
    from fsspec import filesystem

    filesystem("s3", **options).mkdir("moving")
    copy_store(local.url, "s3://moving/store", target_options=options)
    return "s3://moving/store"


def tree(folder: str | Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def listed(url: str, options: Any) -> list[str]:
    from fsspec import filesystem

    bucket = filesystem("s3", **options)
    bucket.invalidate_cache()
    base = url.removeprefix("s3://")
    return sorted(name.removeprefix(f"{base}/") for name in bucket.find(base))


def test_to_the_bucket_and_back_is_the_same_store(local: Known, remote: str, options: Any, tmp_path: Path) -> None:
    assert listed(remote, options) == sorted(tree(local.url))
    assert verify(remote, options).is_sound
    copy_store(remote, str(tmp_path / "back"), source_options=options)
    assert tree(tmp_path / "back") == tree(local.url)


def test_some_images_are_read_by_ranges_and_little_else(
    local: Known, remote: str, options: Any, server: S3, tmp_path: Path
) -> None:
    rows = np.array([1, 2, 3, 8, 11, 12, 13, 20, 24, 25, 29])
    server.seen.clear()
    report = copy_store(remote, str(tmp_path / "copy"), rows=rows, source_options=options)
    lengths = ranges_of_shards(server)
    wanted = plan_copy(local.url, rows=rows).bytes
    assert wanted <= sum(lengths) == report.bytes_read <= 1.1 * wanted
    assert len(lengths) <= 3 * len(rows)
    whole = [one.path for one in server.seen if one.method == "GET" and one.range is None]
    assert len([path for path in whole if path.endswith("index.arrow")]) <= 1
    assert len([path for path in whole if path.endswith("index.parquet")]) <= 1
    copy = open_store(tmp_path / "copy")
    for k, row in enumerate(rows):
        assert np.array_equal(copy.read_image(k), local.pixels[local.ids[row]])
    copy_store(local.url, str(tmp_path / "near"), rows=rows)
    assert tree(tmp_path / "copy") == tree(tmp_path / "near")


def test_images_that_lie_together_are_one_request(remote: str, options: Any, server: S3, tmp_path: Path) -> None:
    server.seen.clear()
    copy_store(remote, str(tmp_path / "copy"), rows=np.arange(8, 14), source_options=options)
    assert len(ranges_of_shards(server)) <= 3  # planes, centroids, sizes


@pytest.mark.parametrize("rows", [None, np.array([0, 3, 4, 9, 15, 16, 22, 23, 29])], ids=["whole", "some"])
def test_an_interrupted_copy_to_a_bucket_goes_on_shard_by_shard(
    local: Known, remote: str, options: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = images_module.cut_shards
    monkeypatch.setattr("chammi75.store.copy.copy.cut_shards", lambda stores, rows: cut(stores, rows, 30_000))
    copy_store(local.url, str(tmp_path / "unbroken"), rows=rows)
    everything = plan_copy(local.url, rows=rows).bytes
    target = f"s3://moving/interrupted-{rows is None}"
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        if done > everything * 0.9:
            raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="plug"):
        copy_store(local.url, target, rows=rows, workers=1, target_options=options, advance=advance)
    with pytest.raises(StoreError, match="a copy was interrupted"):
        open_store(target, options)
    report = copy_store(local.url, target, rows=rows, target_options=options)
    assert 0 < report.bytes_read < 0.6 * everything
    assert listed(target, options) == sorted(tree(tmp_path / "unbroken"))
    copy_store(target, str(tmp_path / "back"), source_options=options)
    assert tree(tmp_path / "back") == tree(tmp_path / "unbroken")


def test_a_damaged_source_leaves_no_file_in_the_bucket(local: Known, options: Any, remote: str, tmp_path: Path) -> None:
    copy_store(local.url, str(tmp_path / "store"))
    place = tmp_path / "store" / "shards" / "train-00000.arrow"
    content = bytearray(place.read_bytes())
    content[-200] ^= 1
    place.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"train-00000\.arrow: the file is damaged"):
        copy_store(str(tmp_path / "store"), "s3://moving/damaged", workers=1, target_options=options)
    assert "shards/train-00000.arrow" not in listed("s3://moving/damaged", options)
    assert "manifest.json" not in listed("s3://moving/damaged", options)


def test_a_store_in_a_bucket_grows_by_parts(local: Known, remote: str, options: Any, tmp_path: Path) -> None:
    copy_store(remote, "s3://moving/few", rows=np.array([0, 1]), source_options=options, target_options=options)
    copy_store(remote, "s3://moving/rest", rows=np.arange(2, 30), source_options=options, target_options=options)
    made = combine(["s3://moving/few", "s3://moving/rest"], "s3://moving/all", storage_options=options)
    assert [part.url for part in made.manifest.parts] == ["../few/manifest.json", "../rest/manifest.json"]
    assert made.manifest.content_sha256 == open_store(local.url).manifest.content_sha256
    assert [len(part) for part in expand(open_store("s3://moving/all", options))] == [2, 28]
    report = copy_store("s3://moving/all", str(tmp_path / "flat"), source_options=options)
    assert report.manifest.content_sha256 == made.manifest.content_sha256


def test_a_server_that_does_not_answer_is_named(local: Known, tmp_path: Path) -> None:
    silent = {
        "key": "a",
        "secret": "b",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    with pytest.raises(StoreError, match="s3://bucket/store: it cannot be read"):
        copy_store("s3://bucket/store", str(tmp_path / "copy"), source_options=silent)
    from chammi75.errors import ChammiError

    with pytest.raises(ChammiError, match="s3://bucket/copy: it cannot be written"):
        copy_store(local.url, "s3://bucket/copy", target_options=silent)
