"""Stores that consist of others: they grow without a shard being written, and say so when a part is not what it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chammi75.errors import StoreError
from chammi75.schemas.manifest import ManifestPart, StoreManifest
from chammi75.store import Store, open_store, verify
from chammi75.store.copy import copy_store
from chammi75.store.parts import combine, expand

Maker = Callable[..., Any]


@pytest.fixture
def two(store_writer: Maker, image_maker: Maker, tmp_path: Path) -> Path:
    """A folder with the stores ``a`` (4 images) and ``b`` (2)."""
    store_writer(tmp_path / "a", [image_maker(k, height=40, width=50) for k in (0, 5, 1, 4)])
    store_writer(tmp_path / "b", [image_maker(k, height=40, width=50) for k in (2, 3)])
    return tmp_path


def combined(folder: Path, *names: str, out: str = "c") -> Store:
    return combine([str(folder / name) for name in names], str(folder / out))


def rewritten(store: Path, **changes: Any) -> str:
    """Change a manifest, with its own hash made right; the hash of the new file."""
    manifest = StoreManifest.from_bytes((store / "manifest.json").read_bytes(), "m").model_copy(update=changes)
    (store / "manifest.json").write_bytes(manifest.to_bytes())
    return hashlib.sha256(manifest.to_bytes()).hexdigest()


def test_a_combined_store_is_one_file_that_names_its_parts_relative_to_it(two: Path) -> None:
    made = combined(two, "a", "b")
    assert [path.name for path in (two / "c").iterdir()] == ["manifest.json"]
    manifest = open_store(two / "c").manifest
    assert manifest == made.manifest
    assert (manifest.images, manifest.planes, manifest.codec, manifest.shards) == (6, 12, "zstd", [])
    assert [part.url for part in manifest.parts] == ["../a/manifest.json", "../b/manifest.json"]
    assert len(open_store(two / "c")) == 6
    assert [Path(part.url).name for part in expand(made)] == ["a", "b"]


def test_its_content_hash_is_that_of_one_store_of_all_images(
    two: Path, store_writer: Maker, image_maker: Maker
) -> None:
    store_writer(two / "all", [image_maker(k, height=40, width=50) for k in range(6)])
    made = combined(two, "a", "b")
    assert made.manifest.content_sha256 == open_store(two / "all").manifest.content_sha256
    assert made.manifest.pixel_bytes == open_store(two / "all").manifest.pixel_bytes


def test_all_can_be_moved_together(two: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    combined(two, "a", "b")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.move(two, elsewhere)
    assert [len(part) for part in expand(open_store(elsewhere / "c"))] == [4, 2]
    assert verify(str(elsewhere / "c")).is_sound


def test_a_dataset_grows_store_by_store(two: Path, store_writer: Maker, image_maker: Maker) -> None:
    combined(two, "a", "b")
    store_writer(two / "new", [image_maker(9)])
    grown = combined(two, "c", "new", out="d")
    assert [Path(part.url).name for part in expand(grown)] == ["a", "b", "new"]
    assert grown.manifest.images == 7
    (first, *_) = expand(grown)
    assert [Path(url).name for url, _ in first.collections] == ["d", "c"]
    with pytest.raises(StoreError, match="not empty"):
        combined(two, "a", "b", out="c")


def test_a_store_without_parts_is_the_only_one(two: Path) -> None:
    store = open_store(two / "a")
    assert expand(store) == [store]


def test_images_that_two_stores_share_are_refused_and_named(two: Path, store_writer: Maker, image_maker: Maker) -> None:
    store_writer(two / "more", [image_maker(k) for k in (2, 7, 3)])
    with pytest.raises(StoreError, match=r"share 2 images \('plate1/A02_\*\.tif', 'plate1/A03_\*\.tif'\)"):
        combined(two, "a", "b", "more")
    assert not (two / "c").exists()
    with pytest.raises(StoreError, match=r"share 4 images.*…"):
        combined(two, "a", "a")


def test_a_part_that_is_missing_or_another_one_is_named(two: Path, store_writer: Maker, image_maker: Maker) -> None:
    made = combined(two, "a", "b")
    (two / "b").rename(two / "gone")
    with pytest.raises(StoreError, match=r"c: a part of it cannot be used: \S+b: there is no store here"):
        expand(made)
    store_writer(two / "b", [image_maker(8)])
    for use in (expand, lambda store: verify(store.url), lambda store: copy_store(store.url, str(two / "copy"))):
        with pytest.raises(StoreError, match=r"a part of it cannot be used: \S+b: .* another one than it was"):
            use(made)


def test_a_store_that_is_its_own_part_is_refused(two: Path) -> None:
    combined(two, "a", "b")
    rewritten(two / "c", parts=[ManifestPart(url="../c/manifest.json", sha256="0" * 64)])
    with pytest.raises(StoreError, match="the store is a part of itself"):
        expand(open_store(two / "c"))


def test_a_part_that_is_named_twice_is_refused(two: Path) -> None:
    parts = combined(two, "a", "b").manifest.parts
    rewritten(two / "c", parts=[*parts, parts[0]])
    with pytest.raises(StoreError, match="is a part of it twice"):
        expand(open_store(two / "c"))


def test_a_store_with_images_of_its_own_and_parts_comes_apart(two: Path) -> None:
    whole = combined(two, "a", "b").manifest
    part = ManifestPart(url="../b/manifest.json", sha256=whole.parts[1].sha256)
    before = open_store(two / "a").manifest
    counts = {name: getattr(whole, name) for name in ("images", "planes", "pixel_bytes", "content_sha256")}
    rewritten(two / "a", parts=[part], **counts)
    own, other = expand(open_store(two / "a"))
    assert (len(open_store(two / "a")), len(own), len(other)) == (6, 4, 2)
    for name in ("images", "planes", "pixel_bytes", "content_sha256"):
        assert getattr(own.manifest, name) == getattr(before, name)
    assert verify(str(two / "a")).is_sound
    rows = np.array([0, 2, 5])
    copy_store(str(two / "a"), str(two / "copy"), rows=rows)
    ids = [store.index.table.column("image_id").to_pylist() for store in (own, other)]
    kept = [(ids[0] + ids[1])[row] for row in rows]
    assert open_store(two / "copy").index.table.column("image_id").to_pylist() == kept


def test_a_store_of_parts_has_no_index_of_its_own_and_says_so(two: Path) -> None:
    made = combined(two, "a", "b")
    with pytest.raises(StoreError, match="consists of others"):
        _ = made.index
    with pytest.raises(StoreError, match="the manifest is damaged"):
        rewritten(two / "c", parts=[])
        open_store(two / "c")


def test_damage_in_a_part_is_found_and_names_its_file(two: Path) -> None:
    combined(two, "a", "b")
    shard = two / "b" / "shards" / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[open_store(two / "b").index.places(1).plane_offsets[0] + 200] ^= 1
    shard.write_bytes(bytes(content))
    report = verify(str(two / "c"))
    assert (report.files, report.images) == (7, 6)
    (damage,) = report.damages
    assert Path(damage.file) == shard
    assert damage.image_id == "plate1/A03_*.tif"


def test_a_copy_of_a_store_of_parts_is_one_flat_store_of_the_same_content(two: Path) -> None:
    made = combined(two, "a", "b")
    report = copy_store(made.url, str(two / "flat"))
    assert report.manifest.parts == []
    assert report.manifest.content_sha256 == made.manifest.content_sha256
    assert verify(str(two / "flat")).is_sound


def test_parts_of_two_codecs_go_together_but_not_into_one_store(
    two: Path, store_writer: Maker, image_maker: Maker
) -> None:
    store_writer(two / "deflated", [image_maker(9)], codec="deflate")
    made = combined(two, "a", "deflated")
    assert made.manifest.codec is None
    assert [part.manifest.codec for part in expand(open_store(two / "c"))] == ["zstd", "deflate"]
    with pytest.raises(StoreError, match=r"compressed in different ways \(deflate, zstd\)"):
        copy_store(made.url, str(two / "flat"))
    report = copy_store(made.url, str(two / "flat"), rows=np.array([4]))
    assert (report.manifest.codec, report.manifest.images) == ("deflate", 1)


def test_in_a_bucket_parts_are_named_relative_too_and_a_folder_of_this_machine_is_refused(two: Path) -> None:
    import fsspec

    from chammi75.store.parts import _part_url, _relative

    assert _relative("s3://bucket/data/c", "s3://bucket/data/a/manifest.json") == "../a/manifest.json"
    assert _part_url("s3://bucket/data/c", "../a/manifest.json") == "s3://bucket/data/a"
    assert _relative("s3://bucket/c", "s3://other/a/manifest.json") == "s3://other/a/manifest.json"
    assert _part_url("s3://bucket/c", "s3://other/a/manifest.json") == "s3://other/a"
    assert _relative("zip://c::s3://b/x.zip", "zip://a/manifest.json::s3://b/x.zip") == "../a/manifest.json"
    assert _part_url("zip://c::s3://b/x.zip", "../a/manifest.json") == "zip://a::s3://b/x.zip"
    with pytest.raises(StoreError, match="outside of what this URL can reach"):
        _part_url("s3://bucket/c", "../../other/a/manifest.json")
    with pytest.raises(StoreError, match="must not name a folder of this machine"):
        _part_url("s3://bucket/c", f"{two}/a/manifest.json")
    with pytest.raises(StoreError, match="named by the URL of its manifest"):
        _part_url("s3://bucket/c", "../a")
    with pytest.raises(StoreError, match="which others do not see"):
        combine([str(two / "a")], "memory://combined")
    assert not fsspec.filesystem("memory").exists("memory://combined")
    copy_store(str(two / "a"), "memory://parts/a")
    copy_store(str(two / "b"), "memory://parts/b")
    made = combine(["memory://parts/a", "memory://parts/b"], "memory://parts/c")
    assert [part.url for part in made.manifest.parts] == ["../a/manifest.json", "../b/manifest.json"]
    assert verify("memory://parts/c").is_sound
    fsspec.filesystem("memory").rm("memory://parts", recursive=True)


def test_an_older_reader_s_manifest_without_parts_is_as_before(two: Path) -> None:
    values = json.loads((two / "a" / "manifest.json").read_bytes())
    assert values["parts"] == [] and values["codec"] == "zstd" and values["index"] is not None
