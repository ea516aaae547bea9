"""Reads a sheet of an XLSX file as text, cell by cell, as a person sees it."""

from __future__ import annotations

import datetime
import io
import posixpath
import re
import zipfile
import zlib
from typing import Any
from xml.etree import ElementTree

from chammi75.build.planned import Finding
from chammi75.build.wells import row_number
from chammi75.errors import MissingDependencyError, RecipeError

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_LARGEST = 64 * 2**20  # bytes of XML that a file may unpack to; 100 plates of 1536 wells are a tenth of it
_MOST_PARTS = 2000
_MOST_ROWS, _MOST_CELLS = 200_000, 2_000_000
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3})([0-9]+):([A-Z]{1,3})([0-9]+)"')
_PADDED = re.compile(r"0{2,}")  # the number format of ids such as 007
_ENTITIES = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_OFFICE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
# What openpyxl raises over files that are no workbook within.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, OSError),
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError),
)


def is_spreadsheet(content: bytes, path: str) -> bool:
    """Whether a file is an XLSX file, by its first bytes.

    Raises
    ------
    RecipeError
        If it is a spreadsheet of a kind that is not read: the old XLS, or an ODS.
    """
    if content.startswith(_OLE):
        raise RecipeError(f"{path}: this is a file of old Excel (XLS) or a locked one; save it as XLSX or CSV")
    if not content.startswith(_ZIP):
        return False
    if b"opendocument" in content[:200]:
        raise RecipeError(f"{path}: this is an OpenDocument file; save it as XLSX or CSV")
    return True


def read_sheet(content: bytes, path: str, sheet: str | None = None) -> tuple[list[list[str]], list[Finding]]:
    """The cells of a sheet as text, in rows of one length.

    Whole numbers lose their point (``1.0`` is ``1``) and keep the zeros of their format (``007``), dates are ISO 8601,
    cells of a merged range all have its text. Empty rows and columns at the end are dropped. Formulas are not computed:
    what the program that saved the file computed is taken.

    Parameters
    ----------
    content : bytes
        The file.
    path : str
        Its path, for messages.
    sheet : str, optional
        Its name; the first sheet if left out.

    Returns
    -------
    rows : list of list of str
    findings : list of Finding
        A ``note`` on other sheets, on formulas without a saved value, and on cells that hold an error (both are empty).

    Raises
    ------
    RecipeError
        If the file is damaged or far too large, or has no such sheet.
    MissingDependencyError
        If openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: XLSX files need openpyxl: pip install openpyxl, or save the table as CSV"
        ) from error
    try:
        archive = _checked_archive(content, path)
        books = [
            openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=values, keep_links=False)
            for values in (True, False)
        ]
        names = [one.title for one in books[0].worksheets]
        name = _choose(names, sheet, path)
        rows, findings = _read_cells(books[0][name], books[1][name], path)
        _fill_merged(rows, _merged_ranges(archive, name))
    except _BROKEN as error:
        if isinstance(error, RecipeError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecipeError(
            f"{path}: the spreadsheet cannot be read ({reason}); save it as XLSX again, or as CSV"
        ) from error
    if sheet is None and len(names) > 1:
        others = ", ".join(names[1:])
        findings.append(
            Finding("note", path, f"its first sheet is read, {name!r}; the key sheet names another ({others})")
        )
    return _trim(rows), findings


def _checked_archive(content: bytes, path: str) -> zipfile.ZipFile:
    """The file as a zip archive, if what it declares to hold is not far beyond any table.

    zipfile reads no more than a part declares, so that the declared sizes bind.
    """
    archive = zipfile.ZipFile(io.BytesIO(content))
    parts = archive.infolist()
    size = sum(part.file_size for part in parts)
    if size > _LARGEST or len(parts) > _MOST_PARTS:
        reason = (
            f"it unpacks to {size} bytes in {len(parts)} parts; {_LARGEST} bytes and {_MOST_PARTS} parts are accepted"
        )
        raise RecipeError(f"{path}: the spreadsheet is refused: {reason}; save the table as CSV")
    for part in parts:
        xml = part.filename.endswith((".xml", ".rels"))
        if xml and _ENTITIES.search(archive.read(part).replace(b"\0", b"")):  # no spreadsheet program writes them
            raise RecipeError(f"{path}: the spreadsheet is refused: {part.filename} declares XML entities")
    return archive


def _choose(names: list[str], sheet: str | None, path: str) -> str:
    if not names:
        raise RecipeError(f"{path}: the spreadsheet has no sheet of cells")
    if sheet is not None and sheet not in names:
        raise RecipeError(f"{path}: there is no sheet {sheet!r} (sheets: {', '.join(names)})")
    return sheet if sheet is not None else names[0]


def _read_cells(values: Any, formulas: Any, path: str) -> tuple[list[list[str]], list[Finding]]:
    """Text of all cells of a sheet that is open twice: as values, and as formulas."""
    rows: list[list[str]] = []
    unsaved, wrong = [], []
    count = 0
    for one in (values, formulas):
        one.reset_dimensions()  # what the file states of its size may be anything
    for number, (row, written) in enumerate(zip(values.iter_rows(), formulas.iter_rows(), strict=True), start=1):
        count += len(row)
        if number > _MOST_ROWS or count > _MOST_CELLS:
            limits = f"{_MOST_ROWS} rows and {_MOST_CELLS} cells are accepted"
            raise RecipeError(f"{path}: the sheet {values.title!r} is refused, it is too large ({limits})")
        texts = []
        for column, (cell, formula) in enumerate(zip(row, written, strict=True), start=1):
            if cell.data_type == "e":
                wrong.append(cell_name(number, column))
            elif cell.value is None and formula.data_type == "f":
                unsaved.append(cell_name(number, column))
            texts.append("" if cell.data_type == "e" else _text(cell))
        rows.append(texts)
    findings = []
    if unsaved:
        reason = f"{_named(unsaved)} without a saved value: empty; open the file in a spreadsheet program and save it"
        findings.append(Finding("note", path, f"formulas in {reason}"))
    if wrong:
        findings.append(Finding("note", path, f"errors in {_named(wrong)}: these cells count as empty"))
    return rows, findings


def cell_name(row: int, column: int) -> str:
    """The name of a cell, from its row and column (from 1).

    Examples
    --------
    >>> cell_name(4, 3), cell_name(1, 27)
    ('C4', 'AA1')
    """
    letters = ""
    while column > 0:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{row}"


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        if float(value).is_integer() and abs(value) < 1e15:
            padded = _PADDED.fullmatch(str(cell.number_format))
            return str(int(value)).zfill(len(padded[0]) if padded else 0)
        return f"{value:.15g}"  # as many digits as spreadsheets have
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat()
    return str(value)


def _merged_ranges(archive: zipfile.ZipFile, name: str) -> list[tuple[int, int, int, int]]:
    """Merged ranges of a sheet: first row and column, last row and column, from 1."""
    book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    links = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    targets = {link.get("Id"): link.get("Target", "") for link in links}
    for entry in book.iter():
        if entry.tag.endswith("}sheet") and entry.get("name") == name:
            target = targets.get(entry.get(f"{_OFFICE}id"), "")
            member = posixpath.normpath(target.lstrip("/") if target.startswith("/") else f"xl/{target}")
            content = archive.read(member) if member in archive.namelist() else b""
            return [
                (int(top), row_number(left.decode()), int(bottom), row_number(right.decode()))
                for left, top, right, bottom in _MERGED.findall(content)
            ]
    return []


def _fill_merged(rows: list[list[str]], ranges: list[tuple[int, int, int, int]]) -> None:
    """Give every cell of a merged range the text of its first, as far as the sheet reaches."""
    width = max((len(row) for row in rows), default=0)
    for top, left, bottom, right in ranges:
        text = rows[top - 1][left - 1] if 0 < top <= len(rows) and left <= len(rows[top - 1]) else ""
        if not text:
            continue
        for row in rows[top - 1 : bottom]:
            row.extend("" for _ in range(min(right, width) - len(row)))
            row[left - 1 : min(right, width)] = [text] * (min(right, width) - left + 1)


def _trim(rows: list[list[str]]) -> list[list[str]]:
    width = max((at for row in rows for at, text in enumerate(row, start=1) if text.strip()), default=0)
    trimmed = [(row + [""] * width)[:width] for row in rows]
    while trimmed and not any(text.strip() for text in trimmed[-1]):
        trimmed.pop()
    return trimmed


def _named(cells: list[str]) -> str:
    return f"{len(cells)} cell{'' if len(cells) == 1 else 's'} ({', '.join(cells[:5])}{' …' if len(cells) > 5 else ''})"
