"""XLSX files as spreadsheet programs write them, and as an attacker would."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import openpyxl
import pytest

from chammi75.build.spreadsheets import cell_name, is_spreadsheet, read_sheet
from chammi75.build.tables import read_table
from chammi75.errors import MissingDependencyError, RecipeError


def book(*rows: tuple[Any, ...], edit: Callable[[Any], None] | None = None) -> bytes:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    for row in rows:
        sheet.append(row)
    if edit:
        edit(sheet)
    return saved(workbook)


def saved(workbook: Any) -> bytes:
    buffer = io.BytesIO()
    workbook.save(buffer)
    return buffer.getvalue()


def with_part(content: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The same archive with one part changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, change(old.read(part)) if part == name else old.read(part))
    return buffer.getvalue()


def test_cells_are_text_as_a_person_sees_it() -> None:
    day = datetime.datetime(2024, 2, 29)
    content = book(
        ("plate", "007", 7, 7.0, 0.1 + 0.2, 1e-7, True, day, day.replace(hour=9), None, " x "),
    )
    rows, notes = read_sheet(content, "m.xlsx")
    assert rows == [
        ["plate", "007", "7", "7", "0.3", "1e-07", "TRUE", "2024-02-29", "2024-02-29T09:00:00", "", " x "],
    ]
    assert notes == []


def test_zeros_of_a_number_format_are_part_of_an_id() -> None:
    def pad(sheet: Any) -> None:
        sheet["A2"].number_format = "000"
        sheet["A3"].number_format = "0.00"

    assert read_sheet(book(("plate",), (7,), (7,), edit=pad), "m.xlsx")[0] == [["plate"], ["007"], ["7"]]


def test_empty_rows_and_columns_at_the_end_are_no_cells() -> None:
    content = book(("well", "drug", None, ""), ("A01", None, None, " "), (), (None, "", None), ("", "", ""))
    assert read_sheet(content, "m.xlsx")[0] == [["well", "drug"], ["A01", ""]]


def test_rows_keep_their_numbers_across_gaps() -> None:
    def edit(sheet: Any) -> None:
        sheet["A1"], sheet["B1"], sheet["A9"], sheet["B9"] = "well", "line", "A01", "U2OS"

    table, _ = read_table(book(edit=edit), "m.xlsx", ["well", "line"])
    assert [(row.number, row.cells) for row in table.rows] == [(9, {"well": "A01", "line": "U2OS"})]


def test_a_merged_range_holds_its_text_in_every_cell() -> None:
    content = book(
        ("plate", "well"), ("P1", "A01"), (None, "A02"), (None, "A03"), edit=lambda sheet: sheet.merge_cells("A2:A4")
    )
    assert [row[0] for row in read_sheet(content, "m.xlsx")[0]] == ["plate", "P1", "P1", "P1"]


def test_a_merged_range_beyond_the_cells_costs_nothing() -> None:
    content = book(("a", "b"), (1, 2))
    vast = with_part(
        content,
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(
            b"</sheetData>", b'</sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>'
        ),
    )
    assert read_sheet(vast, "m.xlsx")[0] == [["a", "a"], ["a", "a"]]


def test_formulas_without_a_saved_value_are_empty_and_named() -> None:
    rows, notes = read_sheet(book(("well", "dose"), ("A01", "=1+1"), ("A02", "=B2*2"), ("A03", 5)), "m.xlsx")
    assert rows == [["well", "dose"], ["A01", ""], ["A02", ""], ["A03", "5"]]
    assert [note.kind for note in notes] == ["note"]
    assert "formulas in 2 cells (B2, B3) without a saved value" in notes[0].reason


def test_a_saved_value_of_a_formula_is_taken() -> None:
    content = with_part(
        book(("well", "=1+1")),
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>").replace(b"<v/>", b"<v>2</v>"),
    )
    assert read_sheet(content, "m.xlsx") == ([["well", "2"]], [])


def test_errors_are_empty_and_named() -> None:
    rows, notes = read_sheet(book(("well", "#N/A"), ("A01", "#REF!")), "m.xlsx")
    assert rows == [["well"], ["A01"]]
    assert "errors in 2 cells (B1, B2)" in notes[0].reason


def test_the_first_sheet_is_read_and_others_are_named() -> None:
    workbook = openpyxl.Workbook()
    workbook.active.title = "Map"
    workbook.active.append(("well",))
    workbook.create_sheet("Märkte & Co").append(("dose",))
    content = saved(workbook)
    rows, notes = read_sheet(content, "m.xlsx")
    assert rows == [["well"]]
    assert "its first sheet is read, 'Map'; the key sheet names another (Märkte & Co)" in notes[0].reason
    assert read_sheet(content, "m.xlsx", "Märkte & Co") == ([["dose"]], [])
    with pytest.raises(RecipeError, match=r"m\.xlsx: there is no sheet 'Maps' \(sheets: Map, Märkte & Co\)"):
        read_sheet(content, "m.xlsx", "Maps")


def test_a_false_size_of_the_sheet_is_not_believed() -> None:
    vast = with_part(
        book(("a", "b")),
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(b'<dimension ref="A1:B1"', b'<dimension ref="A1:XFD1048576"'),
    )
    assert read_sheet(vast, "m.xlsx")[0] == [["a", "b"]]


def test_a_row_a_million_rows_down_is_refused() -> None:
    far = with_part(
        book(("a", "b")),
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace(b'<row r="1"', b'<row r="1048576"').replace(b'"A1"', b'"A1048576"'),
    )
    with pytest.raises(RecipeError, match=r"m\.xlsx: the sheet 'Sheet' is refused, it is too large"):
        read_sheet(far, "m.xlsx")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = with_part(book(("a",)), "xl/worksheets/sheet1.xml", lambda xml: xml + b" " * (80 * 2**20))
    assert len(bomb) < 2**20
    with pytest.raises(RecipeError, match=r"m\.xlsx: the spreadsheet is refused: it unpacks to \d+ bytes"):
        read_sheet(bomb, "m.xlsx")


@pytest.mark.parametrize("name", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_entities_are_refused(name: str) -> None:
    def laugh(xml: bytes) -> bytes:
        return b'<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]>' + xml.partition(b"?>")[2]

    with pytest.raises(RecipeError, match="declares XML entities"):
        read_sheet(with_part(book(("a",)), name, laugh), "m.xlsx")


@pytest.mark.parametrize("cut", [30, 200, 1000, -40])
def test_a_damaged_file_is_one_clear_error(cut: int) -> None:
    with pytest.raises(RecipeError, match=r"^m\.xlsx: the spreadsheet cannot be read"):
        read_sheet(book(("a", "b"), ("c", "d"))[:cut], "m.xlsx")


def test_a_zip_that_is_no_workbook_is_one_clear_error() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(RecipeError, match=r"^m\.xlsx: the spreadsheet cannot be read"):
        read_sheet(buffer.getvalue(), "m.xlsx")


def test_other_spreadsheets_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="save it as XLSX or CSV"):
        is_spreadsheet(b"\xd0\xcf\x11\xe0\xa1\xb1", "m.xls")
    with pytest.raises(RecipeError, match="OpenDocument"):
        is_spreadsheet(b"PK\x03\x04" + b"\0" * 26 + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "m.ods")
    assert not is_spreadsheet(b"well,line\n", "m.xlsx")


def test_what_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = book(("a",))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        read_sheet(content, "m.xlsx")


def test_cells_have_the_names_that_spreadsheets_give_them() -> None:
    assert [cell_name(1, column) for column in (1, 26, 27, 702, 703)] == ["A1", "Z1", "AA1", "ZZ1", "AAA1"]


def test_a_sheet_is_read_as_a_table() -> None:
    content = book(("Well", "Line", "Dose"), ("A01", "U2OS", 1.0), (None, None, None), ("B02", None, 2.5))
    table, notes = read_table(content, "m.xlsx", ["Well", "Dose"])
    assert [(row.number, row.cells) for row in table.rows] == [
        (2, {"Well": "A01", "Dose": "1"}),
        (4, {"Well": "B02", "Dose": "2.5"}),
    ]
    assert notes == []
    with pytest.raises(RecipeError, match=r"m\.xlsx: there is no column 'Drug'"):
        read_table(content, "m.xlsx", ["Drug"])


def test_a_sheet_of_a_text_file_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"sheet \(Map\) is for XLSX files, and this is text"):
        read_table(b"well,line\n", "m.csv", ["well"], sheet="Map")
