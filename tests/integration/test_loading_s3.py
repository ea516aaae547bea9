"""A store in an S3 bucket, read by byte ranges; the server is on loopback."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_published, write_store
from loopback import S3, s3_server

from chammi75 import collate, load_dataset
from chammi75.errors import ChammiError

pytest.importorskip("moto.server")


def bytes_of(server: S3, suffix: str) -> int:
    """Bytes of ranges asked for of one file."""
    return sum(one.range_bytes for one in server.seen if one.method == "GET" and one.path.endswith(suffix))


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def options(server: S3) -> dict[str, Any]:
    return server.options


@pytest.fixture(scope="module")
def remote(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Known:
    from fsspec import filesystem

    local = write_store(tmp_path_factory.mktemp("local") / "store")
    bucket = filesystem("s3", **options)
    bucket.mkdir("bucket")
    bucket.put(local.url, "bucket/data/store", recursive=True)
    return Known("s3://bucket/data/store", local.pixels, local.cells)


@pytest.mark.parametrize("streaming", [False, True], ids=["dataset", "stream"])
def test_filters_and_pixels_are_those_of_the_store(remote: Known, options: Any, streaming: bool) -> None:
    dataset = load_dataset(
        remote.url, streaming=streaming, storage_options=options, channel_type="er", where="quality.focus > 0.55"
    )
    names = []
    for sample in dataset:
        names.append(sample["image_id"])
        assert np.array_equal(sample["image"], remote.pixels[names[-1]])
        assert (sample["annotation"] is None) == (remote.cells[names[-1]] is None)
    assert names == remote.ids[6:20]


def test_opening_asks_for_the_index_alone(remote: Known, options: Any, server: S3) -> None:
    server.seen.clear()
    load_dataset(remote.url, streaming=True, storage_options=options, organism="Mus musculus")
    paths = [one.path for one in server.seen]
    assert not [path for path in paths if "/shards/" in path]
    assert len([path for path in paths if "manifest.json" in path]) <= 4  # one: does the server answer?
    assert len(server.seen) <= 10


def test_a_crop_asks_for_the_planes_that_it_needs(remote: Known, options: Any, server: S3) -> None:
    image = load_dataset(remote.url, storage_options=options).select_columns(["image"])[0]["image"]
    server.seen.clear()
    assert np.array_equal(image["er", 0:10, 5:15], remote.pixels[remote.ids[0]][1, :10, 5:15])
    assert 0 < bytes_of(server, "train-00000.arrow") <= image["lengths"][1]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_stream_from_a_bucket(remote: Known, options: Any, method: str) -> None:
    from torch.utils.data import DataLoader

    stream = load_dataset(remote.url, streaming=True, storage_options=options)
    next(iter(stream))  # the parent has its own connections when it forks
    loader: DataLoader[Any] = DataLoader(
        stream, batch_size=5, num_workers=2, collate_fn=collate, multiprocessing_context=method, timeout=120
    )
    seen = []
    for batch in loader:
        seen += batch["image_id"]
        for name, pixels in zip(batch["image_id"], batch["image"], strict=True):
            assert np.array_equal(pixels.numpy(), remote.pixels[name])
    assert sorted(seen) == sorted(remote.ids)


@pytest.mark.parametrize("streaming", [False, True], ids=["dataset", "stream"])
def test_storage_options_survive_what_keeps_images(remote: Known, options: Any, streaming: bool) -> None:
    dataset = load_dataset(remote.url, streaming=streaming, storage_options=options, study="plate2")
    mapped = dataset.map(lambda sample: {"n": 1}).filter(lambda sample: sample["n"] == 1).take(2)
    for sample in pickle.loads(pickle.dumps(mapped)) if not streaming else mapped:  # noqa: S301 - our own
        assert np.array_equal(sample["image"], remote.pixels[sample["image_id"]])


def test_the_published_layout_reads_in_a_bucket(options: Any, tmp_path: Any, remote: Known) -> None:
    from fsspec import filesystem

    local = write_published(tmp_path / "published", images=6)
    filesystem("s3", **options).put(local.url, "bucket/published", recursive=True)
    samples = list(load_dataset("s3://bucket/published", storage_options=options, streaming=True))
    assert [sample["image_id"] for sample in samples] == local.ids
    for sample in samples:
        assert np.array_equal(sample["image"], local.pixels[sample["image_id"]])


@pytest.mark.parametrize("url", ["s3://bucket/data/nothing", "s3://no-such-bucket-75/store"])
def test_nothing_in_the_bucket_is_said_in_one_sentence(remote: Known, options: Any, url: str) -> None:
    with pytest.raises(ChammiError, match="there is nothing here"):
        load_dataset(url, storage_options=options)


def test_a_server_that_does_not_answer_is_named() -> None:
    options = {
        "key": "a",
        "secret": "b",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    with pytest.raises(ChammiError, match="s3://bucket/store"):
        load_dataset("s3://bucket/store", storage_options=options)


def test_a_small_crop_of_a_large_plane_asks_for_its_tiles_alone(
    remote: Known, options: Any, server: S3, tmp_path: Path
) -> None:
    import tifffile

    from chammi75.build.execute import build_store
    from chammi75.build.plan import plan_folder
    from chammi75.schemas import BuildRecipe

    pixels = np.random.default_rng(0).integers(0, 4096, (2, 700, 900), np.uint16)
    tifffile.imwrite(tmp_path / "large.ome.tif", pixels, metadata={"axes": "CYX"})
    url = "s3://bucket/large"
    build_store([plan_folder(str(tmp_path), BuildRecipe())], url, storage_options=options)
    image = load_dataset(url, storage_options=options)[0]["image"]
    server.seen.clear()
    for y, x, height, width in ((0, 0, 64, 64), (300, 500, 200, 150), (690, 890, 10, 10)):
        assert np.array_equal(image.crop(y, x, height, width), pixels[:, y : y + height, x : x + width])
    assert 0 < bytes_of(server, "train-00000.arrow") < sum(image["lengths"])
    server.seen.clear()
    assert np.array_equal(image, pixels)
    assert bytes_of(server, "train-00000.arrow") == sum(image["lengths"])
