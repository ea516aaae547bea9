"""Reads plate maps: the tables of a recipe, rows or a grid, as rows that can be joined to images.

A grid is a plate as it lies: the numbers of the columns across, the letters of the rows down, and one value in each
cell. It becomes a row for each cell that holds something.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from chammi75.build.planned import Finding
from chammi75.build.spreadsheets import cell_name
from chammi75.build.tables import Cells, Row, Table, read_cells, read_table
from chammi75.build.wells import join_well, row_number, spell_well
from chammi75.errors import RecipeError
from chammi75.schemas.recipe import TableJoin

_WELL, _VALUE = "well", "value"
_NUMBER = re.compile(r"0*([1-9][0-9]?)(\.0*)?")
_LETTERS = re.compile(r"[A-Za-z]{1,2}")


def read_map(content: bytes, rule: TableJoin) -> tuple[TableJoin, Table, list[Finding]]:
    """A table of a recipe as rows, and the rule by which these are joined.

    Parameters
    ----------
    content : bytes
        The file.
    rule : TableJoin
        What the recipe says of it.

    Raises
    ------
    RecipeError
        If the file is no such table.

    Examples
    --------
    >>> rule = TableJoin(path="map.csv", layout="grid", value="experiment.reagent")
    >>> rule, table, _ = read_map(b",1,2\\nA,DMSO,\\nB,,taxol\\n", rule)
    >>> rule.match, rule.columns
    ({'experiment.well': 'well'}, {'experiment.reagent': 'value'})
    >>> [row.cells for row in table.rows]
    [{'well': 'A01', 'value': 'DMSO'}, {'well': 'B02', 'value': 'taxol'}]
    """
    if rule.layout == "rows":
        wanted = [*rule.match.values(), *rule.columns.values()]
        table, findings = read_table(content, rule.path, wanted, rule.delimiter, rule.sheet)
        return *_with_wells(rule, table), findings
    cells, findings = read_cells(content, rule.path, lambda row: len(_columns_of(row)), rule.delimiter, rule.sheet)
    rows, below = _read_grid(cells, rule.path)
    if below:
        findings.append(Finding("note", rule.path, f"row {below} and what follows lie below the grid and are not read"))
    updates = {"match": {"experiment.well": _WELL}, "columns": {str(rule.value): _VALUE}}
    return rule.model_copy(update=updates), Table(rule.path, (_WELL, _VALUE), tuple(rows)), findings


def _with_wells(rule: TableJoin, table: Table) -> tuple[TableJoin, Table]:
    """Wells in one column where a table has their rows and columns in two."""
    if "row" not in rule.match:
        return rule, table
    row, column = rule.match["row"], rule.match["column"]
    well = f"{row} and {column}"
    rows = tuple(
        replace(line, cells={**line.cells, well: join_well(line.cells[row], line.cells[column])}) for line in table.rows
    )
    others = {name: stated for name, stated in rule.match.items() if name not in ("row", "column")}
    return rule.model_copy(update={"match": {**others, "experiment.well": well}}), replace(table, rows=rows)


def _read_grid(cells: Cells, path: str) -> tuple[list[Row], int | None]:
    """A row for each cell of the grid that holds something, and the first row below the grid that does."""
    header = [(at, places) for at, record in enumerate(cells.rows) if (places := _columns_of(record))]
    if not header:
        raise RecipeError(
            f"{path}: there is no grid: a row with the column numbers 1, 2, 3 … is needed, and below it rows that begin"
            " with A, B, C … (for a header with names and a row for each well, leave out layout: grid)"
        )
    if len(header) > 1:
        lines = " and ".join(str(cells.first + at) for at, _ in header[:2])
        raise RecipeError(f"{path}: there are several grids (rows {lines}): put each in a file or sheet of its own")
    at, places = header[0]
    label = min(places) - 1
    rows: list[Row] = []
    seen: dict[int, int] = {}
    for number, record in enumerate(cells.rows[at + 1 :], start=cells.first + at + 1):
        letters = record[label].strip() if label < len(record) else ""
        if not _LETTERS.fullmatch(letters):
            if any(cell.strip() for cell in record):
                return rows, number
            continue
        line = row_number(letters)
        if line in seen:
            raise RecipeError(
                f"{path}: the grid has the row {letters.upper()} twice, in rows {seen[line]} and {number}"
            )
        seen[line] = number
        for place, column in places.items():
            text = record[place].strip() if place < len(record) else ""
            if text:
                rows.append(Row(number, {_WELL: spell_well(line, column), _VALUE: text}, cell_name(number, place + 1)))
    return rows, None


def _columns_of(record: Sequence[str]) -> dict[int, int]:
    """Place -> number of a plate's columns, if a row heads a grid: 1, 2, 3 … behind a cell for the letters."""
    places: dict[int, int] = {}
    for at, cell in enumerate(record):
        number = _NUMBER.fullmatch(cell.strip())
        if number:
            places[at] = int(number[1])
        elif places and cell.strip():
            break  # a remark behind the grid
    starts = min(places, default=0)
    before = any(cell.strip() and not _is_corner(cell) for cell in record[:starts])
    counted = list(places) == list(range(starts, starts + len(places))) and list(places.values()) == list(
        range(1, len(places) + 1)
    )
    return places if counted and len(places) > 1 and starts > 0 and not before else {}


def _is_corner(cell: str) -> bool:
    """Whether a cell may stand over the letters: a word; A is a row of the grid, whose values may be 1, 2, 3."""
    return not any(character.isdigit() for character in cell) and not _LETTERS.fullmatch(cell.strip())
