"""Reads the tables that people keep beside their images, as they come out of spreadsheets and instruments."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice

from chammi75.build.planned import Finding
from chammi75.build.spreadsheets import is_spreadsheet, read_sheet
from chammi75.errors import RecipeError

_DELIMITERS = (",", ";", "\t")
_MOST_ABOVE = 50  # rows among which the header is looked for
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_STATED_DELIMITER = re.compile(r"sep=(.)(\r\n|\r|\n)", re.IGNORECASE)  # how Excel states it


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its number as a spreadsheet counts (the header is row 1), and its cells by column, trimmed.

    A grid has a row for each cell that holds something, and ``cell`` is its place (``C4``).
    """

    number: int
    cells: dict[str, str]
    cell: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"cell {self.cell}" if self.cell else f"row {self.number}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table. ``columns`` are its column names in order; ``rows`` hold the cells of the wanted columns only."""

    path: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Cells:
    """What stands in a file, row by row: the number of the first row, and what separates cells (``""`` in a sheet)."""

    rows: list[list[str]]
    first: int
    delimiter: str


def read_table(
    content: bytes, path: str, wanted: Iterable[str], delimiter: str | None = None, sheet: str | None = None
) -> tuple[Table, list[Finding]]:
    r"""Read a table of rows below a header: CSV, TSV or XLSX, told by the content.

    The header is the row with the names of the wanted columns; titles may stand above it.

    Parameters
    ----------
    content : bytes
        The file.
    path : str
        Its path, for messages.
    wanted : iterable of str
        Names of the columns that are needed.
    delimiter, sheet : str, optional
        As for :func:`read_cells`.

    Returns
    -------
    table : Table
    findings : list of Finding
        Rows above the header (``note``), rows that are shorter than it (``note``: what they lack is empty) or longer
        (``unused_row``: left out, as nobody knows which of its cells is one too many), and what :func:`read_cells`
        remarks.

    Raises
    ------
    RecipeError
        If a wanted column is missing or there twice, or the file is no table: with path and columns.

    Examples
    --------
    >>> table, _ = read_table(b"well;line\r\nA01;U2OS\r\n", "plate.csv", ["well", "line"])
    >>> table.rows
    (Row(number=2, cells={'well': 'A01', 'line': 'U2OS'}),)
    """
    needed = list(dict.fromkeys(wanted))

    def count_needed(record: Sequence[str]) -> int:
        return len(set(needed) & {cell.strip() for cell in record})

    cells, findings = read_cells(content, path, count_needed, delimiter, sheet)
    written = [at for at, record in enumerate(cells.rows) if any(cell.strip() for cell in record)]
    if not written:
        raise RecipeError(f"{path}: the table is empty; a first row with the names of its columns is needed")
    header_at = max(written[:_MOST_ABOVE], key=lambda at: count_needed(cells.rows[at]))  # the first of equals
    columns = tuple(cell.strip() for cell in cells.rows[header_at])
    places = _find_columns(columns, needed, path, findings)
    if above := written.index(header_at):
        reason = f"row {cells.first + header_at} is its header; {above} row{'' if above == 1 else 's'} above it"
        findings.append(Finding("note", path, f"{reason} {'is' if above == 1 else 'are'} not read"))
    rows = []
    for number, record in enumerate(cells.rows[header_at + 1 :], start=cells.first + header_at + 1):
        if not any(cell.strip() for cell in record):
            continue  # a blank line, or the empty rows that spreadsheets export below a table
        if len(record) != len(columns):
            more = any(cell.strip() for cell in record[len(columns) :])
            if more:
                reason = f"row {number} has {len(record)} cells, the header has {len(columns)}: left out"
                hint = f"put cells that hold {cells.delimiter!r} in quotes"
                findings.append(Finding("unused_row", path, f"{reason} ({hint})"))
                continue
            if len(record) < len(columns):
                reason = (
                    f"row {number} has {len(record)} cells, the header has {len(columns)}: the others count as empty"
                )
                findings.append(Finding("note", path, reason))
        rows.append(Row(number, {name: record[at].strip() if at < len(record) else "" for name, at in places.items()}))
    return Table(path, columns, tuple(rows)), findings


def read_cells(
    content: bytes, path: str, rate: Callable[[Sequence[str]], int], delimiter: str | None, sheet: str | None
) -> tuple[Cells, list[Finding]]:
    """What stands in the rows of a CSV, TSV or XLSX file.

    Of text any line ends (LF, CRLF, CR, mixed), quoted cells of several lines, UTF-8 with or without byte order mark,
    UTF-16 and UTF-32 with one. What is not UTF-8 is read as Latin-1, which is reported.

    Parameters
    ----------
    content : bytes
        The file.
    path : str
        Its path, for messages.
    rate : callable
        How much a row is the header that is looked for: by it the delimiter is detected.
    delimiter : str or None
        What separates cells of text; None: the one of ``, ;`` and tab that gives the best header.
    sheet : str or None
        Of a spreadsheet; None: the first.

    Raises
    ------
    RecipeError
        If the file is neither.
    """
    if is_spreadsheet(content, path):
        rows, findings = read_sheet(content, path, sheet)
        return Cells(rows, 1, ""), findings
    if sheet is not None:
        raise RecipeError(f"{path}: sheet ({sheet}) is for XLSX files, and this is text")
    text, findings = _decode(content, path)
    first = 1
    stated = _STATED_DELIMITER.match(text)
    if stated:
        text, first, delimiter = text[stated.end() :], 2, delimiter or stated[1]
    separator = delimiter or _detect_delimiter(text, rate)
    if separator in '"\r\n':
        raise RecipeError(f"{path}: {separator!r} cannot be a delimiter; comma, semicolon and tab are usual")
    return Cells(_records(text, separator, path), first, separator), findings


def _decode(content: bytes, path: str) -> tuple[str, list[Finding]]:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), []
            except UnicodeDecodeError as error:
                reason = f"it begins as {encoding} text and goes on as something else (byte {error.start})"
                raise RecipeError(f"{path}: the table cannot be read: {reason}; save it as UTF-8") from error
    if b"\0" in content:
        raise RecipeError(f"{path}: this is no text (it holds zero bytes); save the table as CSV in UTF-8, or as XLSX")
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = len(content[: error.start].splitlines()) or 1
        reason = f"not UTF-8 (line {line}): read as Latin-1; save it as UTF-8 if letters come out wrong"
        return content.decode("latin-1"), [Finding("note", path, reason)]


def _detect_delimiter(text: str, rate: Callable[[Sequence[str]], int]) -> str:
    """The delimiter that gives the best header among the first rows; of equals, most cells in the first of them."""

    def score(delimiter: str) -> tuple[int, int]:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows: list[list[str]] = []
        with suppress(csv.Error):  # a quote that is never closed, which reading reports; what stands before it counts
            rows += islice((row for row in lines if any(cell.strip() for cell in row)), _MOST_ABOVE)
        return max((rate(row) for row in rows), default=0), len(rows[0]) if rows else 0

    return max(_DELIMITERS, key=score)  # the first of equals


def _records(text: str, delimiter: str, path: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        words = str(error)
        if "end of data" in words or "field limit" in words:
            words = "a quoted cell is never closed"
        raise RecipeError(
            f"{path}, line {reader.line_num}: {words}; check the quotes in and before that line"
        ) from error


def _find_columns(
    columns: Sequence[str], needed: Sequence[str], path: str, findings: Sequence[Finding]
) -> dict[str, int]:
    """The place of each needed column; what was remarked of the file may say why one is missing."""
    there = ", ".join(filter(None, columns)) or "none"
    remarks = "".join(f"; {finding.reason}" for finding in findings)
    for name in needed:
        count = columns.count(name)
        if count == 0:
            near = get_close_matches(name, columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{path}: there is no column {name!r}{hint} (columns: {there}){remarks}")
        if count > 1:
            raise RecipeError(
                f"{path}: the column {name!r} is there {count} times, rename all but one (columns: {there})"
            )
    return {name: columns.index(name) for name in needed}
