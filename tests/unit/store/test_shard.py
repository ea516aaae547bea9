"""Shards: standard Arrow streams whose byte ranges are known."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chammi75.errors import ChammiError, StoreError
from chammi75.schemas import Biology, Geometry, ImageRecord, Imaging, Provenance, Storage
from chammi75.schemas.arrow import record_schema, shard_schema
from chammi75.store import EncodedImage, ShardWriter, content_digest, decode_plane
from chammi75.store.shard import WrittenShard, cells_from_bytes, read_batches

Maker = Callable[..., Any]


def closed(images: list[EncodedImage], batch_bytes: int = 32 * 10**6) -> tuple[bytes, WrittenShard]:
    file = io.BytesIO()
    writer = ShardWriter(file, batch_bytes)
    for image in images:
        writer.write(image)
    shard = writer.close()
    return file.getvalue(), shard


@pytest.mark.parametrize("batch_bytes", [1, 60_000, 32 * 10**6])
def test_planes_and_cells_lie_exactly_where_the_places_say(image_maker: Maker, batch_bytes: int) -> None:
    images = [image_maker(k, channels=1 + k % 4, dtype=["uint8", "uint16", "float32"][k % 3]) for k in range(7)]
    encoded = [image.encoded() for image in images]
    content, shard = closed(encoded, batch_bytes)
    assert (shard.rows, shard.bytes, shard.sha256) == (7, len(content), hashlib.sha256(content).hexdigest())
    for image, packed, place in zip(images, encoded, shard.places.to_pylist(), strict=True):
        ranges = zip(place["plane_offsets"], place["plane_lengths"], strict=True)
        stored = [content[offset : offset + length] for offset, length in ranges]
        assert stored == list(packed.planes)
        for plane, pixels in zip(stored, image.planes, strict=True):
            assert decode_plane(plane).tobytes() == pixels.tobytes()
        if not image.cells:
            assert place["cells"] is place["centroids_offset"] is place["sizes_offset"] is None
            continue
        assert place["cells"] == [None if cells is None else len(cells.sizes) for cells in image.cells]
        count = sum(n or 0 for n in place["cells"])
        at_xy, at_sizes = place["centroids_offset"] or 0, place["sizes_offset"] or 0
        xy, sizes = content[at_xy : at_xy + 8 * count], content[at_sizes : at_sizes + 4 * count]
        found = cells_from_bytes(place["cells"], xy, sizes)
        assert found is not None
        for cells, expected in zip(found, image.cells, strict=True):
            assert (cells is None) == (expected is None)
            if cells is not None and expected is not None:
                np.testing.assert_array_equal(cells.centroids, expected.centroids)
                np.testing.assert_array_equal(cells.sizes, expected.sizes)


def test_any_arrow_reader_opens_a_shard_and_sees_the_same(image_maker: Maker) -> None:
    images = [image_maker(k) for k in range(5)]
    content, _ = closed([image.encoded() for image in images], 100_000)
    assert content.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    with pa.ipc.open_stream(content) as stream:
        table = stream.read_all()
    table.validate(full=True)
    rows = table.to_pylist()
    assert [row["image_id"] for row in rows] == [image.record.image_id for image in images]
    for row, image in zip(rows, images, strict=True):
        assert [plane["path"] for plane in row["planes"]] == [None, None]
        for plane, pixels in zip(row["planes"], image.planes, strict=True):
            assert decode_plane(plane["bytes"]).tobytes() == pixels.tobytes()
        if not image.cells:
            assert row["annotation"] is None
        else:
            expected = [None if cells is None else cells.centroids.tolist() for cells in image.cells]
            assert row["annotation"]["centroids"] == expected
            assert row["annotation"]["sizes"] == [
                None if cells is None else cells.sizes.tolist() for cells in image.cells
            ]
        record = image.record.model_dump()
        assert {name: row[name] for name in record} == record


def test_the_schema_is_what_datasets_writes_for_lists_of_images() -> None:
    from datasets import Features, Image, List

    features = Features.from_arrow_schema(shard_schema())
    assert features["planes"] == List(Image())
    assert Features.from_arrow_schema(features.arrow_schema) == features
    stated = json.loads(shard_schema().metadata[b"huggingface"])
    assert json.loads(features.arrow_schema.metadata[b"huggingface"]) == stated
    planes = shard_schema().field("planes").type
    assert planes == features.arrow_schema.field("planes").type
    assert planes.value_type.field("bytes").type == pa.binary()
    assert all(field.nullable for field in (*shard_schema(), *planes.value_type))


def test_record_batches_hold_at_most_32_mb_of_planes(image_maker: Maker) -> None:
    image = image_maker(0, channels=1, height=16, width=16)
    digest = content_digest(image.record, image.planes, [])
    large = EncodedImage(image.record, [bytes(11 * 10**6)], [], digest)
    huge = EncodedImage(image.record, [bytes(20 * 10**6), bytes(20 * 10**6)], [], digest)
    content, shard = closed([large, large, large, large, huge, large])
    batches = [batch for _, _, batch in read_batches(pa.py_buffer(content))]
    sizes = [sum(len(p["bytes"]) for row in batch.column("planes").to_pylist() for p in row) for batch in batches]
    assert [batch.num_rows for batch in batches] == [2, 2, 1, 1]
    assert sizes == [22 * 10**6, 22 * 10**6, 40 * 10**6, 11 * 10**6]  # one image is never cut
    assert shard.rows == 6


class Sink:
    """A file that counts what it takes and keeps its parts that begin at 4 GiB or later."""

    def __init__(self) -> None:
        self.position = 0
        self.kept: list[tuple[int, bytes]] = []

    def write(self, content: Any) -> int:
        if self.position >= 2**32:
            self.kept.append((self.position, bytes(content)))
        self.position += len(content)
        return len(content)


def test_a_shard_goes_beyond_4_gib(image_maker: Maker) -> None:
    image = image_maker(1, channels=2, height=20, width=20)
    sink = Sink()
    writer = ShardWriter(sink)  # type: ignore[arg-type]
    beyond = 2**32 + 8 * 12_345
    sink.position = writer._position = beyond  # as if so much had been written: only the position is made up
    for _ in range(3):
        writer.write(image.encoded())
    shard = writer.close()
    assert shard.places.schema.field("plane_offsets").type == pa.list_(pa.int64())
    assert shard.bytes == sink.position > beyond
    base = sink.kept[0][0]
    content = b"".join(part for _, part in sink.kept)
    for place in shard.places.to_pylist():
        for offset, length, pixels in zip(place["plane_offsets"], place["plane_lengths"], image.planes, strict=True):
            assert offset > 2**32
            assert decode_plane(content[offset - base : offset - base + length]).tobytes() == pixels.tobytes()
        assert place["centroids_offset"] > 2**32


def test_an_image_beyond_2_gib_is_refused_and_nothing_of_it_is_written(image_maker: Maker) -> None:
    image = image_maker(0, channels=1, height=16, width=16)
    file = io.BytesIO()
    writer = ShardWriter(file)
    writer.write(image.encoded())
    before = file.tell()
    plane = bytes(2**29)  # zero pages: no memory is touched
    with pytest.raises(ChammiError, match=r"plate1/A00_\*\.tif.*2 GiB"):
        writer.write(EncodedImage(image.record, [plane] * 4, [], b"\0" * 32))
    assert file.tell() == before
    assert writer.close().rows == 1


def test_an_empty_shard_is_a_stream_without_batches() -> None:
    content, shard = closed([])
    assert shard.rows == 0
    with pa.ipc.open_stream(content) as stream:
        assert stream.read_all().num_rows == 0


def test_the_records_that_a_shard_gives_are_those_of_the_index(image_maker: Maker) -> None:
    _, shard = closed([image_maker(k).encoded() for k in range(4)], 50_000)
    assert shard.records.schema.equals(record_schema())
    assert shard.records.to_pylist() == [image_maker(k).record.model_dump() for k in range(4)]


def test_the_content_hash_knows_records_pixels_and_cells_but_no_codec(image_maker: Maker) -> None:
    image = image_maker(1)
    digest = image.encoded("zstd").content_sha256
    assert digest == image.encoded("deflate").content_sha256
    assert digest == content_digest(image.record, [plane.astype(">u2") for plane in image.planes], image.cells)
    other = [plane.copy() for plane in image.planes]
    other[1][-1, -1] ^= 1
    assert content_digest(image.record, other, image.cells) != digest
    assert content_digest(image.record, [plane.T for plane in image.planes], image.cells) != digest
    assert content_digest(image.record, image.planes[::-1], image.cells) != digest
    assert content_digest(image.record, image.planes, []) != digest
    assert content_digest(image.record, image.planes, [None, image.cells[0]]) != digest
    assert content_digest(image_maker(2).record, image.planes, image.cells) != digest


def test_a_stream_that_is_cut_short_is_an_error_after_its_whole_batches(image_maker: Maker) -> None:
    content, _ = closed([image_maker(k).encoded() for k in range(4)], 1)
    starts = [start for start, _, _ in read_batches(pa.py_buffer(content))]
    assert len(starts) == 4
    for cut in (starts[2], starts[2] + 4, starts[2] + 300, starts[3] - 1, len(content) - 1):
        seen = 0
        with pytest.raises(StoreError):
            for _ in read_batches(pa.py_buffer(content[:cut])):
                seen += 1
        assert seen in (2, 3, 4)
        assert seen == sum(end <= cut for end in (*starts[1:], len(content) - 8))


def test_cells_of_the_wrong_number_are_an_error() -> None:
    with pytest.raises(StoreError, match="cells"):
        cells_from_bytes([2], bytes(8), bytes(4))


def test_a_shard_on_disk_is_the_same_bytes_as_in_memory(image_maker: Maker, tmp_path: Path) -> None:
    images = [image_maker(k).encoded() for k in range(3)]
    content, _ = closed(images)
    with open(tmp_path / "shard.arrow", "wb") as file:
        writer = ShardWriter(file)
        for image in images:
            writer.write(image)
        writer.close()
    assert (tmp_path / "shard.arrow").read_bytes() == content


def test_an_image_without_cells_has_no_place_for_them(image_maker: Maker) -> None:
    """The address of an empty Arrow buffer is arbitrary: it would differ from run to run."""
    image = image_maker(2)
    assert [None if cells is None else len(cells.sizes) for cells in image.cells] == [None, 0]
    _, shard = closed([image.encoded(), image_maker(1).encoded()], 1)
    place, other = shard.places.to_pylist()
    assert (place["cells"], place["centroids_offset"], place["sizes_offset"]) == ([None, 0], None, None)
    assert 0 < other["centroids_offset"] < other["sizes_offset"] < shard.bytes


def test_the_content_digest_counts_what_is_known_and_not_what_the_record_could_hold() -> None:
    record = ImageRecord(
        image_id="a/b.tif",
        imaging=Imaging(channel=[1], channel_type=["nucleus"], panel=[None]),
        geometry=Geometry(width=2, height=2, channels=1, dtype="uint8"),
        storage=Storage(filename=["b.tif"], path=["b.tif"]),
    )
    pixels = [np.zeros((2, 2), np.uint8)]
    digest = content_digest(record, pixels, [])
    provenance = Provenance(reader_version="9.9", checksum=[])
    assert content_digest(record.model_copy(update={"provenance": provenance}), pixels, []) == digest
    assert content_digest(record.model_copy(update={"biology": Biology(organism="Homo sapiens")}), pixels, []) != digest
    assert content_digest(record, [np.ones((2, 2), np.uint8)], []) != digest
    assert content_digest(record, [np.zeros((2, 2), np.uint16)], []) != digest
    # pinned: a later version must give the same hash for the same image
    assert digest.hex() == "d6896524fa0a1902bf8d9bcb3117a5d4bb0be4ddc82f2e9ee384b16527151e2c"
