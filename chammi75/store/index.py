"""The index files: ``index.parquet`` for people and SQL, ``index.arrow`` for the loader, one row per image in both.

``index.arrow`` is memory-mapped: opening it costs the same for ten images and for ten million, and all workers share
its pages. It has where everything is in the shards, and what a stream yields beside pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import StoreError
from chammi75.store.arrays import IndexArrays
from chammi75.store.facets import Facet, facet_columns, facet_types
from chammi75.store.shard import WrittenShard, places_schema

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 8192
"""Rows in a row group of ``index.parquet``: what a loader reads to yield the record of one image."""


class BinaryTarget(Protocol):
    """What pyarrow writes a file to."""

    def write(self, content: Any, /) -> int:
        """Write bytes."""


def index_schema() -> pa.Schema:
    """Arrow schema of ``index.arrow``."""
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            pa.field("image_id", pa.string()),
            pa.field("shard", pa.int32()),
            *places_schema(),
            *(pa.field(name, data_type) for name, data_type in facet_types().items()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("dtype", word),
            pa.field("significant_bits", pa.int32()),
        ]
    )


class ParquetIndexWriter:
    """Writes ``index.parquet`` as shards come in, in row groups of one size, whatever the shards' sizes."""

    def __init__(self, file: BinaryTarget) -> None:
        import pyarrow.parquet as pq

        from chammi75.schemas.arrow import record_schema

        self._writer = pq.ParquetWriter(file, record_schema(), compression="zstd", write_statistics=True)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, records: pa.Table) -> None:
        """Add the records of a shard."""
        self._waiting.append(records)
        self._rows += records.num_rows
        while self._rows >= ROW_GROUP:
            self._write(ROW_GROUP)

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._rows:
            self._write(self._rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._waiting)
        self._writer.write_table(table.slice(0, rows), row_group_size=ROW_GROUP)
        self._waiting = [table.slice(rows)]
        self._rows -= rows


def index_part(number: int, shard: WrittenShard) -> pa.Table:
    """The rows of ``index.arrow`` for the shard ``number``, its words in dictionaries of their own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    records = shard.records.combine_chunks()
    geometry = records.column("geometry").chunk(0)
    columns = {
        "image_id": records.column("image_id"),
        "shard": pa.array(np.full(shard.rows, number, np.int32)),
        **{name: shard.places.column(name) for name in places_schema().names},
        **facet_columns(records),
        "dtype": pc.dictionary_encode(pc.struct_field(geometry, "dtype")),
        **{name: pc.struct_field(geometry, name) for name in ("height", "width", "significant_bits")},
    }
    schema = index_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def index_table(parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of ``index.arrow``: the parts one after the other, with one dictionary for each column of words."""
    import pyarrow as pa

    if not parts:
        return index_schema().empty_table()
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def write_arrow_index(file: BinaryTarget, table: pa.Table) -> None:
    """Write ``index.arrow``: an Arrow IPC file, uncompressed, one record batch."""
    import pyarrow as pa

    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows, 1))


@dataclass(frozen=True)
class Places:
    """Where one image is: its shard and byte ranges (see ``places_schema``)."""

    row: int
    image_id: str
    shard: int
    plane_offsets: list[int]
    plane_lengths: list[int]
    cells: list[int | None] | None
    centroids_offset: int | None
    sizes_offset: int | None

    @property
    def cell_count(self) -> int:
        """Cells of all channels together."""
        return sum(count or 0 for count in self.cells or ())


class ArrowIndex:
    """``index.arrow``, opened.

    Parameters
    ----------
    table : pyarrow.Table
        Its one record batch.
    """

    def __init__(self, table: pa.Table) -> None:
        if not table.schema.equals(index_schema()):
            raise StoreError("index.arrow does not have the columns of this version's index")
        self.table = table

    @classmethod
    def from_buffer(cls, content: pa.Buffer) -> ArrowIndex:
        """Open the index in a buffer, without copying it.

        Raises
        ------
        StoreError
            If it is no index.
        """
        import pyarrow as pa

        try:
            return cls(pa.ipc.open_file(pa.BufferReader(content)).read_all())
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"index.arrow is damaged ({error})") from error

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def places(self, row: int) -> Places:
        """Where the image of a row is.

        Raises
        ------
        StoreError
            If the index is damaged there.
        """
        arrays, rows = self.arrays, np.array([row], np.int64)
        offsets, lengths = arrays.plane_offsets.of(row), arrays.plane_lengths.of(row)
        if offsets is None or lengths is None or len(offsets) != len(lengths) or None in offsets or None in lengths:
            raise StoreError(f"index.arrow is damaged: row {row} does not say where its planes are")
        first_cells = [
            int(column.values[row]) if column.valid(rows)[0] else None
            for column in (arrays.centroids_offset, arrays.sizes_offset)
        ]
        return Places(
            row,
            arrays.image_id.at(rows)[0],
            int(arrays.shard.values[row]),
            [int(offset or 0) for offset in offsets],
            [int(length or 0) for length in lengths],
            arrays.cells.of(row),
            *first_cells,
        )

    @cached_property
    def arrays(self) -> IndexArrays:
        """Its columns as numpy arrays.

        Raises
        ------
        StoreError
            If the index is damaged.
        """
        return IndexArrays.of(self.table)

    def facet(self, name: str) -> Facet:
        """A facet of all images (see ``chammi75.store.facets.FACETS``).

        Raises
        ------
        StoreError
            If the index is damaged there.
        """
        import pyarrow as pa

        column = self.table.column(name).chunk(0)
        try:
            column.validate(full=True)
        except pa.ArrowException as error:
            raise StoreError(f"index.arrow is damaged: its column {name} ({error})") from error
        return Facet.from_column(column)

    @cached_property
    def shards(self) -> NDArray[np.int32]:
        """Number of each image's shard, shape (images,)."""
        return np.asarray(self.table.column("shard").to_numpy())
