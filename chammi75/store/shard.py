"""Shards: Arrow IPC stream files of images, written one record batch at a time with every plane's byte range noted.

A stream file is the schema message, the record batches, and an end mark. A batch is serialised in memory first; there
the address of each buffer less the address of the message is its place in the file. So any file object will do as a
target, a local disk is not needed, and ranges are exact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.schemas.record import ImageRecord
from chammi75.store.frames import END_OF_STREAM, check_batch, end_of_schema

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 32 * 10**6
"""A record batch holds at most this many bytes of planes (but at least one image)."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one channel.

    Attributes
    ----------
    centroids : ndarray, shape (n, 2), float32
        Positions as (x, y), in pixels.
    sizes : ndarray, shape (n,), float32
        Size of each cell, as the source gives it.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that is ready to be written.

    Attributes
    ----------
    record : ImageRecord
    planes : sequence of bytes
        Encoded planes, in the order of the record's lists.
    cells : sequence of Cells or None
        Cells of each channel; None where there are none known. Empty if the image has no annotation.
    content_sha256 : bytes
        Hash over pixels, record and cells (see ``content_digest``).
    """

    record: ImageRecord
    planes: Sequence[bytes]
    cells: Sequence[Cells | None]
    content_sha256: bytes


def content_digest(record: ImageRecord, pixels: Sequence[NDArray[Any]], cells: Sequence[Cells | None]) -> bytes:
    """SHA-256 over what an image is, whatever codec or library version wrote it.

    It covers what is known in the record (but for the version of the reader), the pixels of each plane with dtype and
    shape, and the cells. What is unknown does not count, so that a field that the record gains later changes no hash.
    """
    values = _known(record.model_dump(mode="json", exclude={"provenance": {"reader_version"}}))
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    for plane in pixels:
        plane = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<"))
        digest.update(f"|{plane.dtype.str}{plane.shape}".encode())
        digest.update(hashlib.sha256(plane.data).digest())
    for entry in cells:
        digest.update(b"|none" if entry is None else f"|{len(entry.sizes)}".encode())
        if entry is not None:
            digest.update(np.ascontiguousarray(entry.centroids, "<f4").data)
            digest.update(np.ascontiguousarray(entry.sizes, "<f4").data)
    return digest.digest()


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """A record's values without those that say nothing: null, empty lists, groups of such."""
    kept = {name: _known(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value not in (None, [], {})}


@dataclass
class WrittenShard:
    """What writing a shard gave.

    Attributes
    ----------
    rows, bytes : int
    sha256 : str
        Of the file.
    records : pyarrow.Table
        The record of each image, as in ``index.parquet``.
    places : pyarrow.Table
        Where everything is in the shard: columns of ``places_schema()``.
    """

    rows: int
    bytes: int
    sha256: str
    records: pa.Table
    places: pa.Table


def places_schema() -> pa.Schema:
    """Where an image's planes and cells are in its shard, in bytes from the file's start.

    ``cells`` is the number of cells per channel (null: not known); the centroids of all channels follow one another
    from ``centroids_offset`` on (two float32 a cell), the sizes from ``sizes_offset`` on (one float32 a cell); both are
    null where there is no cell.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("plane_offsets", pa.list_(pa.int64())),
            pa.field("plane_lengths", pa.list_(pa.int64())),
            pa.field("cells", pa.list_(pa.int32())),
            pa.field("centroids_offset", pa.int64()),
            pa.field("sizes_offset", pa.int64()),
            pa.field("stored_sha256", pa.binary(32)),
            pa.field("content_sha256", pa.binary(32)),
        ]
    )


@dataclass
class ShardWriter:
    """Writes images to a file object, in the order in which they come.

    Examples
    --------
    >>> import io
    >>> writer = ShardWriter(io.BytesIO())
    >>> writer.close().rows
    0
    """

    file: IO[bytes]
    batch_bytes: int = BATCH_BYTES
    _position: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    _waiting: list[EncodedImage] = field(default_factory=list)
    _waiting_bytes: int = 0
    _records: list[Any] = field(default_factory=list)
    _places: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        from chammi75.schemas.arrow import shard_schema

        self._schema = shard_schema()
        self._write(self._schema.serialize())

    def write(self, image: EncodedImage) -> None:
        """Add an image.

        Raises
        ------
        ChammiError
            If its planes take more than 2 GiB, which one Arrow value cannot hold.
        OSError
            If the target cannot take the bytes.
        """
        size = sum(len(plane) for plane in image.planes)
        if size > 2**31 - 2**20:
            raise ChammiError(
                f"{image.record.image_id}: its planes take {size} bytes, one image may take 2 GiB in a shard"
            )
        if self._waiting and self._waiting_bytes + size > self.batch_bytes:
            self._flush()
        self._waiting.append(image)
        self._waiting_bytes += size

    def close(self) -> WrittenShard:
        """Write what is left and the end mark, and say what was written. The file object stays open."""
        import pyarrow as pa

        from chammi75.schemas.arrow import record_schema

        if self._waiting:
            self._flush()
        self._write(END_OF_STREAM)
        records = pa.Table.from_batches(self._records, record_schema())
        places = pa.Table.from_batches(self._places, places_schema())
        return WrittenShard(records.num_rows, self._position, self._digest.hexdigest(), records, places)

    def _flush(self) -> None:
        batch = _to_batch(self._waiting, self._schema)
        message = batch.serialize()
        places = locate(message, self._schema, self._position)
        content = [image.content_sha256 for image in self._waiting]
        self._places.append(_with_digests(places, message, self._position, content))
        self._records.append(
            batch.select([name for name in batch.schema.names if name not in ("planes", "annotation")])
        )
        self._write(message)
        self._waiting, self._waiting_bytes = [], 0

    def _write(self, content: Any) -> None:
        view = memoryview(content)
        self.file.write(view)
        self._digest.update(view)
        self._position += len(view)


def _to_batch(images: Sequence[EncodedImage], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    records = [image.record.model_dump() for image in images]
    columns: list[Any] = []
    for column in schema:
        if column.name == "planes":
            columns.append(_planes_array(images, column.type))
        elif column.name == "annotation":
            columns.append(_annotation_array(images, column.type))
        else:
            columns.append(pa.array([record[column.name] for record in records], column.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _planes_array(images: Sequence[EncodedImage], data_type: pa.DataType) -> pa.Array:
    import pyarrow as pa

    struct_type = data_type.value_type
    content = pa.array([plane for image in images for plane in image.planes], pa.binary())
    values = pa.StructArray.from_arrays([content, pa.nulls(len(content), pa.string())], fields=list(struct_type))
    offsets = np.cumsum([0, *(len(image.planes) for image in images)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=data_type)


def _annotation_array(images: Sequence[EncodedImage], data_type: pa.DataType) -> pa.Array:
    """The cells as nested lists over one buffer of centroids and one of sizes; an image without annotation is null."""
    import pyarrow as pa

    channels = [entry for image in images for entry in image.cells]
    known = [entry for entry in channels if entry is not None]
    ends = np.cumsum([0, *(len(entry.sizes) if entry is not None else 0 for entry in channels)])
    absent = pa.array([entry is None for entry in channels], pa.bool_())
    xy = np.concatenate([np.asarray(entry.centroids, "<f4").reshape(-1) for entry in known] or [np.empty(0, "<f4")])
    size = np.concatenate([np.asarray(entry.sizes, "<f4") for entry in known] or [np.empty(0, "<f4")])
    centroid_type, size_type = data_type.field("centroids").type, data_type.field("sizes").type
    points = pa.FixedSizeListArray.from_arrays(pa.array(xy, pa.float32()), type=centroid_type.value_type.value_type)
    outer = pa.array(np.cumsum([0, *(len(image.cells) for image in images)]), pa.int32())
    columns = []
    for values, list_type in ((points, centroid_type), (pa.array(size, pa.float32()), size_type)):
        inner = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, type=list_type.value_type, mask=absent)
        columns.append(pa.ListArray.from_arrays(outer, inner, type=list_type))
    unannotated = pa.array([not image.cells for image in images], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(data_type), mask=unannotated)


def locate(message: pa.Buffer, schema: pa.Schema, position: int) -> dict[str, Any]:
    """Where the planes and cells of a serialised record batch are in the file that it stands in.

    Parameters
    ----------
    message : pyarrow.Buffer
        The batch as it stands in the file.
    schema : pyarrow.Schema
    position : int
        Where in the file the message begins.

    Returns
    -------
    dict
        Arrow arrays and lists by the names of ``places_schema()``, without the digests.
    """
    import pyarrow as pa

    batch = pa.ipc.read_record_batch(message, schema)
    base = position - message.address
    planes = batch.column("planes")
    content = planes.values.field("bytes")
    ends = np.frombuffer(content.buffers()[1], np.int32, len(content) + 1, content.offset * 4).astype(np.int64)
    start = content.buffers()[2].address + base if content.buffers()[2] is not None else 0
    offsets = pa.ListArray.from_arrays(planes.offsets, pa.array(start + ends[:-1]))
    lengths = pa.ListArray.from_arrays(planes.offsets, pa.array(np.diff(ends)))
    annotation = batch.column("annotation")
    centroids, sizes = annotation.field("centroids"), annotation.field("sizes")
    outer = centroids.offsets.to_numpy()
    inner = centroids.values.offsets.to_numpy()
    bounds = inner[outer].astype(np.int64)
    first = bounds[:-1]
    empty = first == bounds[1:]  # no cell has no place: an empty buffer lies anywhere, even below a null
    counts = pa.array(np.diff(inner), pa.int32(), mask=centroids.values.is_null().to_numpy(zero_copy_only=False))
    xy, size = centroids.values.values.values, sizes.values.values
    return {
        "plane_offsets": offsets,
        "plane_lengths": lengths,
        "cells": pa.ListArray.from_arrays(pa.array(outer, pa.int32()), counts, mask=annotation.is_null()),
        "centroids_offset": pa.array(np.where(empty, 0, _address(xy) + base + 8 * first), pa.int64(), mask=empty),
        "sizes_offset": pa.array(np.where(empty, 0, _address(size) + base + 4 * first), pa.int64(), mask=empty),
    }


def _address(values: pa.Array) -> int:
    buffer = values.buffers()[1]
    return 0 if buffer is None else int(buffer.address) + 4 * int(values.offset)


def _with_digests(places: dict[str, Any], message: pa.Buffer, position: int, content: list[bytes]) -> pa.RecordBatch:
    import pyarrow as pa

    view = memoryview(message)
    stored = [
        stored_digest(place, lambda offset, length: view[offset - position : offset - position + length])
        for place in pa.table(places).to_pylist()
    ]
    binary = pa.binary(32)
    columns = {**places, "stored_sha256": pa.array(stored, binary), "content_sha256": pa.array(content, binary)}
    schema = places_schema()
    return pa.RecordBatch.from_arrays(
        [columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema
    )


def stored_digest(place: dict[str, Any], read: Any) -> bytes:
    """SHA-256 over the stored bytes of an image: planes, centroids, sizes, as ``read(offset, length)`` gives them."""
    digest = hashlib.sha256()
    for offset, length in zip(place["plane_offsets"], place["plane_lengths"], strict=True):
        digest.update(read(offset, length))
    cells = sum(count or 0 for count in place["cells"] or ())
    if cells:
        digest.update(read(place["centroids_offset"], 8 * cells))
        digest.update(read(place["sizes_offset"], 4 * cells))
    return digest.digest()


def cells_from_bytes(counts: Sequence[int | None] | None, centroids: bytes, sizes: bytes) -> list[Cells | None] | None:
    """The cells of each channel, out of the bytes at an image's ``centroids_offset`` and ``sizes_offset``."""
    if counts is None:
        return None
    xy = np.frombuffer(centroids, "<f4").reshape(-1, 2)
    size = np.frombuffer(sizes, "<f4")
    if len(size) != len(xy) or len(size) != sum(count or 0 for count in counts):
        raise StoreError("the cells are cut short")
    entries: list[Cells | None] = []
    start = 0
    for count in counts:
        entries.append(None if count is None else Cells(xy[start : start + count], size[start : start + count]))
        start += count or 0
    return entries


def read_batches(content: pa.Buffer) -> Iterator[tuple[int, pa.Buffer, pa.RecordBatch]]:
    """The record batches of a shard: where each begins, its bytes, and what it holds (not validated).

    The schema in the shard is taken for that of shards, and not read (see ``chammi75.store.frames``).

    Raises
    ------
    StoreError
        If the stream is damaged; batches before the damage have been given by then.
    """
    import pyarrow as pa

    from chammi75.schemas.arrow import shard_schema

    schema = shard_schema()
    reader = pa.BufferReader(content)
    try:
        reader.seek(end_of_schema(content))
        while True:
            start = reader.tell()
            if bytes(content[start : start + 8]) == END_OF_STREAM:
                return
            check_batch(pa.ipc.read_message(reader), schema)
            part = content.slice(start, reader.tell() - start)
            yield start, part, pa.ipc.read_record_batch(part, schema)
    except (pa.ArrowException, EOFError, OSError) as error:
        raise StoreError(f"its Arrow stream is damaged ({error})") from error
