"""Opening a store and reading planes by their byte ranges."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chammi75.errors import StoreError
from chammi75.schemas.manifest import StoreManifest
from chammi75.store import Store, open_store, verify
from chammi75.store.index import ROW_GROUP

Maker = Callable[..., Any]


@pytest.fixture
def images(image_maker: Maker) -> list[Any]:
    return [image_maker(k, channels=1 + k % 3, dtype=["uint16", "uint8", "float32"][k % 3]) for k in range(7)]


@pytest.fixture
def target(store_writer: Maker, images: list[Any], tmp_path: Path) -> Path:
    return store_writer(tmp_path / "store", images)


def rewritten(target: Path, **changes: Any) -> None:
    """The store's manifest with other values, and a hash that agrees with them."""
    values = json.loads((target / "manifest.json").read_bytes())
    values.pop("manifest_sha256")
    (target / "manifest.json").write_bytes(StoreManifest.model_validate({**values, **changes}).to_bytes())


def test_every_plane_window_and_cell_is_what_was_written(target: Path, images: list[Any]) -> None:
    store = open_store(target)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(store.read_image(row), np.stack(image.planes))
        for channel, plane in enumerate(image.planes):
            window = store.read_plane(row, channel, (130, 7, 20, 133))
            np.testing.assert_array_equal(window, plane[130:150, 7:140])
        found = store.read_cells(row)
        if not image.cells:
            assert found is None
            continue
        assert found is not None
        for cells, expected in zip(found, image.cells, strict=True):
            assert (cells is None) == (expected is None)
            if cells is not None:
                np.testing.assert_array_equal(cells.centroids, expected.centroids)
                np.testing.assert_array_equal(cells.sizes, expected.sizes)


def test_records_come_back_by_row_in_any_order(target: Path, images: list[Any]) -> None:
    store = open_store(target)
    rows = np.array([5, 0, 5, 3])
    assert store.records_at(rows).to_pylist() == [images[row].record.model_dump() for row in rows]
    assert store.records_at(rows[:0]).num_rows == 0
    assert store.records(["biology.organism"]).column_names == ["biology"]


def test_records_come_back_across_row_groups(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> None:
    from chammi75.store import EncodedImage, ShardWriter, new_store, shard_path

    image = image_maker(0, channels=1, height=16, width=16)
    encoded = image.encoded()
    count = ROW_GROUP + 20
    with new_store(str(tmp_path / "store")) as writer:
        (tmp_path / "store" / "shards").mkdir()
        for number, rows in enumerate((range(3000), range(3000, count))):
            with open(tmp_path / "store" / shard_path("train", number), "wb") as file:
                shard = ShardWriter(file)
                for row in rows:
                    record = image.record.model_copy(update={"image_id": f"image {row}"})
                    shard.write(EncodedImage(record, encoded.planes, [], bytes(32)))
                written = shard.close()
            writer.add_shard(shard_path("train", number), "train", written)
        writer.commit(codec="zstd", pixel_bytes=1)
    store = open_store(tmp_path / "store")
    rows = np.array([count - 1, 0, ROW_GROUP, ROW_GROUP - 1, 17, ROW_GROUP])
    assert store.records_at(rows).column("image_id").to_pylist() == [f"image {row}" for row in rows]
    assert store._parquet.num_row_groups == 2
    assert store.index.places(ROW_GROUP).shard == 1


def test_a_store_is_pickled_and_read_in_processes_of_any_kind(target: Path, images: list[Any]) -> None:
    store = open_store(target)
    store.read_image(0)  # files are open before it travels
    assert len(pickle.dumps(store)) < 20_000
    for method in ("spawn", "fork"):
        try:
            context = get_context(method)
        except ValueError:
            continue  # this system has no such way to start a process
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            np.testing.assert_array_equal(pool.submit(store.read_image, 4).result(), np.stack(images[4].planes))


def test_opening_a_store_writes_nothing(target: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    open_store(target).read_image(0)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def test_splits_are_ranges_of_rows(target: Path) -> None:
    store = open_store(target)
    assert [list(rows) for rows in store.split_rows("train")] == [[0, 1, 2], [3, 4, 5], [6]]
    assert store.split_rows(None) == store.split_rows("train")
    with pytest.raises(StoreError, match="no split 'test'; known are train"):
        store.split_rows("test")


def test_an_absent_store_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere: there is no store here \(no manifest\.json\)"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file: there is no store here"):
        open_store(tmp_path / "file")


@pytest.mark.parametrize("key", ["format_version", "schema_version"])
@pytest.mark.parametrize(("version", "advice"), [(999, "install a newer chammi75"), (0, "build the store again")])
def test_a_store_of_another_version_is_refused_with_what_to_do(
    target: Path, key: str, version: int, advice: str
) -> None:
    rewritten(target, **{key: version})
    with pytest.raises(StoreError, match=rf"manifest\.json: the store has {key} {version}.*reads \d+: {advice}"):
        open_store(target)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "zarr"}', b"[" * 100_000, b'{"format": 1}']
)
def test_what_is_no_manifest_is_refused(target: Path, content: bytes) -> None:
    (target / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        open_store(target)


def test_every_flipped_byte_of_a_manifest_is_found(target: Path) -> None:
    content = (target / "manifest.json").read_bytes()
    for at in range(len(content)):
        for flip in (1, 0x2A):  # 0x2A makes a line end of a space and back
            damaged = bytearray(content)
            damaged[at] ^= flip
            (target / "manifest.json").write_bytes(bytes(damaged))
            try:
                open_store(target)
            except StoreError:
                continue
            assert not verify(str(target)).is_sound, f"byte {at}: {content[at]} became {damaged[at]}"


@pytest.mark.parametrize("path", ["../other/train-00000.arrow", "/etc/hostname", "shards/../../x", "C:/x"])
def test_a_manifest_cannot_lead_out_of_its_store(target: Path, path: str) -> None:
    shards = json.loads((target / "manifest.json").read_bytes())["shards"]
    shards[0]["path"] = path
    rewritten(target, shards=shards)
    with pytest.raises(StoreError, match="refused"):
        open_store(target)


def test_a_shard_of_another_size_or_none_at_all_is_an_error(target: Path) -> None:
    shard = target / "shards" / "train-00001.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    with pytest.raises(StoreError, match=rf"train-00001\.arrow: the file has {len(content) - 9} bytes"):
        open_store(target).read_image(3)
    shard.unlink()
    with pytest.raises(StoreError, match=r"train-00001\.arrow: a file of the store is missing"):
        open_store(target).read_image(3)
    open_store(target).read_image(0)


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", bytes(500), b"ARROW1\0\0" + bytes(400) + b"ARROW1"])
def test_an_index_that_is_none_is_an_error(target: Path, content: bytes) -> None:
    index = json.loads((target / "manifest.json").read_bytes())["index"]
    (target / "index.arrow").write_bytes(content)
    index["arrow"]["bytes"] = len(content)
    rewritten(target, index=index)
    with pytest.raises(StoreError, match=r"index\.arrow is damaged"):
        _ = open_store(target).index


def test_a_plane_whose_size_differs_from_the_index_is_an_error_that_names_the_image(
    target: Path, images: list[Any]
) -> None:
    """Height and width within the last tiles are all that a plane itself cannot guard."""
    place = open_store(target).index.places(4)
    shard = target / "shards" / "train-00001.arrow"
    for at, edge in ((10 + 8, 140), (10 + 12 + 8, 150)):
        for bit in range(8):
            content = bytearray(shard.read_bytes())
            offset = place.plane_offsets[0] + at
            struct.pack_into("<I", content, offset, edge ^ 1 << bit)
            (target / "damaged.arrow").write_bytes(bytes(content))
            shards = json.loads((target / "manifest.json").read_bytes())["shards"]
            shards[1]["path"] = "damaged.arrow"
            rewritten(target, shards=shards)
            with pytest.raises(StoreError, match=r"damaged\.arrow: plate1/A04_\*\.tif: the plane is damaged"):
                open_store(target).read_plane(4, 0)
            np.testing.assert_array_equal(open_store(target).read_plane(3, 0), images[3].planes[0])


def test_a_shard_that_is_replaced_is_mapped_anew(target: Path, images: list[Any]) -> None:
    store = open_store(target)
    store.read_image(3)
    shard = target / "shards" / "train-00001.arrow"
    content = bytearray(shard.read_bytes())
    place = store.index.places(3)
    content[place.plane_offsets[0]] ^= 255
    (target / "new").write_bytes(bytes(content))
    (target / "new").replace(shard)
    with pytest.raises(StoreError, match="damaged"):
        store.read_image(3)


def test_importing_the_store_loads_nothing_heavy() -> None:
    code = (
        "import sys; import chammi75.store\n"
        "heavy = {'pyarrow', 'datasets', 'numba', 'torch', 'pandas', 'imagecodecs', 'tifffile', 'duckdb'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_knows_its_size(target: Path) -> None:
    store = open_store(target)
    assert isinstance(store, Store)
    assert len(store) == 7
    assert "images=7" in repr(store)


@pytest.mark.skipif(os.name != "posix", reason="limits of open files are of POSIX")
def test_more_files_are_mapped_than_may_be_open(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10)
    code = (
        "import resource, sys; from pathlib import Path; import pyarrow;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]));"
        "from chammi75.store.reader import map_file;"
        "files = sorted(Path(sys.argv[1]).iterdir(), key=lambda file: int(file.name));"
        "assert [map_file(str(file), 10)[0] for file in files] == list(range(100))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
