"""Writing a store: what is there before the manifest is no store, and nothing of others is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chammi75.errors import ChammiError, StoreError
from chammi75.files import create_file, join_url
from chammi75.store import ShardWriter, new_store, open_store, shard_path, verify

Maker = Callable[..., Any]
BEGUN = b'{"format": "chammi75-building"}\n'


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_store_has_the_files_of_the_design_and_no_others(
    store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    store_writer(tmp_path / "store", [image_maker(k) for k in range(7)])
    assert set(tree(tmp_path / "store")) == {
        "manifest.json",
        "index.parquet",
        "index.arrow",
        *(f"shards/train-{k:05d}.arrow" for k in range(3)),
    }
    manifest = open_store(tmp_path / "store").manifest
    assert (manifest.images, manifest.planes, [shard.rows for shard in manifest.shards]) == (7, 14, [3, 3, 1])
    assert verify(str(tmp_path / "store")).is_sound


def test_the_manifest_comes_last_and_until_then_there_is_no_store(image_maker: Maker, tmp_path: Path) -> None:
    target = tmp_path / "store"
    with new_store(str(target)) as writer:
        with create_file(join_url(writer.url, shard_path("train", 0))) as file:
            shard = ShardWriter(file)
            shard.write(image_maker(0).encoded())
            written = shard.close()
        writer.add_shard(shard_path("train", 0), "train", written)
        with pytest.raises(StoreError, match="not finished"):
            open_store(target)
        writer.commit(codec="zstd", pixel_bytes=1)
        assert len(open_store(target)) == 1
        assert not (target / "building.json").exists()


def test_a_finished_store_is_refused_as_a_target_and_stays_as_it_is(
    store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    store_writer(tmp_path / "store", [image_maker(0)])
    before = tree(tmp_path / "store")
    with pytest.raises(StoreError, match=r"store holds a finished store: a new build is a new folder"):
        store_writer(tmp_path / "store", [image_maker(1)])
    assert tree(tmp_path / "store") == before


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": b"mine"},
        {"index.parquet": b"mine", "index.arrow": b"mine", "shards/train-00000.arrow": b"mine"},
        {"building.json": b'{"floors": 3}', "index.parquet": b"mine"},
        {"building.json": b"", "index.parquet": b"mine"},
        {"shards/a.arrow": b"mine"},
    ],
)
def test_a_folder_of_other_peoples_files_is_refused_and_untouched(
    files: dict[str, bytes], store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(content)
    with pytest.raises(StoreError, match="not empty and no build of chammi75 has begun there: name a new folder"):
        store_writer(tmp_path / "mine", [image_maker(0)])
    assert tree(tmp_path / "mine") == files


def test_a_file_is_refused_as_a_target(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreError, match="is a file"):
        store_writer(tmp_path / "file", [image_maker(0)])
    with pytest.raises(ChammiError, match="file/store: it cannot be written"):
        store_writer(tmp_path / "file" / "store", [image_maker(0)])
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_the_leftovers_of_an_interrupted_build_are_removed_and_nothing_else(
    store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    target = tmp_path / "store"
    (target / "shards").mkdir(parents=True)
    foreign = {
        "notes.txt": b"mine",
        "shards/mine.arrow": b"mine",
        "shards/train-00009.arrow.bak": b"mine",
        "shards/deeper/train-00000.arrow": b"mine",
        ".hidden.json.part": b"mine",
        "other/index.arrow": b"mine",
    }
    left = {
        "building.json": BEGUN,
        "index.parquet": b"half",
        "index.arrow": b"half",
        "report.json": b"half",
        "shards/train-00000.arrow": b"half",
        "shards/train-00077.arrow": b"half",
        "shards/validation-00000.arrow": b"half",
        ".manifest.json.0123abcd.part": b"half",
        ".report.json.0123abcd.part": b"half",
    }
    for name, content in {**foreign, **left}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    images = [image_maker(k) for k in range(4)]
    store_writer(target, images)
    store_writer(tmp_path / "unbroken", images)
    assert tree(target) == {**tree(tmp_path / "unbroken"), **foreign}


def test_a_build_that_was_killed_while_it_marked_its_folder_can_begin_again(
    store_writer: Maker, image_maker: Maker, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "building.json").write_bytes(BEGUN[:5])
    store_writer(tmp_path / "store", [image_maker(0)])
    assert verify(str(tmp_path / "store")).is_sound


def test_two_images_of_one_id_are_refused(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"two images have the id 'plate1/A01_\*\.tif'"):
        store_writer(tmp_path / "store", [image_maker(0), image_maker(1), image_maker(2), image_maker(1)])
    with pytest.raises(StoreError, match="not finished"):
        open_store(tmp_path / "store")


def test_a_store_of_no_image_is_refused(store_writer: Maker, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a single image"):
        store_writer(tmp_path / "store", [])


def test_a_shard_that_is_not_there_is_noticed_before_the_commit(image_maker: Maker, tmp_path: Path) -> None:
    import io

    shard = ShardWriter(io.BytesIO())
    shard.write(image_maker(0).encoded())
    written = shard.close()
    with (
        new_store(str(tmp_path / "store")) as writer,
        pytest.raises(StoreError, match=r"train-00000\.arrow.*not there"),
    ):
        writer.add_shard(shard_path("train", 0), "train", written)


def test_the_same_images_make_the_same_files(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> None:
    images = [image_maker(k) for k in range(7)]
    store_writer(tmp_path / "a", images)
    store_writer(tmp_path / "b", images)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    store_writer(tmp_path / "c", images, codec="deflate", per_shard=2)
    a, c = (open_store(tmp_path / name).manifest for name in "ac")
    assert a.content_sha256 == c.content_sha256
    assert [shard.sha256 for shard in a.shards] != [shard.sha256 for shard in c.shards]


@pytest.mark.skipif(os.name != "posix", reason="targets are held with flock")
def test_a_second_build_into_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    code = (
        "import sys; from chammi75.store import new_store\n"
        "with new_store(sys.argv[1]):\n    print('held', flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "held\n"
        shard = tmp_path / "store" / "shards" / "train-00000.arrow"
        shard.parent.mkdir()
        shard.write_bytes(b"the first build's")
        with (
            pytest.raises(StoreError, match="another build is writing there right now"),
            new_store(f"{tmp_path}/store"),
        ):
            pass
        assert shard.read_bytes() == b"the first build's"
        first.stdin.write("\n")
    with new_store(str(tmp_path / "store")):  # the first has let go
        assert not shard.exists()


@pytest.mark.skipif(os.name != "posix", reason="targets are held with flock")
def test_of_many_builds_that_begin_at_once_one_is_let_in(tmp_path: Path) -> None:
    """The race itself: all begin in an absent folder at one moment, and hold on until all have tried."""
    code = (
        "import sys, time; from chammi75.store import new_store; from chammi75.errors import StoreError\n"
        "import chammi75.files, fsspec; fsspec.filesystem('file')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n"
        "    with new_store(sys.argv[1]):\n        print('in', flush=True); sys.stdin.readline()\n"
        "except StoreError as error:\n    print(error, flush=True)\n"
    )
    for attempt in range(2):
        command = [sys.executable, "-c", code, str(tmp_path / f"store{attempt}")]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        builds = [subprocess.Popen(command, **pipes) for _ in range(4)]
        try:
            for build in builds:
                assert build.stdout.readline() == "ready\n"
            for build in builds:
                build.stdin.write("\n")
                build.stdin.flush()
            answers = [build.stdout.readline() for build in builds]
        finally:
            for build in builds:
                build.communicate("\n", timeout=30)
        assert sorted(answer == "in\n" for answer in answers) == [False, False, False, True], answers
        assert all("another build" in answer for answer in answers if answer != "in\n")


def test_a_store_is_written_to_and_read_from_any_fsspec_url(store_writer: Maker, image_maker: Maker) -> None:
    import fsspec

    url = "memory://written/one"
    images = [image_maker(k) for k in range(5)]
    memory = fsspec.filesystem("memory")
    try:
        store_writer(url, images)
        store = open_store(url)
        assert len(store) == 5
        for row, image in enumerate(images):
            np.testing.assert_array_equal(store.read_image(row), np.stack(image.planes))
            found = store.read_cells(row)
            assert (found is None) == (not image.cells)
        assert verify(url).is_sound
        assert not memory.exists("/written/one/building.json")
        with pytest.raises(StoreError, match="finished store"):
            store_writer(url, images)
        with memory.open("/written/one/shards/train-00001.arrow", "r+b") as file:
            content = bytearray(memory.cat_file("/written/one/shards/train-00001.arrow"))
            content[store.index.places(4).plane_offsets[0] + 700] ^= 4
            file.write(bytes(content))
        (damage,) = verify(url).damages
        assert damage.image_id == "plate1/A04_*.tif"
        memory.rm_file("/written/one/shards/train-00000.arrow")
        assert {damage.image_id for damage in verify(url).damages if damage.file.endswith("00000.arrow")} == {
            None,
            *(image.record.image_id for image in images[:3]),
        }
        memory.pipe_file("/written/two/building.json", BEGUN)
        memory.pipe_file("/written/two/shards/train-00005.arrow", b"half")
        store_writer("memory://written/two", images)
        assert not memory.exists("/written/two/shards/train-00005.arrow")
    finally:
        if memory.exists("/written"):
            memory.rm("/written", recursive=True)


def test_the_manifest_says_what_is_in_the_store(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> None:
    import hashlib

    store_writer(tmp_path / "store", [image_maker(k) for k in range(4)])
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_bytes())
    for entry in (*manifest["shards"], manifest["index"]["parquet"], manifest["index"]["arrow"]):
        content = (tmp_path / "store" / entry["path"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest["pixel_bytes"] == 4 * 2 * 150 * 140 * 2
