"""Plate maps as grids."""

from __future__ import annotations

import io
from typing import Any

import openpyxl
import pytest
from pydantic import ValidationError

from chammi75.build.planned import Finding
from chammi75.build.platemaps import read_map
from chammi75.errors import RecipeError
from chammi75.schemas.recipe import TableJoin


def read(content: str | bytes, **keys: Any) -> tuple[dict[str, str], list[Finding]]:
    """Well -> value of a grid, and what was remarked."""
    rule = TableJoin.model_validate({"path": "m.csv", "layout": "grid", "value": "experiment.reagent", **keys})
    _, table, findings = read_map(content.encode() if isinstance(content, str) else content, rule)
    return {row.cells["well"]: row.cells["value"] for row in table.rows}, findings


def test_a_grid_is_a_value_for_each_well() -> None:
    wells, findings = read(",1,2,3\nA,DMSO,taxol,\nB,,,DMSO\n")
    assert wells == {"A01": "DMSO", "A02": "taxol", "B03": "DMSO"}
    assert findings == []


def test_the_habits_of_people_are_read() -> None:
    content = "Plate 7;;;;\n;;;;\nrow/col;01;02;03;\na;x;y;z;\n;;;;\nb;1;2;3;\nAF;4;5;6;a remark\n"
    wells, _ = read(content)
    assert [wells[well] for well in ("A01", "A02", "A03")] == ["x", "y", "z"]
    assert [wells[well] for well in ("B01", "B02", "B03")] == ["1", "2", "3"]
    assert [wells[well] for well in ("AF01", "AF02", "AF03")] == ["4", "5", "6"]
    assert len(wells) == 9


def test_values_that_count_are_no_second_grid() -> None:
    assert read(",1,2,3\nA,1,2,3\nB,1,2,3\n")[0]["B03"] == "3"


def test_cells_are_named_as_a_spreadsheet_does() -> None:
    rule = TableJoin(path="m.csv", layout="grid", value="experiment.reagent")
    joined, table, _ = read_map(b"map,,\n,1,2\nA,DMSO,taxol\n", rule)
    assert [row.place for row in table.rows] == ["cell B3", "cell C3"]
    assert (joined.match, joined.columns) == ({"experiment.well": "well"}, {"experiment.reagent": "value"})


def test_a_grid_in_a_sheet_with_numbers_for_columns() -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.create_sheet("Drugs")
    sheet.append(("Screen of May",))
    sheet.append((None, 1, 2.0, 3))
    sheet.append(("A", "DMSO", None, None))
    sheet.append(("B", 0.5, 7, None))
    sheet.merge_cells("B3:D3")
    buffer = io.BytesIO()
    workbook.save(buffer)
    wells, findings = read(buffer.getvalue(), sheet="Drugs")
    assert wells == {"A01": "DMSO", "A02": "DMSO", "A03": "DMSO", "B01": "0.5", "B02": "7"}
    assert findings == []


def test_what_lies_below_a_grid_is_noted() -> None:
    wells, findings = read(",1,2\nA,x,y\n\nlegend: x is DMSO,,\n")
    assert wells == {"A01": "x", "A02": "y"}
    assert findings == [Finding("note", "m.csv", "row 4 and what follows lie below the grid and are not read")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("well,line\nA01,U2OS\n", "there is no grid: a row with the column numbers 1, 2, 3"),
        ("", "there is no grid"),
        (",2,3\nA,x,y\n", "there is no grid"),
        (",1,2\nA,x,y\n,1,2\nA,x,y\n", r"there are several grids \(rows 1 and 3\)"),
        (",1,2\nA,x,y\na,x,y\n", "the grid has the row A twice, in rows 2 and 3"),
    ],
)
def test_what_is_no_grid_is_an_error(content: str, words: str) -> None:
    with pytest.raises(RecipeError, match=rf"m\.csv: {words}"):
        read(content)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"layout": "grid"}, "value is missing: the record field"),
        ({"layout": "grid", "value": "experiment.drug"}, "did you mean experiment"),
        (
            {"layout": "grid", "value": "experiment.reagent", "match": {"experiment.well": "w"}},
            "a grid has wells and one",
        ),
        ({"value": "experiment.reagent"}, "value is for layout: grid"),
        ({"match": {"experiment.well": "w"}}, "columns is missing: Record field"),
        ({"columns": {"experiment.reagent": "w"}}, "match is missing: Record field"),
        ({"layout": "grid", "value": "experiment.reagent", "only": {"plate": "P1"}}, "only: 'plate' is no field"),
        ({"layout": "grid", "value": "experiment.reagent", "max_unlabelled": 10}, "less than or equal to 1"),
    ],
)
def test_keys_that_do_not_fit_the_layout_are_errors(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TableJoin.model_validate({"path": "m.csv", **keys})


def test_the_delimiter_of_a_grid_is_that_of_its_column_numbers() -> None:
    rows, _ = read("Concentration, in uM, of Monday\n;1;2\nA;1,5;2,5\nB;3,5;4,5\n")
    assert rows == {"A01": "1,5", "A02": "2,5", "B01": "3,5", "B02": "4,5"}


@pytest.mark.parametrize("row", ["B", "b", "2", "02"])
def test_wells_of_two_columns_are_joined(row: str) -> None:
    rule = TableJoin(path="m.csv", match={"row": "R", "column": "C"}, columns={"experiment.reagent": "Drug"})
    joined, table, _ = read_map(f"R,C,Drug\n{row},3,taxol\n,4,DMSO\n".encode(), rule)
    assert joined.match == {"experiment.well": "R and C"}
    assert [line.cells["R and C"] for line in table.rows] == ["B03", ""]


@pytest.mark.parametrize("match", [{"row": "R"}, {"row": "R", "column": "C", "experiment.well": "W"}])
def test_a_row_without_a_column_or_beside_a_well_is_refused(match: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="row and column stand together"):
        TableJoin(path="m.csv", match=match, columns={"experiment.reagent": "Drug"})
