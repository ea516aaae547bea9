"""A published metadata CSV as columns: text with its distinct words, "unknown" as null, numbers as numbers.

The tables have up to 8 million rows, so nothing here goes through them one by one in Python: a column is kept as codes
into its distinct words, and it is the words that are stripped, compared with "unknown" and read as numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chammi75.errors import ReadError
from chammi75.files import StorageOptions, explain, open_url, reading_errors

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED_COLUMNS: tuple[str, ...] = (
    "experiment.study",
    "imaging.multi_channel_id",
    "imaging.channel",
    "geometry.width",
    "geometry.height",
)
"""Without these no image can be put together."""

PATH_COLUMN = "storage.path"
"""Which file a row is: the full table may lack it, where another table states it for the same rows."""

PUBLISHED_COLUMNS: tuple[str, ...] = (
    *(f"experiment.{name}" for name in ("study", "plate", "well", "reagent", "control")),
    *(f"biology.{name}" for name in ("organism", "cell_line", "cell_type")),
    *(f"imaging.{name}" for name in ("multi_channel_id", "panel", "channel", "channel_type")),
    *(f"microscopy.{name}" for name in ("type", "magnification", "fov")),
    *(f"geometry.{name}" for name in ("width", "height", "depth", "channels", "z_slice", "timepoint")),
    *(f"storage.{name}" for name in ("filename", "path")),
)
"""The columns of the published table, in its order."""

PIXEL_COLUMNS: tuple[str, ...] = ("geometry.dtype", "geometry.significant_bits")
"""Columns that the published table does not have, for planes that are not of 8 bits: an export of ours writes them."""

SOURCE_COLUMNS: tuple[str, ...] = tuple(f"provenance.{name}" for name in ("platform", "title", "license", "doi"))
"""Columns that the published table does not have, for what is known of a source: an export of ours writes them."""

_READ_COLUMNS = (*PUBLISHED_COLUMNS, *PIXEL_COLUMNS, *SOURCE_COLUMNS)
_DISTINCT_COLUMNS = ("imaging.multi_channel_id", PATH_COLUMN)  # about as many words as rows: no codes
_HEADER_BYTES = 2**20
_BLOCK_BYTES = 2**20
MOST_REPORTED = 100
"""How many cases of one kind are reported one by one."""
NULL = int(np.iinfo(np.int64).min)
"""Stands for null in arrays of whole numbers."""


class PublishedProblem(NamedTuple):
    """Something in a published table that does not fit: the fields of a build's finding, in its order."""

    kind: str
    path: str
    reason: str


@dataclass(frozen=True)
class TextColumn:
    """Text: ``words`` are its distinct values, ``codes`` (rows,) says which one a row has, -1 for null."""

    words: tuple[str, ...]
    codes: np.ndarray

    def take(self, rows: np.ndarray) -> TextColumn:
        """The column at ``rows``."""
        return TextColumn(self.words, self.codes[rows])

    def to_arrow(self) -> pa.Array:
        """The column as an Arrow string array."""
        return words_at(self.words, self.codes)


def words_at(words: tuple[str | None, ...], codes: np.ndarray) -> pa.Array:
    """``words[code]`` for every code as an Arrow string array; a negative code is null.

    Examples
    --------
    >>> words_at(("a", "b"), np.array([1, -1, 0])).to_pylist()
    ['b', None, 'a']
    """
    import pyarrow as pa

    return pa.array(words, pa.string()).take(pa.array(codes, mask=codes < 0))


def concatenated(*parts: pa.Array | str) -> pa.Array:
    """Text put together row by row; a null part makes null.

    Examples
    --------
    >>> import pyarrow as pa
    >>> concatenated("a/", pa.array(["b", None], pa.large_string())).to_pylist()
    ['a/b', None]
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    text = pa.large_string()
    wide = [pa.scalar(part, text) if isinstance(part, str) else part.cast(text) for part in parts]
    return pc.binary_join_element_wise(*wide, pa.scalar("", text))


@dataclass(frozen=True)
class PublishedRows:
    """The rows of one metadata CSV.

    Parameters
    ----------
    url : str
        The CSV.
    sha256 : str
        SHA-256 of its bytes.
    row : numpy.ndarray
        Shape (rows,), int64: each row's number as a spreadsheet shows it (the header is row 1).
    columns : dict
        The columns of text, by name; a column that the file lacks is all null.
    multi_channel_id, path : pyarrow.LargeStringArray
        The two columns in which hardly a word repeats.
    problems : tuple of PublishedProblem
        Rows that do not fit the header, and optional columns that are not there.
    has_paths : bool
        Whether there is a column that states files.
    """

    url: str
    sha256: str
    row: np.ndarray
    columns: dict[str, TextColumn]
    multi_channel_id: pa.Array
    path: pa.Array
    problems: tuple[PublishedProblem, ...]
    has_paths: bool = True


def table_name(url: str) -> str:
    """The file name of a table, by which problems name it: the same on every machine.

    Examples
    --------
    >>> table_name("s3://bucket/CHAMMI-75_train_metadata.csv"), table_name("zip://a/b.csv::/data/c.zip")
    ('CHAMMI-75_train_metadata.csv', 'b.csv')
    """
    return url.partition("::")[0].rsplit("/", 1)[-1]


def read_header(url: str, storage_options: StorageOptions | None = None) -> list[str]:
    """The column names in the first line of the CSV at ``url``; a byte order mark is no part of them."""
    with open_url(url, "rb", storage_options) as file:
        return _parse_header(file.read(_HEADER_BYTES), url)


def _parse_header(start: bytes, url: str) -> list[str]:
    lines = io.StringIO(start.decode("utf-8-sig", errors="replace"), newline="")
    try:
        names = next(csv.reader(lines), [])
    except csv.Error as error:
        raise ReadError(url, f"the first line is no CSV header ({error})") from error
    return [name.strip() for name in names]


def read_rows(url: str, storage_options: StorageOptions | None = None) -> PublishedRows:
    """Read a metadata CSV: UTF-8 with or without a byte order mark, any line ends, columns in any order, others left
    aside.

    Raises
    ------
    ReadError
        If the file is not there, is no UTF-8 CSV, or lacks a column of ``REQUIRED_COLUMNS``.
    """
    try:
        with open_url(url, "rb", storage_options) as file:
            return _read_rows(file, url)
    except reading_errors() as error:
        reason = explain(error, url, storage_options)
        raise ReadError(url, f"the metadata table cannot be read ({reason})") from error


def _read_rows(file: IO[bytes], url: str) -> PublishedRows:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    start = file.read(_HEADER_BYTES)
    header = _parse_header(start, url)
    _check_header(header, url)
    there = [name for name in _READ_COLUMNS if name in header]
    coded = pa.dictionary(pa.int32(), pa.string())
    skipped: list[Any] = []

    def skip(row: Any) -> str:
        skipped.append((row.number, row.actual_columns))
        return "skip"

    stream = _HashingReader(start, file)
    try:
        batches = list(
            arrow_csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                # One thread: only then does Arrow say the number of a row that it skips; and two are no faster.
                read_options=arrow_csv.ReadOptions(
                    column_names=_unique(header), skip_rows=1, use_threads=False, block_size=_BLOCK_BYTES
                ),
                parse_options=arrow_csv.ParseOptions(
                    newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=there,
                    column_types={name: pa.large_string() if name in _DISTINCT_COLUMNS else coded for name in there},
                ),
            )
        )
    except pa.ArrowInvalid as error:
        if not _only_header(start):
            raise ReadError(url, f"this is no CSV in UTF-8 ({error})") from error
        batches = []
    schema = pa.schema([(name, pa.large_string() if name in _DISTINCT_COLUMNS else coded) for name in there])
    table = pa.Table.from_batches(batches, schema)
    count = len(table)
    pieces = {name: table[name] for name in there}
    del batches, table  # so that each column's pieces are freed when it is put together
    row = np.arange(2, 2 + count + len(skipped), dtype=np.int64)
    row = np.delete(row, [number - 2 for number, _ in skipped])
    columns = {
        name: _text_column(pieces.pop(name)) if name in pieces else TextColumn((), np.full(count, -1, np.int8))
        for name in _READ_COLUMNS
        if name not in _DISTINCT_COLUMNS
    }
    multi_channel_id, path = (
        _stated(_one_chunk(pieces.pop(name))) if name in pieces else pa.nulls(count, pa.large_string())
        for name in _DISTINCT_COLUMNS
    )
    name_of_table = table_name(url)
    problems = [
        PublishedProblem(
            "unused_row", name_of_table, f"row {number} has {cells} cells, the header has {len(header)}; it is left out"
        )
        for number, cells in skipped[:MOST_REPORTED]
    ]
    if len(skipped) > MOST_REPORTED:
        more = len(skipped) - MOST_REPORTED
        problems.append(
            PublishedProblem(
                "unused_row", name_of_table, f"{more} more rows have a wrong number of cells; they are left out"
            )
        )
    problems += [
        PublishedProblem("note", name_of_table, f"there is no column {name}; it is unknown for all images")
        for name in PUBLISHED_COLUMNS
        if name not in there
    ]
    has_paths = PATH_COLUMN in there
    rows = PublishedRows(url, stream.digest(), row, columns, multi_channel_id, path, tuple(problems), has_paths)
    return _without_empty(rows)


def _without_empty(rows: PublishedRows) -> PublishedRows:
    """``rows`` less the empty lines (kept until here so that the rows' numbers are those of the file)."""
    nulls = [rows.multi_channel_id.is_null(), rows.path.is_null()]
    empty = np.logical_and.reduce([null.to_numpy(zero_copy_only=False) for null in nulls])
    if empty.any():
        empty &= np.logical_and.reduce([column.codes < 0 for column in rows.columns.values()])
    if not empty.any():
        return rows
    keep = np.flatnonzero(~empty)
    return PublishedRows(
        rows.url,
        rows.sha256,
        rows.row[keep],
        {name: column.take(keep) for name, column in rows.columns.items()},
        rows.multi_channel_id.take(keep),
        rows.path.take(keep),
        rows.problems,
        rows.has_paths,
    )


def _check_header(header: list[str], url: str) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    if missing:
        shown = ", ".join(header[:40]) + (" …" if len(header) > 40 else "") if any(header) else "none"
        raise ReadError(
            url,
            f"the published metadata table needs the columns {', '.join(missing)}, which are not there (there are:"
            f" {shown}). Name another table with metadata=",
        )
    repeated = sorted({name for name in _READ_COLUMNS if header.count(name) > 1})
    if repeated:
        raise ReadError(
            url, f"the columns {', '.join(repeated)} stand there more than once: remove all but one of each"
        )


def _unique(header: list[str]) -> list[str]:
    """Column names for Arrow: the others may repeat or be empty, which it would not take."""
    return [name if name in _READ_COLUMNS else f"\0{position}" for position, name in enumerate(header)]


def _only_header(start: bytes) -> bool:
    return b"\n" not in start.strip() and len(start) < _HEADER_BYTES


class _HashingReader(io.RawIOBase):
    """A file whose beginning was read before; it hashes what it gives to Arrow, so that it is read once."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        super().__init__()
        self._start = start
        self._file = file
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part, self._start = (self._start, b"") if size < 0 else (self._start[:size], self._start[size:])
        if not part or size < 0:
            part += self._file.read(size)
        self._sha256.update(part)
        return part

    def digest(self) -> str:
        """SHA-256 of the whole file, in hexadecimal."""
        while self.read(_BLOCK_BYTES):
            pass
        return self._sha256.hexdigest()


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _is_unknown(word: str) -> bool:
    return word == "" or word.casefold() == "unknown"


def _text_column(column: pa.ChunkedArray) -> TextColumn:
    array = _one_chunk(column.unify_dictionaries())
    codes_of: dict[str, int] = {}
    new_codes = [
        -1 if word is None or _is_unknown(word.strip()) else codes_of.setdefault(word.strip(), len(codes_of))
        for word in array.dictionary.to_pylist()
    ]
    lookup = np.array([*new_codes, -1], np.min_scalar_type(-len(new_codes) - 1))  # one byte a row for most columns
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return TextColumn(tuple(codes_of), lookup[codes])


def _stated(array: pa.Array) -> pa.Array:
    """Text without blanks around it; empty and "unknown" as null."""
    import pyarrow as pa
    from pyarrow import compute as pc

    array = pc.utf8_trim_whitespace(array)
    lengths = pc.binary_length(array).to_numpy(zero_copy_only=False)
    null = lengths == 0
    candidates = np.flatnonzero(lengths == len("unknown"))
    if len(candidates):
        null[candidates] = pc.equal(pc.utf8_lower(array.take(candidates)), "unknown").to_numpy(zero_copy_only=False)
    return pc.if_else(pa.array(null), pa.scalar(None, array.type), array) if null.any() else array


def whole_number(word: str) -> int | None:
    """The whole number that ``word`` is (``"3"``, ``"3.0"``), else None.

    Examples
    --------
    >>> whole_number("1080"), whole_number("1080.0"), whole_number("12px")
    (1080, 1080, None)
    """
    match = re.fullmatch(r"([+-]?[0-9]{1,18})(?:\.0*)?", word)
    return int(match[1]) if match else None


def magnification_number(word: str) -> float | None:
    """The magnification that ``word`` states: a positive number, alone or before an "x", else None.

    Examples
    --------
    >>> magnification_number("20x"), magnification_number("63X/1.4 oil"), magnification_number("abc")
    (20.0, 63.0, None)
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)\s*(?:[xX×](?:[\s/,;(].*)?)?", word)
    return (float(match[1]) or None) if match else None


def read_numbers(
    rows: PublishedRows, name: str, parse: Callable[[str], float | None], minimum: float, maximum: float
) -> tuple[np.ndarray, list[PublishedProblem]]:
    """A column of numbers: the value of each of its words, with one more at the end that stands for null.

    Parameters
    ----------
    rows : PublishedRows
        The table.
    name : str
        The column.
    parse : callable
        What a word means: ``whole_number`` or ``magnification_number``.
    minimum, maximum : float
        Numbers beyond these are read as null.

    Returns
    -------
    values : numpy.ndarray
        Shape (words + 1,): ``values[column.codes]`` is the number of each row. int64 with ``NULL``, or float64 with
        nan.
    problems : list of PublishedProblem
        Text where a number stands, each with the row where it first occurs.
    """
    column = rows.columns[name]
    numbers = [parse(word) for word in column.words]
    good = [number is not None and minimum <= number <= maximum for number in numbers]
    null: float = np.nan if parse is magnification_number else NULL
    values = np.array(
        [*(number if fits else null for number, fits in zip(numbers, good, strict=True)), null],
        np.float64 if parse is magnification_number else np.int64,
    )
    bad = np.array([not fits for fits in good] + [False])
    if not bad.any():
        return values, []
    where = np.flatnonzero(bad[column.codes])
    codes, first, count = np.unique(column.codes[where], return_index=True, return_counts=True)
    problems = []
    for code, position, times in list(zip(codes, first, count, strict=True))[:MOST_REPORTED]:
        more = f" and {times - 1} more" if times > 1 else ""
        problems.append(
            PublishedProblem(
                "note",
                table_name(rows.url),
                f"row {rows.row[where[position]]}{more}: {name} is {column.words[code][:80]!r}, which is no number"
                f" from {minimum:g} to {maximum:g}; it is read as unknown",
            )
        )
    if len(codes) > MOST_REPORTED:
        problems.append(
            PublishedProblem(
                "note", table_name(rows.url), f"{name}: {len(codes) - MOST_REPORTED} more values are no numbers"
            )
        )
    return values, problems
