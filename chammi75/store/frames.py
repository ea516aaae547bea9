"""The frames of a shard's Arrow stream, checked before Arrow reads what they say.

Arrow verifies that a message is a flatbuffer, and then believes its numbers: a damaged schema or length ends the
process. So the schema is compared instead of read, and the lengths of a record batch are checked here first. The format
is that of the Arrow columnar format 1.5, "Serialization and Interprocess Communication", and of ``Message.fbs``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from chammi75.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + bytes(4)

_RECORD_BATCH = 3
"""What ``MessageHeader`` calls a record batch."""


def check_schema(content: pa.Buffer) -> None:
    """Refuse a shard whose first message is not the schema of shards, byte by byte as this version of Arrow writes it.

    For shards that are damaged: others may have been written by another version.

    Raises
    ------
    StoreError
        If it differs: no reader can be trusted with it.
    """
    from chammi75.schemas.arrow import shard_schema

    expected = shard_schema().serialize()
    if not content.slice(0, min(expected.size, content.size)).equals(expected):
        raise StoreError("its Arrow schema is damaged, or was written by another version of Arrow")


def end_of_schema(content: pa.Buffer) -> int:
    """Where the first message of a stream ends; a schema has no body.

    Raises
    ------
    StoreError
        If the stream does not begin with a message.
    """
    head = bytes(content[:8])
    length = int.from_bytes(head[4:], "little")
    if len(head) < 8 or head[:4] != CONTINUATION or not 0 < length <= content.size - 8:
        raise StoreError("it does not begin as an Arrow stream does")
    return 8 + length


def check_batch(message: pa.Message, schema: pa.Schema) -> None:
    """Refuse a record batch whose lengths cannot be true.

    Raises
    ------
    StoreError
        If a number of rows is negative or differs between columns, or a buffer leads out of the message.
    """
    try:
        found = _layout(bytes(message.metadata))
    except (struct.error, IndexError) as error:
        raise StoreError("a record batch of it has damaged metadata") from error
    size = 0 if message.body is None else message.body.size
    if len(found.buffers) != _expected_buffers(schema):
        raise StoreError("a record batch of it has another number of columns than a shard")
    for offset, length in found.buffers:
        if offset < 0 or length < 0 or offset + length > size:
            raise StoreError("a record batch of it has columns that lead out of it")
    nodes = iter(found.nodes)
    for field in schema:
        _check_node(field.type, found.rows, nodes)
    if next(nodes, None) is not None:
        raise StoreError("a record batch of it has another number of columns than a shard")


def _check_node(kind: pa.DataType, rows: int | None, nodes: Iterator[tuple[int, int]]) -> None:
    """Check the length of an array, which must have ``rows`` values (any number if None), and of those within it."""
    import pyarrow as pa

    length, nulls = next(nodes, (-1, 0))
    if length < 0 or not 0 <= nulls <= length or (rows is not None and length != rows):
        raise StoreError("a record batch of it has damaged lengths")
    if pa.types.is_struct(kind):
        for field in kind:
            _check_node(field.type, length, nodes)
    elif pa.types.is_fixed_size_list(kind):
        _check_node(kind.value_type, length * kind.list_size, nodes)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_node(kind.value_type, None, nodes)


@dataclass(frozen=True)
class _Layout:
    """Numbers of a record batch: its rows, (length, nulls) of each array, (offset, length) of each buffer."""

    rows: int
    nodes: list[tuple[int, int]]
    buffers: list[tuple[int, int]]


def _layout(metadata: bytes) -> _Layout:
    """Read the flatbuffer of a record batch's message."""
    (message,) = struct.unpack_from("<I", metadata, 0)
    kind = _slot(metadata, message, 1)
    header = _slot(metadata, message, 2)
    if kind is None or header is None or metadata[kind] != _RECORD_BATCH:
        raise StoreError("it has a message that is no record batch")
    batch = _target(metadata, header)
    if _slot(metadata, batch, 3) is not None:
        raise StoreError("a record batch of it is compressed, which no shard is")
    rows = _slot(metadata, batch, 0)
    return _Layout(
        0 if rows is None else struct.unpack_from("<q", metadata, rows)[0],
        _pairs(metadata, _slot(metadata, batch, 1)),
        _pairs(metadata, _slot(metadata, batch, 2)),
    )


def _slot(metadata: bytes, table: int, number: int) -> int | None:
    """Where a field of a table lies; None if it is left out."""
    (back,) = struct.unpack_from("<i", metadata, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError(vtable)
    (size,) = struct.unpack_from("<H", metadata, vtable)
    if 4 + 2 * number + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)
    return table + offset if offset else None


def _target(metadata: bytes, place: int) -> int:
    return int(place + struct.unpack_from("<I", metadata, place)[0])


def _pairs(metadata: bytes, place: int | None) -> list[tuple[int, int]]:
    """A vector of structs of two whole numbers."""
    if place is None:
        return []
    vector = _target(metadata, place)
    (count,) = struct.unpack_from("<I", metadata, vector)
    if count > len(metadata) // 16:
        raise IndexError(count)
    numbers = struct.unpack_from(f"<{2 * count}q", metadata, vector + 4)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@lru_cache(maxsize=4)
def _expected_buffers(schema: pa.Schema) -> int:
    import pyarrow as pa

    empty = pa.RecordBatch.from_pylist([], schema).serialize()
    return len(_layout(bytes(pa.ipc.read_message(empty).metadata)).buffers)
