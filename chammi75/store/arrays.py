"""``index.arrow`` as numpy arrays that look into its memory: nothing is copied, so a process holds no index of its own.

What is asked of millions of rows is asked for a few of them at a time: where their planes are, how large they are,
which words they have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes
    ----------
    values : ndarray
        One per row; anything where the row has null.
    validity : ndarray of uint8 or None
        A bit per row, least significant first; None if no row has null.
    """

    values: NDArray[Any]
    validity: NDArray[np.uint8] | None

    def valid(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows have a value."""
        return _bits(self.validity, rows)


@dataclass(frozen=True)
class Lists:
    """A column of lists of numbers: those of row k are ``items.values[starts[k] : starts[k + 1]]``."""

    starts: NDArray[np.int32]
    items: Numbers
    validity: NDArray[np.uint8] | None

    def valid(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows have a list."""
        return _bits(self.validity, rows)


@dataclass(frozen=True)
class Words:
    """A column of words: numbers into a list of the different ones; -1 where a row has null."""

    values: list[Any]
    codes: Numbers

    def at(self, rows: Rows) -> NDArray[np.int32]:
        """Numbers of the words of some rows."""
        return np.where(self.codes.valid(rows), self.codes.values[rows], np.int32(-1)).astype(np.int32)


@dataclass(frozen=True)
class IndexArrays:
    """The columns that a loader asks.

    Attributes
    ----------
    shard, height, width, significant_bits : Numbers
    plane_offsets, plane_lengths, cells : Lists
        Bytes of each plane in its shard; cells of each channel.
    centroids_offset, sizes_offset : Numbers
    study, dtype : Words
    channel_types : Words
        Its values are tuples: the types of all channels of an image.
    """

    shard: Numbers
    height: Numbers
    width: Numbers
    significant_bits: Numbers
    plane_offsets: Lists
    plane_lengths: Lists
    cells: Lists
    centroids_offset: Numbers
    sizes_offset: Numbers
    study: Words
    dtype: Words
    channel_types: Words

    @classmethod
    def of(cls, table: pa.Table) -> IndexArrays:
        """The arrays of an index.

        Parameters
        ----------
        table : pyarrow.Table
            One chunk per column, with the columns of ``index_schema()``.
        """
        columns = {name: _chunk(table, name) for name in table.schema.names}
        channel_types = _words(columns["channel_types"])
        types = [tuple(json.loads(text)) for text in channel_types.values]
        return cls(
            shard=_numbers(columns["shard"]),
            height=_numbers(columns["height"]),
            width=_numbers(columns["width"]),
            significant_bits=_numbers(columns["significant_bits"]),
            plane_offsets=_lists(columns["plane_offsets"]),
            plane_lengths=_lists(columns["plane_lengths"]),
            cells=_lists(columns["cells"]),
            centroids_offset=_numbers(columns["centroids_offset"]),
            sizes_offset=_numbers(columns["sizes_offset"]),
            study=_words(columns["study"]),
            dtype=_words(columns["dtype"]),
            channel_types=Words(types, channel_types.codes),
        )


def _chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    if column.num_chunks != 1:
        raise StoreError(f"index.arrow is damaged: its column {name} comes in {column.num_chunks} pieces, not one")
    return column.chunk(0)


def _numbers(array: pa.Array) -> Numbers:
    validity, data = array.buffers()[-2:]
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)
    return Numbers(values, _bitmap(array, validity))


def _lists(array: pa.ListArray) -> Lists:
    starts = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, 4 * array.offset)
    return Lists(starts, _numbers(array.values), _bitmap(array, array.buffers()[0]))


def _words(array: pa.DictionaryArray) -> Words:
    return Words(array.dictionary.to_pylist(), _numbers(array.indices))


def _bitmap(array: pa.Array, validity: pa.Buffer | None) -> NDArray[np.uint8] | None:
    if validity is None or not array.null_count:
        return None
    if array.offset:
        raise StoreError("index.arrow is damaged: a column begins in the middle of its memory")
    return np.frombuffer(validity, np.uint8)


def _bits(validity: NDArray[np.uint8] | None, rows: Rows) -> NDArray[np.bool_]:
    if validity is None:
        return np.ones(len(rows), bool)
    bits = validity[rows >> 3] >> (rows & 7).astype(np.uint8)
    return np.asarray(bits & 1, bool)
