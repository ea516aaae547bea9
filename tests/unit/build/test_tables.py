"""Tables as spreadsheets and instruments write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.build.tables import Table, read_table
from chammi75.errors import RecipeError


def cells(table: Table) -> list[list[str]]:
    return [list(row.cells.values()) for row in table.rows]


def read(content: bytes, delimiter: str | None = None) -> Table:
    table, findings = read_table(content, "p.csv", ["well", "line"], delimiter)
    assert not findings
    return table


EXPECTED = [["A01", "U2OS"], ["B02", "HeLa"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("closed", [True, False])
def test_line_ends_and_delimiters_of_all_programs_are_read(end: str, delimiter: str, closed: bool) -> None:
    text = end.join(delimiter.join(row) for row in [["well", "line"], *EXPECTED]) + (end if closed else "")
    assert cells(read(text.encode())) == EXPECTED


def test_mixed_line_ends_are_read() -> None:
    assert cells(read(b"well,line\r\nA01,U2OS\rB02,HeLa\n")) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_with_its_byte_order_mark(encoding: str) -> None:
    table = read("well,line\nA01,Mäuse µm 細胞\n".encode(encoding))
    assert cells(table) == [["A01", "Mäuse µm 細胞"]]


def test_big_endian_utf16_is_read() -> None:
    assert cells(read(b"\xfe\xff" + "well,line\nA01,U2OS\n".encode("utf-16-be"))) == [["A01", "U2OS"]]


def test_what_is_not_utf8_is_read_as_latin1_and_said() -> None:
    table, findings = read_table("well,line\nA01,U2OS\nB02,Mäuse\n".encode("latin-1"), "p.csv", ["well", "line"])
    assert cells(table) == [["A01", "U2OS"], ["B02", "Mäuse"]]
    (finding,) = findings
    assert finding.kind == "note"
    assert finding.path == "p.csv"
    assert "line 3" in finding.reason
    assert "Latin-1" in finding.reason


def test_utf16_that_breaks_off_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"p\.csv: the table cannot be read"):
        read(b"\xff\xfew\x00e\x00l")


def test_binary_is_no_table() -> None:
    with pytest.raises(RecipeError, match="zero bytes"):
        read(b"II*\x00\x08\x00\x00\x00")


def test_quoted_cells_may_have_lines_and_delimiters_inside() -> None:
    table = read(b'well,line\nA01,"U2OS, clone\n2"\nB02,"say ""x"""\n')
    assert cells(table) == [["A01", "U2OS, clone\n2"], ["B02", 'say "x"']]
    assert [row.number for row in table.rows] == [2, 3]


def test_the_delimiter_that_finds_the_columns_wins_over_the_more_frequent_one() -> None:
    assert cells(read(b"well;line;a,b,c,d\nA01;U2OS;1,2,3,4\n")) == [["A01", "U2OS"]]


def test_a_stated_delimiter_is_taken() -> None:
    assert cells(read(b"well|line\nA01|U2OS\n", "|")) == [["A01", "U2OS"]]


def test_a_quote_is_refused_as_delimiter() -> None:
    with pytest.raises(RecipeError, match="cannot be a delimiter"):
        read(b"well,line\n", '"')


def test_the_line_with_which_excel_states_the_delimiter_is_understood() -> None:
    table = read(b"sep=;\r\nwell;line\r\nA01;U2OS\r\n")
    assert cells(table) == [["A01", "U2OS"]]
    assert table.rows[0].number == 3


def test_a_table_of_one_column_is_read() -> None:
    table, findings = read_table(b"well\nA01\n", "p.csv", ["well"])
    assert cells(table) == [["A01"]]
    assert not findings


def test_blank_lines_and_empty_rows_are_passed_over_but_counted() -> None:
    table = read(b"\nwell,line\n\nA01,U2OS\n,,\n,\nB02,HeLa\n")
    assert cells(table) == EXPECTED
    assert [row.number for row in table.rows] == [4, 7]


def test_a_missing_column_is_named_with_the_nearest_and_those_that_are_there() -> None:
    with pytest.raises(RecipeError) as caught:
        read(b"Well,cell_line\nA01,U2OS\n")
    assert str(caught.value) == "p.csv: there is no column 'well'; did you mean 'Well'? (columns: Well, cell_line)"


def test_a_column_that_is_there_twice_is_an_error_if_it_is_needed() -> None:
    with pytest.raises(RecipeError, match=r"'line' is there 2 times.*columns: well, line, line"):
        read(b"well,line,line\nA01,a,b\n")


def test_a_column_that_is_there_twice_does_not_matter_if_nobody_needs_it() -> None:
    assert cells(read(b"well,x,x,line\nA01,a,b,U2OS\n")) == [["A01", "U2OS"]]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error_that_says_what_is_needed(content: bytes) -> None:
    with pytest.raises(RecipeError, match=r"p\.csv: the table is empty"):
        read(content)


def test_a_row_too_short_is_read_as_far_as_it_goes_and_reported_with_its_number() -> None:
    table, findings = read_table(b"well,line\nA01\nB02,HeLa\n", "p.csv", ["well", "line"])
    assert cells(table) == [["A01", ""], ["B02", "HeLa"]]
    assert [(f.kind, f.path) for f in findings] == [("note", "p.csv")]
    assert "row 2 has 1 cells" in findings[0].reason


def test_a_row_too_long_is_left_out_and_reported_with_its_number() -> None:
    table, findings = read_table(b"well,line\nA01,U2OS, clone 2\nB02,HeLa\n", "p.csv", ["well", "line"])
    assert cells(table) == [["B02", "HeLa"]]
    assert [(f.kind, f.path) for f in findings] == [("unused_row", "p.csv")]
    assert "row 2 has 3 cells" in findings[0].reason


def test_delimiters_without_cells_at_the_end_of_rows_do_no_harm() -> None:
    assert cells(read(b"well,line\nA01,U2OS,,,\nB02,HeLa\n")) == EXPECTED


def test_a_quote_that_is_never_closed_is_an_error_with_its_line() -> None:
    with pytest.raises(RecipeError, match=r"p\.csv, line 3: a quoted cell is never closed"):
        read(b'well,line\nA01,"U2OS\nB02,HeLa\n')


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.tuples(TEXTS, TEXTS), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_whatever_a_csv_writer_writes_is_read_back_trimmed(
    rows: list[tuple[str, str]], delimiter: str, end: str
) -> None:
    import csv
    import io

    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("well", "line"), *rows])
    table = read(out.getvalue().encode())
    assert cells(table) == [[a.strip(), b.strip()] for a, b in rows if a.strip() or b.strip()]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_titles_above_the_header_are_passed_over_and_noted(end: str) -> None:
    lines = ["Screen, of Monday", "", "made by Anna;v3", "well;line", "A01;U2OS", "B02;HeLa"]
    table, findings = read_table(end.join(lines).encode(), "p.csv", ["well", "line"])
    assert cells(table) == EXPECTED
    assert [row.number for row in table.rows] == [5, 6]
    assert [finding.reason for finding in findings] == ["row 4 is its header; 2 rows above it are not read"]


def test_the_first_row_with_all_columns_is_the_header() -> None:
    table, findings = read_table(b"well,line\nwell,line\n", "p.csv", ["well", "line"])
    assert cells(table) == [["well", "line"]]
    assert not findings


def test_a_wrong_name_in_a_header_below_a_title_is_found() -> None:
    with pytest.raises(RecipeError, match=r"no column 'line'; did you mean 'lines'\? \(columns: well, lines\)"):
        read_table(b"A screen\n\nwell,lines\nA01,U2OS\n", "p.csv", ["well", "line"])
