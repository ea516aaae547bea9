"""Opening a dataset: it reads the index alone, writes nothing, and names what is damaged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known, write_store

from chammi75 import load_dataset
from chammi75.errors import ChammiError, ReadError, StoreError


def listing(folder: Path) -> list[tuple[str, int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found)


@pytest.mark.parametrize("streaming", [False, True])
def test_opening_and_reading_write_nothing(
    store: Known, published: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    import datasets

    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    folders = [Path(store.url), Path(published.url), tmp_path]
    before = [listing(folder) for folder in folders]
    for url in (store.url, published.url):
        samples = list(load_dataset(url, where="geometry.width > 1", channel_type="nucleus", streaming=streaming))
        assert np.asarray(samples[0]["image"]).size
    assert [listing(folder) for folder in folders] == before


def test_opening_and_filtering_touch_no_shard(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "shards")
    dataset = load_dataset(known.url, organism="Mus musculus", where="quality.focus > 1.5", select_channels="er")
    stream = load_dataset(known.url, streaming=True).select_columns(["image_id", "image", "geometry"])
    assert len(dataset) == 4
    images = [sample["image"] for sample in stream]
    assert len(images) == 30
    with pytest.raises(StoreError, match=r"train-00000\.arrow"):
        np.asarray(images[0])


def test_a_damaged_tile_is_met_only_by_who_reads_it(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store", images=8)
    image = load_dataset(known.url)[0]["image"]
    assert image.shape[1:] == (300, 280)  # 3 x 3 tiles
    storage = dict(image)
    end = storage["offsets"][0] + storage["lengths"][0]
    shard = Path(storage["uri"])
    content = bytearray(shard.read_bytes())
    content[end - 60 : end - 20] = bytes(value ^ 0xFF for value in content[end - 60 : end - 20])
    shard.write_bytes(content)
    image = load_dataset(known.url)[0]["image"]
    expected = known.pixels[known.ids[0]]
    assert np.array_equal(image["nucleus", 0:128, 0:128], expected[0, :128, :128])
    assert np.array_equal(image.crop(0, 0, 100, 120), expected[:, :100, :120])
    assert np.array_equal(image["er"], expected[1])
    with pytest.raises(StoreError) as error:
        np.asarray(image)
    assert known.ids[0] in str(error.value)
    assert "train-00000.arrow" in str(error.value)
    assert "nucleus" in str(error.value)


def test_a_shard_that_was_cut_short_is_named(tmp_path: Path) -> None:
    known = write_store(tmp_path / "store", images=8)
    shard = tmp_path / "store" / "shards" / "train-00000.arrow"
    with open(shard, "r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    dataset = load_dataset(known.url).select_columns(["image_id", "image"])
    with pytest.raises(StoreError, match=r"train-00000\.arrow.*plate1/P06"):
        np.asarray(dataset[6]["image"])
    with pytest.raises(StoreError, match=r"train-00000\.arrow"):
        [repr(sample["annotation"]) for sample in load_dataset(known.url, streaming=True)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), ""),
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(b"not a picture at all, but long enough to be one"), ""),
        (lambda path: _write_png(path, 10, 11), "10 x 11"),
    ],
    ids=["absent", "truncated", "empty", "other", "size"],
)
def test_a_damaged_published_plane_is_named(published: Known, tmp_path: Path, damage: Any, words: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published.url, copy)
    dataset = load_dataset(copy)
    path = copy / dataset[1]["storage"]["path"][1]
    damage(path)
    image = dataset[1]["image"]
    assert np.array_equal(image[0], published.pixels[published.ids[1]][0])
    with pytest.raises(ReadError) as error:
        np.asarray(image)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def _write_png(path: Path, height: int, width: int) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((height, width), np.uint8)).save(path)


def test_mini_is_built_once_by_two_processes_at_a_time(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        counts = pool.map(_mini_images, [str(cache)] * 2)
    assert counts[0] == counts[1] > 0
    (folder,) = cache.iterdir()
    assert (folder / "manifest.json").is_file()


def _mini_images(cache: str) -> int:
    from chammi75.mini import dataset

    build = dataset.build_mini
    dataset.build_mini = lambda *places: build(*places, size=0.1)  # type: ignore[assignment]
    return len(load_dataset("mini", cache_dir=cache))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ChammiError, match="cache_dir"):
        load_dataset("mini", cache_dir=tmp_path / "cache")


def test_a_cache_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ChammiError, match="cache_dir"):
        load_dataset("mini", cache_dir=tmp_path / "cache")
