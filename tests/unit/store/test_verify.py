"""verify: any byte that is not as it was written is found, and the image that it hits is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chammi75.errors import StoreError
from chammi75.store import VerifyReport, open_store, verify

Maker = Callable[..., Any]
IMAGES = 6


@pytest.fixture(scope="module")
def sound(store_writer: Maker, image_maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store of two shards, the first of several record batches; some images have cells."""
    folder = tmp_path_factory.mktemp("verify") / "store"
    images = [image_maker(k, height=40, width=50) for k in range(IMAGES)]
    store_writer(folder, images, per_shard=4, batch_bytes=6000)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(sound: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in sound.items():
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_bytes(content)
    return tmp_path / "store"


def image_id(number: int) -> str:
    return f"plate1/A{number:02d}_*.tif"


def named(report: VerifyReport) -> set[str]:
    return {damage.image_id for damage in report.damages if damage.image_id is not None}


def flipped(target: Path, name: str, at: int, flip: int = 1) -> VerifyReport:
    """What verify says of a store with one byte flipped; the byte is put right again."""
    content = (target / name).read_bytes()
    damaged = bytearray(content)
    damaged[at] ^= flip
    (target / name).write_bytes(bytes(damaged))
    try:
        return verify(str(target))
    finally:
        (target / name).write_bytes(content)


def test_a_store_as_it_was_written_is_sound(target: Path, sound: dict[str, bytes]) -> None:
    seen: list[int] = []
    report = verify(str(target), advance=seen.append)
    assert report.is_sound
    assert (report.files, report.images) == (4, IMAGES)
    size = sum(len(content) for name, content in sound.items() if name != "manifest.json")
    assert report.bytes == sum(seen) == size


def test_each_plane_and_each_cell_names_its_image_and_no_other(target: Path) -> None:
    store = open_store(target)
    for row in range(IMAGES):
        place = store.index.places(row)
        name = store.manifest.shards[place.shard].path
        places = [offset + k for offset, length in zip(place.plane_offsets, place.plane_lengths, strict=True)
                  for k in (0, 9, 30, 159, 200, length - 1)]  # fmt: skip
        if place.cell_count:
            assert place.centroids_offset is not None and place.sizes_offset is not None
            places += [place.centroids_offset, place.centroids_offset + 8 * place.cell_count - 1]
            places += [place.sizes_offset, place.sizes_offset + 4 * place.cell_count - 1]
        for at in places:
            report = flipped(target, name, at)
            assert [(damage.file, damage.image_id) for damage in report.damages] == [(name, image_id(row))], at


def visible(name: str, content: bytes) -> Any:
    """All that a reader of a file sees: its values, and of a shard what datasets makes of them."""
    if name.endswith(".parquet"):
        return pq.read_table(pa.BufferReader(content)).to_pylist()
    if name == "index.arrow":
        return pa.ipc.open_file(pa.BufferReader(content)).read_all().to_pylist()
    return pa.ipc.open_stream(pa.BufferReader(content)).read_all().to_pylist()


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_byte_anywhere_is_reported_and_names_an_image_if_it_changes_what_a_reader_sees(
    target: Path, sound: dict[str, bytes], seed: int
) -> None:
    randomly = random.Random(seed)
    count = 0
    for name, content in sorted(sound.items()):
        for _ in range(40):
            at, flip = randomly.randrange(len(content)), 1 << randomly.randrange(8)
            where = f"{name}: byte {at} ^ {flip}"
            count += 1
            try:
                report = flipped(target, name, at, flip)
            except StoreError:
                assert name == "manifest.json", where
                continue
            assert not report.is_sound, where
            assert {damage.file for damage in report.damages} == {name}, where
            if name == "manifest.json" or named(report):
                continue
            reasons = " ".join(damage.reason for damage in report.damages)
            if name.startswith("index") and "cannot be read" in reasons:
                continue  # what describes the whole file, not one image
            assert "no image is hit" in reasons, where
            damaged = bytearray(content)
            damaged[at] ^= flip
            assert visible(name, bytes(damaged)) == visible(name, content), where
    assert count == 40 * len(sound)


def test_words_of_a_record_in_a_shard_name_their_image(target: Path, sound: dict[str, bytes]) -> None:
    for row in range(IMAGES):
        name = f"shards/train-0000{row // 4}.arrow"
        at = sound[name].index(image_id(row).encode())
        report = flipped(target, name, at + 8)  # still text
        assert named(report) == {image_id(row)}
        report = flipped(target, name, at + 8, 0x80)  # no Unicode any more
        assert named(report) == {image_id(row)}


def test_words_of_an_image_in_the_index_name_it(target: Path, sound: dict[str, bytes]) -> None:
    for row in range(IMAGES):
        at = sound["index.arrow"].index(image_id(row).encode())
        for flip in (1, 0x80):
            report = flipped(target, "index.arrow", at + 8, flip)
            assert named(report) == {image_id(row)}
            assert {damage.file for damage in report.damages} == {"index.arrow"}


@pytest.mark.parametrize("column", ["stored_sha256", "content_sha256"])
def test_a_hash_in_the_index_names_its_image(target: Path, sound: dict[str, bytes], column: str) -> None:
    digests = open_store(target).index.table.column(column).to_pylist()
    for row, digest in enumerate(digests):
        report = flipped(target, "index.arrow", sound["index.arrow"].index(digest) + 5)
        assert [damage.image_id for damage in report.damages] == [image_id(row)]


@pytest.mark.parametrize("length", [0, 1, 500, -1])
def test_a_shard_cut_short_names_the_images_that_are_cut(target: Path, sound: dict[str, bytes], length: int) -> None:
    name = "shards/train-00000.arrow"
    (target / name).write_bytes(sound[name][:length])
    report = verify(str(target))
    assert {damage.file for damage in report.damages} == {name}
    assert named(report) == ({image_id(k) for k in range(4)} if length >= 0 else set())


def test_a_shard_cut_in_the_middle_leaves_the_images_before_it_unnamed(target: Path, sound: dict[str, bytes]) -> None:
    name = "shards/train-00000.arrow"
    cut = open_store(target).index.places(2).plane_offsets[1] + 50
    (target / name).write_bytes(sound[name][:cut])
    assert named(verify(str(target))) == {image_id(2), image_id(3)}


def test_bytes_after_the_end_are_found(target: Path) -> None:
    for name in ("shards/train-00001.arrow", "index.parquet", "index.arrow"):
        with open(target / name, "ab") as file:
            file.write(b"more")
    assert {damage.file for damage in verify(str(target)).damages} == {
        "shards/train-00001.arrow",
        "index.parquet",
        "index.arrow",
    }


@pytest.mark.parametrize("name", ["shards/train-00000.arrow", "index.parquet", "index.arrow"])
def test_a_file_that_is_gone_is_reported_with_the_images_that_went_with_it(target: Path, name: str) -> None:
    (target / name).unlink()
    report = verify(str(target))
    assert {damage.file for damage in report.damages} == {name}
    assert report.damages[0].image_id is None
    assert named(report) == ({image_id(k) for k in range(4)} if "shards" in name else set())


def test_a_store_without_a_manifest_cannot_be_verified(target: Path) -> None:
    (target / "manifest.json").unlink()
    with pytest.raises(StoreError, match="there is no store here"):
        verify(str(target))


@pytest.mark.parametrize("seed", range(3))
def test_damage_in_several_files_at_once_is_all_reported(target: Path, sound: dict[str, bytes], seed: int) -> None:
    """What a damaged file says is not believed when another damage is located, and nothing goes wrong over it."""
    randomly = random.Random(seed)
    names = [name for name in sorted(sound) if name != "manifest.json"]
    for _ in range(15):
        chosen = randomly.sample(names, randomly.randint(2, len(names)))
        for name in chosen:
            kind = randomly.choice(["flip", "flips", "cut", "gone", "zeros"])
            content = bytearray(sound[name])
            if kind == "gone":
                (target / name).unlink()
                continue
            if kind == "cut":
                del content[randomly.randrange(len(content)) :]
            for _ in range({"flip": 1, "flips": 200}.get(kind, 0)):
                content[randomly.randrange(len(content))] ^= randomly.randrange(1, 256)
            if kind == "zeros":
                content[:] = bytes(len(content))
            (target / name).write_bytes(bytes(content))
        report = verify(str(target))
        differing = {n for n in chosen if not (target / n).exists() or (target / n).read_bytes() != sound[n]}
        assert {damage.file for damage in report.damages} == differing
        for name in chosen:
            (target / name).write_bytes(sound[name])
    assert verify(str(target)).is_sound
