"""Copies: byte for byte or of some images, between any two places, every byte checked."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.errors import ChammiError, StoreError
from chammi75.store import ShardWriter, new_store, open_store, shard_path, verify
from chammi75.store.copy import copy as copy_module
from chammi75.store.copy import copy_store, plan_copy
from chammi75.store.copy import images as images_module
from chammi75.store.copy.ranges import coalesce

Maker = Callable[..., Any]
IMAGES = 11


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def source(store_writer: Maker, image_maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four shards of several record batches, with a report."""
    folder = tmp_path_factory.mktemp("copy") / "store"
    images = [image_maker(k, channels=1 + k % 3, height=60 + k, width=50) for k in range(IMAGES)]
    store_writer(folder, images, per_shard=3, batch_bytes=20_000)
    (folder / "report.json").write_text("{}")
    return folder


@pytest.fixture
def memory() -> Iterator[str]:
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(url):
        filesystem.rm(url, recursive=True)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of about four images in record batches of about one, so that a copy has several."""
    cut = images_module.cut_shards
    monkeypatch.setattr(images_module, "ShardWriter", partial(ShardWriter, batch_bytes=10_000))
    monkeypatch.setattr("chammi75.store.copy.copy.cut_shards", lambda stores, rows: cut(stores, rows, 40_000))


def check_images(source: Path, copy: Any, rows: Any) -> None:
    """The copy has these images of the source, with all that is known of them."""
    one, other = open_store(source), open_store(copy)
    assert one.index.table.column("image_id").take(rows).to_pylist() == other.index.table.column("image_id").to_pylist()
    assert one.records().take(rows).to_pylist() == other.records().to_pylist()
    for name in ("stored_sha256", "content_sha256", "channel_types", "height", "cells"):
        assert one.index.table.column(name).take(rows).to_pylist() == other.index.table.column(name).to_pylist()
    for k, row in enumerate(rows):
        for channel in range(len(one.index.places(row).plane_offsets)):
            assert np.array_equal(one.read_plane(row, channel), other.read_plane(k, channel))
        mine, yours = one.read_cells(row), other.read_cells(k)
        assert (mine is None) == (yours is None)
        for a, b in zip(mine or (), yours or (), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert np.array_equal(a.centroids, b.centroids) and np.array_equal(a.sizes, b.sizes)
    assert verify(str(copy)).is_sound


@pytest.mark.parametrize("workers", [1, 4])
def test_a_whole_copy_has_the_same_bytes_and_nothing_else(source: Path, tmp_path: Path, workers: int) -> None:
    seen: list[int] = []
    report = copy_store(str(source), str(tmp_path / "copy"), workers=workers, advance=seen.append)
    assert tree(tmp_path / "copy") == tree(source)
    assert report.manifest == open_store(source).manifest
    assert not (tmp_path / "copy" / "copying").exists()
    assert sum(seen) == report.bytes_read == plan_copy(str(source)).bytes


def test_a_copy_goes_to_memory_and_back_and_out_of_a_zip_archive(source: Path, memory: str, tmp_path: Path) -> None:
    copy_store(str(source), memory)
    copy_store(memory, str(tmp_path / "back"))
    assert tree(tmp_path / "back") == tree(source)
    archive = shutil.make_archive(str(tmp_path / "store"), "zip", source.parent, "store")
    copy_store(f"zip://store::{archive}", str(tmp_path / "unpacked"))
    assert tree(tmp_path / "unpacked") == tree(source)
    rows = np.array([1, 2, 9])
    copy_store(f"zip://store::{archive}", str(tmp_path / "some"), rows=rows)
    check_images(source, tmp_path / "some", rows)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("rows", [[0], [10], [0, 1, 4, 5, 6, 10], [2, 3, 7], list(range(1, 11))])
def test_some_images_are_copied_as_they_are_stored(source: Path, tmp_path: Path, rows: list[int]) -> None:
    report = copy_store(str(source), str(tmp_path / "copy"), rows=np.array(rows))
    check_images(source, tmp_path / "copy", rows)
    assert report.manifest.images == len(rows)
    assert report.manifest.codec == "zstd"
    pixels = sum(open_store(source).read_image(row).nbytes for row in rows)
    assert report.manifest.pixel_bytes == pixels


@pytest.mark.usefixtures("small_shards")
def test_some_images_give_the_same_files_for_any_number_of_workers_and_any_place(
    source: Path, memory: str, tmp_path: Path
) -> None:
    rows = np.array([0, 1, 3, 4, 5, 6, 8, 9])
    copy_store(str(source), str(tmp_path / "one"), rows=rows, workers=1)
    copy_store(str(source), str(tmp_path / "many"), rows=rows, workers=5)
    copy_store(str(source), memory, rows=rows)
    copy_store(memory, str(tmp_path / "back"))
    assert len(open_store(tmp_path / "one").shards) > 2
    assert tree(tmp_path / "one") == tree(tmp_path / "many") == tree(tmp_path / "back")


def test_all_images_asked_for_one_by_one_are_a_whole_copy(source: Path, tmp_path: Path) -> None:
    copy_store(str(source), str(tmp_path / "copy"), rows=np.arange(IMAGES))
    assert tree(tmp_path / "copy") == tree(source)


def test_the_content_hash_of_some_images_is_that_of_a_build_of_them(
    source: Path, store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    rows = [2, 5, 6]
    report = copy_store(str(source), str(tmp_path / "copy"), rows=np.array(rows))
    built = [image_maker(k, channels=1 + k % 3, height=60 + k, width=50) for k in rows]
    store_writer(tmp_path / "built", built)
    assert report.manifest.content_sha256 == open_store(tmp_path / "built").manifest.content_sha256
    assert tree(tmp_path / "copy") == tree(tmp_path / "built")


def test_splits_stay(image_maker: Maker, tmp_path: Path) -> None:
    with new_store(str(tmp_path / "store")) as writer:
        for split, numbers in (("test", [0, 1]), ("train", [2, 3, 4])):
            path = shard_path(split, 0)
            place = tmp_path / "store" / path
            place.parent.mkdir(exist_ok=True)
            with open(place, "wb") as file:
                shard = ShardWriter(file)
                for number in numbers:
                    shard.write(image_maker(number).encoded())
                written = shard.close()
            writer.add_shard(path, split, written)
        writer.commit(codec="zstd", pixel_bytes=1, recipes={"a": "0" * 64})
    report = copy_store(str(tmp_path / "store"), str(tmp_path / "copy"), rows=np.array([1, 2, 4]))
    copy = open_store(tmp_path / "copy")
    assert [list(rows) for rows in copy.split_rows("train")] == [[1, 2]]
    assert report.manifest.recipes == {"a": "0" * 64}
    check_images(tmp_path / "store", tmp_path / "copy", [1, 2, 4])


@pytest.mark.parametrize("inside", ["", "deeper/copy"])
def test_a_copy_into_the_store_itself_is_refused(source: Path, inside: str) -> None:
    before = tree(source)
    with pytest.raises(StoreError, match="lies in the store that is copied"):
        copy_store(str(source), str(source / inside))
    assert tree(source) == before
    assert not (source / "deeper").exists()


@pytest.mark.skipif(not hasattr(Path, "symlink_to"), reason="no links")
def test_a_copy_into_the_store_by_another_name_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(StoreError, match="lies in the store that is copied"):
        copy_store(str(source), str(tmp_path / "link" / "copy"))


def test_a_finished_store_a_file_and_other_peoples_folders_are_refused(source: Path, tmp_path: Path) -> None:
    copy_store(str(source), str(tmp_path / "copy"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "building.json").write_text('{"format": "chammi75-building"}\n')
    before = tree(tmp_path)
    for name, reason in (("copy", "holds a finished store"), ("mine", "is not empty"), ("begun", "is not empty")):
        with pytest.raises(StoreError, match=reason):
            copy_store(str(source), str(tmp_path / name))
    with pytest.raises(StoreError, match="is a file"):
        copy_store(str(source), str(tmp_path / "mine" / "notes.txt"))
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("small_shards")
def test_the_unfinished_copy_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "copy", rows=np.array([1, 2, 3, 4, 8]), after=30_000)
    with pytest.raises(StoreError, match=r"not finished \(a copy was interrupted"):
        open_store(tmp_path / "copy")
    for rows in (None, np.array([1, 2])):
        with pytest.raises(StoreError, match="the unfinished copy of another store or of other images"):
            copy_store(str(source), str(tmp_path / "copy"), rows=rows)
    with pytest.raises(StoreError, match="is not empty and no build"), new_store(str(tmp_path / "copy")):
        pass


class StopError(Exception):
    """Thrown by a test."""


def interrupt(source: Path, target: Any, after: int, **options: Any) -> None:
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        if done > after:
            raise StopError

    with pytest.raises(StopError):
        copy_store(str(source), str(target), workers=1, advance=advance, **options)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("rows", [None, np.array([0, 1, 2, 4, 5, 6, 7, 9, 10])], ids=["whole", "some"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_an_interrupted_copy_goes_on_and_is_as_if_nothing_had_been(
    source: Path, tmp_path: Path, memory: str, rows: Any, place: str
) -> None:
    copy_store(str(source), str(tmp_path / "unbroken"), rows=rows)
    everything = plan_copy(str(source), rows=rows).bytes
    target = memory if place == "memory" else str(tmp_path / "copy")
    after = everything * 6 // 10
    interrupt(source, target, rows=rows, after=after)
    report = copy_store(str(source), target, rows=rows)
    assert 0 < report.bytes_read < everything * (0.75 if place == "memory" else 0.65)
    if place == "memory":
        copy_store(memory, str(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(tmp_path / "unbroken")


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("rows", [None, np.array([0, 1, 2, 4, 5, 6, 7, 9, 10])], ids=["whole", "some"])
def test_what_was_damaged_since_the_interruption_is_fetched_again(source: Path, tmp_path: Path, rows: Any) -> None:
    copy_store(str(source), str(tmp_path / "unbroken"), rows=rows)
    interrupt(source, tmp_path / "copy", rows=rows, after=plan_copy(str(source), rows=rows).bytes * 6 // 10)
    lying = [path for path in (tmp_path / "copy").rglob("*.arrow*") if path.suffix in (".arrow", ".part")]
    assert any(path.suffix == ".part" for path in lying) and any(path.suffix == ".arrow" for path in lying)
    for path in lying:
        content = bytearray(path.read_bytes())
        for at in range(0, len(content), 777):
            content[at] ^= 1
        path.write_bytes(bytes(content))
    copy_store(str(source), str(tmp_path / "copy"), rows=rows)
    assert tree(tmp_path / "copy") == tree(tmp_path / "unbroken")


def test_a_copy_that_ended_just_before_it_tidied_up_is_finished(source: Path, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "copy", after=1000)
    aside = tmp_path / "aside"
    (tmp_path / "copy" / "copying").rename(aside)
    (tmp_path / "copy").rmdir() if not any((tmp_path / "copy").iterdir()) else shutil.rmtree(tmp_path / "copy")
    copy_store(str(source), str(tmp_path / "copy"))
    aside.rename(tmp_path / "copy" / "copying")
    assert copy_store(str(source), str(tmp_path / "copy")).bytes_read == 0
    assert tree(tmp_path / "copy") == tree(source)


@pytest.mark.parametrize("where", ["shards/train-00001.arrow", "index.parquet", "index.arrow"])
@pytest.mark.parametrize("rows", [None, np.array([3, 4, 5, 9])], ids=["whole", "some"])
def test_a_damaged_source_is_named_and_nothing_of_it_becomes_a_store(
    source: Path, tmp_path: Path, memory: str, where: str, rows: Any
) -> None:
    shutil.copytree(source, tmp_path / "store")
    place = tmp_path / "store" / where
    content = bytearray(place.read_bytes())
    if rows is not None and where.startswith("shards"):
        at = open_store(source).index.places(4).plane_offsets[0] + 300
        content[at] ^= 1
    else:
        content[len(content) // 2] ^= 1
    place.write_bytes(bytes(content))
    for target in (str(tmp_path / "copy"), memory):
        with pytest.raises(StoreError, match="damaged") as caught:
            copy_store(str(tmp_path / "store"), target, rows=rows)
        assert where in str(caught.value)
        if rows is not None and where.startswith("shards"):
            assert "plate1/A04_*.tif" in str(caught.value)
        with pytest.raises(StoreError):
            open_store(target)
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(source, tmp_path / "store")  # mended: the same command goes on
    copy_store(str(tmp_path / "store"), str(tmp_path / "copy"), rows=rows)
    assert verify(str(tmp_path / "copy")).is_sound


@pytest.mark.parametrize("rows", [None, np.array([3, 4, 9])], ids=["whole", "some"])
def test_a_shard_that_is_missing_or_cut_short_is_named(source: Path, tmp_path: Path, rows: Any) -> None:
    for number, harm in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:900]))):
        store = tmp_path / f"store{number}"
        shutil.copytree(source, store)
        harm(store / "shards" / "train-00001.arrow")
        with pytest.raises(StoreError, match=r"train-00001\.arrow: (a file of the store is missing|.*cut short)"):
            copy_store(str(store), str(tmp_path / f"copy{number}"), rows=rows)


@pytest.mark.parametrize("rows", [[3, 2], [1, 1], [-1], [IMAGES], [[1]], [0.5]])
def test_rows_that_do_not_ascend_or_are_not_there_are_refused(source: Path, tmp_path: Path, rows: Any) -> None:
    with pytest.raises(ChammiError, match="rows"):
        copy_store(str(source), str(tmp_path / "copy"), rows=np.array(rows))
    assert not (tmp_path / "copy").exists()


def test_no_image_is_no_store(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a single image is left"):
        copy_store(str(source), str(tmp_path / "copy"), rows=np.array([], np.int64))


ranges = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**4)), min_size=1, max_size=60)


@given(ranges)
def test_ranges_are_covered_in_order_and_little_more_is_read(wanted: list[tuple[int, int]]) -> None:
    covering = coalesce(wanted)
    assert all(a + length < b for (a, length), (b, _) in pairwise(covering))
    for offset, length in wanted:
        assert any(start <= offset and offset + length <= start + size for start, size in covering)
    assert sum(size for _, size in covering) <= 17 / 16 * sum(length for _, length in wanted)


def test_a_server_that_hides_that_there_is_no_report_is_copied_from(
    source: Path, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_store(str(source), f"{memory}/from")
    read = copy_module.read_bytes

    def refuse(url: str, options: Any = None) -> bytes:
        if url.endswith("report.json"):
            raise PermissionError(13, "Forbidden")
        return read(url, options)

    monkeypatch.setattr(copy_module, "read_bytes", refuse)
    copy_store(f"{memory}/from", str(tmp_path / "copy"))
    assert verify(str(tmp_path / "copy")).is_sound
    with pytest.raises(StoreError, match=r"report\.json: it cannot be read"):  # a local disk hides nothing
        copy_store(str(source), str(tmp_path / "other"))
