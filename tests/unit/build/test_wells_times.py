"""Spellings of wells, and times in names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.build.times import number_times, parse_time
from chammi75.build.wells import PLATE_FORMATS, lies_beyond_plates, parse_well, row_number, spell_well
from chammi75.readers.grouping import FileGroup


@pytest.mark.parametrize("text", ["A01", "A1", "a1", "a01", "A-01", "A 1", "r01c01", "R1C1", "r1_c1", " A01 ", "A001"])
def test_spellings_of_one_well(text: str) -> None:
    assert parse_well(text) == (1, 1)


@pytest.mark.parametrize("text", ["", "A", "A0", "A00", "12", "0002", "AAA1", "A1B", "A01.a1", "well A1", "r0c1"])
def test_what_is_no_well(text: str) -> None:
    assert parse_well(text) is None


@given(st.integers(1, 702), st.integers(1, 999))
def test_a_well_is_read_as_it_is_spelled(row: int, column: int) -> None:
    assert parse_well(spell_well(row, column)) == (row, column)
    assert parse_well(f"r{row}c{column}") == (row, column)


@pytest.mark.parametrize(("wells", "last"), [(6, "B03"), (96, "H12"), (384, "P24"), (1536, "AF48")])
def test_the_last_wells_of_plates(wells: int, last: str) -> None:
    rows, columns = PLATE_FORMATS[wells]
    assert rows * columns == wells
    assert spell_well(rows, columns) == last
    assert not lies_beyond_plates(last)


def test_wells_beyond_all_plates() -> None:
    assert lies_beyond_plates("AG1")
    assert lies_beyond_plates("A49")
    assert not lies_beyond_plates("whatever")
    assert row_number("AG") == 33


def group(t: str, folder: str = "", plate: str = "P") -> FileGroup:
    return FileGroup(f"{folder}/{plate}_{t}.tif", {"plate": plate, "t": t}, {"": ("a.tif",)}, folder)


def test_times_are_numbered_for_each_plate_in_each_folder() -> None:
    groups = [group("00d02h00m"), group("00d10h00m"), group("00d10h00m", plate="Q"), group("00d04h00m", folder="x")]
    numbered, notes = number_times(groups)
    assert [one.fields["t"] for one in numbered] == ["0", "1", "0", "0"]
    assert [note.path for note in notes] == ["P", "Q", "x/P"]


def test_numbers_stay_what_they_are() -> None:
    groups = [group("0024"), group("7")]
    assert number_times(groups) == (groups, [])


def test_times_of_the_calendar_sort_as_times_do() -> None:
    texts = ["2018y12m31d_23h59m", "2019y06m01d_10h00m", "2019y06m01d_09h00m", "2019y10m01d_00h00m"]
    assert sorted(texts, key=lambda text: parse_time(text) or ()) == [texts[0], texts[2], texts[1], texts[3]]
