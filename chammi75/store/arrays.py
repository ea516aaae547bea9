"""``index.arrow`` as numpy arrays that look into its memory: nothing is copied, so a process holds no index of its own.

What is asked of millions of rows is asked for a few of them at a time: where their planes are, how large they are,
which words they have. The file is mapped, and read whole by nobody before it is used: so all that points somewhere is
looked at when it is followed. Whatever is wrong in it becomes a StoreError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import StoreError
from chammi75.store.plane import STORED_DTYPES

if TYPE_CHECKING:
    import pyarrow as pa

Rows = NDArray[np.int64]

_BEYOND = "points beyond the shards of the store"
_VERIFY = "chammi75 verify says what is left of the store"


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

    def spans(self, rows: Rows, lengths: NDArray[np.integer[Any]] | None = None) -> tuple[Rows, Rows]:
        """Where the lists of some rows begin and end in ``items``.

        Parameters
        ----------
        lengths : ndarray of int, optional
            How long the lists are that are not null.

        Raises
        ------
        StoreError
            If they point elsewhere, or are not as long.
        """
        begins, ends = _spans(self.starts, rows, len(self.items.values))
        if lengths is not None:
            _refuse(self.valid(rows) & (ends - begins != lengths), rows, "has lists that do not fit its channels")
        return begins, ends

    def of(self, row: int) -> list[int | None] | None:
        """The list of one row."""
        rows = np.array([row], np.int64)
        (begin,), (end,) = self.spans(rows)
        if not self.valid(rows)[0]:
            return None
        places = np.arange(begin, end)
        numbers, known = self.items.values[places].tolist(), self.items.valid(places).tolist()
        return [number if is_known else None for number, is_known in zip(numbers, known, strict=True)]


@dataclass(frozen=True)
class Strings:
    """A column of strings: that of row k is ``content[starts[k] : starts[k + 1]]``, in UTF-8."""

    starts: NDArray[np.int32]
    content: NDArray[np.uint8]

    def at(self, rows: Rows) -> list[str]:
        """The strings of some rows.

        Raises
        ------
        StoreError
            If one is none.
        """
        begins, ends = _spans(self.starts, rows, len(self.content))
        parts = [self.content[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        try:
            return [part.tobytes().decode() for part in parts]
        except UnicodeDecodeError as error:
            raise StoreError(f"index.arrow is damaged: a name is no text ({error}): {_VERIFY}") from error


@dataclass(frozen=True)
class Words:
    """A column of words: numbers into a list of the different ones; -1 where a row has null."""

    values: list[Any]
    codes: Numbers

    def at(self, rows: Rows) -> NDArray[np.int32]:
        """Numbers of the words of some rows.

        Raises
        ------
        StoreError
            If there is no such word.
        """
        valid, codes = self.codes.valid(rows), self.codes.values[rows]
        _refuse(valid & ((codes < 0) | (codes >= len(self.values))), rows, "has a word that there is not")
        return np.where(valid, codes, np.int32(-1)).astype(np.int32)

    def known_at(self, rows: Rows) -> NDArray[np.int32]:
        """The same of rows that must have a word.

        Raises
        ------
        StoreError
            If one has none.
        """
        codes = self.at(rows)
        _refuse(codes < 0, rows, "lacks a word")
        return codes


@dataclass(frozen=True)
class IndexArrays:
    """The columns that a loader asks.

    Attributes
    ----------
    image_id : Strings
    shard, height, width, significant_bits : Numbers
    plane_offsets, plane_lengths, cells : Lists
        Bytes of each plane in its shard; cells of each channel.
    centroids_offset, sizes_offset : Numbers
    study, dtype : Words
    channel_types : Words
        Its values are tuples: the types of all channels of an image.
    """

    image_id: Strings
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

        Raises
        ------
        StoreError
            If it is damaged.
        """
        import pyarrow as pa

        try:
            return cls._of({name: _chunk(table, name) for name in table.schema.names})
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"index.arrow is damaged ({error}): {_VERIFY}") from error

    @classmethod
    def _of(cls, columns: dict[str, pa.Array]) -> IndexArrays:
        dtypes, channel_types = _words(columns["dtype"]), _words(columns["channel_types"])
        unknown = [name for name in dtypes.values if name not in STORED_DTYPES]
        if unknown:
            raise StoreError(f"index.arrow is damaged: planes are of {', '.join(STORED_DTYPES)}, not {unknown[0]!r}")
        types = [tuple(json.loads(text)) for text in channel_types.values]
        return cls(
            image_id=_strings(columns["image_id"]),
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
            dtype=dtypes,
            channel_types=Words(types, channel_types.codes),
        )

    def cell_spans(self, rows: Rows) -> tuple[Rows, Rows]:
        """Where the cells of the channels of some rows begin and end in ``cells.items``.

        Raises
        ------
        StoreError
            If they are not one number for each channel.
        """
        return self.cells.spans(rows, self._channel_counts(rows))

    def plane_places(self, rows: Rows, channels: Rows, shard_bytes: Rows) -> tuple[Rows, Rows, Rows]:
        """Shard, offset and length of one plane of each of some rows.

        Parameters
        ----------
        rows, channels : ndarray of int64, shape (N,)
        shard_bytes : ndarray of int64, shape (S,)
            Size of each shard.

        Raises
        ------
        StoreError
            If one is not inside its shard.
        """
        counts = self._channel_counts(rows)
        _refuse((channels < 0) | (channels >= counts), rows, "has no such channel")
        offsets, lengths = (
            column.items.values[column.spans(rows, counts)[0] + channels].astype(np.int64)
            for column in (self.plane_offsets, self.plane_lengths)
        )
        shards = self.shards_of(rows, len(shard_bytes))
        check_inside(rows, offsets, lengths, shard_bytes[shards])
        return shards, offsets, lengths

    def shards_of(self, rows: Rows, count: int) -> Rows:
        """Numbers of the shards of some rows.

        Raises
        ------
        StoreError
            If there are only ``count``.
        """
        shards = self.shard.values[rows].astype(np.int64)
        _refuse((shards < 0) | (shards >= count), rows, _BEYOND)
        return shards

    def _channel_counts(self, rows: Rows) -> NDArray[np.int64]:
        counts = np.array([*map(len, self.channel_types.values), 0], np.int64)  # -1 looks the last one up
        return counts[self.channel_types.at(rows)]


def check_inside(rows: Rows, offsets: Rows, lengths: Rows, shard_bytes: Rows) -> None:
    """Refuse bytes of some rows that are not inside their shards, of ``shard_bytes`` bytes each.

    Raises
    ------
    StoreError
        If some are not.
    """
    _refuse((offsets < 0) | (lengths < 1) | (lengths > shard_bytes - offsets), rows, _BEYOND)


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


def _strings(array: pa.StringArray) -> Strings:
    _, starts, content = array.buffers()
    return Strings(
        np.frombuffer(starts, np.int32, len(array) + 1, 4 * array.offset), np.frombuffer(content or b"", np.uint8)
    )


def _words(array: pa.DictionaryArray) -> Words:
    array.dictionary.validate(full=True)  # there are few, and Arrow itself follows where they point
    return Words(array.dictionary.to_pylist(), _numbers(array.indices))


def _bitmap(array: pa.Array, validity: pa.Buffer | None) -> NDArray[np.uint8] | None:
    if validity is None or not array.null_count:
        return None
    if array.offset:
        raise StoreError("index.arrow is damaged: a column begins in the middle of its memory")
    return np.frombuffer(validity, np.uint8, (len(array) + 7) // 8)


def _bits(validity: NDArray[np.uint8] | None, rows: Rows) -> NDArray[np.bool_]:
    if validity is None:
        return np.ones(len(rows), bool)
    bits = validity[rows >> 3] >> (rows & 7).astype(np.uint8)
    return np.asarray(bits & 1, bool)


def _spans(starts: NDArray[np.int32], rows: Rows, length: int) -> tuple[Rows, Rows]:
    begins, ends = starts[rows].astype(np.int64), starts[rows + 1].astype(np.int64)
    _refuse((begins < 0) | (ends < begins) | (ends > length), rows, "points beyond its column")
    return begins, ends


def _refuse(wrong: NDArray[np.bool_], rows: Rows, what: str) -> None:
    if wrong.any():
        raise StoreError(f"index.arrow is damaged: row {rows[int(wrong.argmax())]} {what}: {_VERIFY}")
