"""Tables joined to images: who is found, and what is said when rows contradict or miss."""

from __future__ import annotations

from typing import Any

from chammi75.build.joins import ImageKeys, Joined, join_tables
from chammi75.build.planned import Finding
from chammi75.build.tables import read_table
from chammi75.schemas.recipe import TableJoin

WELL = {"experiment.well": "well"}
LINE = {"biology.cell_line": "line"}


def join(content: str, images: list[ImageKeys], match: dict[str, str] = WELL, columns: dict[str, str] = LINE) -> Joined:
    return join_tables([read("p.csv", content, match, columns)], images)


def read(path: str, content: str, match: dict[str, str], columns: dict[str, str]) -> Any:
    rule = TableJoin.model_validate({"path": path, "match": match, "columns": columns})
    return rule, read_table(content.encode(), path, [*match.values(), *columns.values()])[0]


def wells(*names: str) -> list[ImageKeys]:
    return [ImageKeys(f"s/{name}", {"experiment.well": (name,)}) for name in names]


def lines(joined: Joined) -> list[Any]:
    return [stated.get("biology.cell_line", "nothing") for stated in joined.stated]


def of(kind: str, joined: Joined) -> list[Finding]:
    return [finding for finding in joined.findings if finding.kind == kind]


def test_images_take_what_their_row_says() -> None:
    joined = join("well,line\nA01,U2OS\nB02,HeLa\n", wells("B02", "A01", "A01"))
    assert lines(joined) == ["HeLa", "U2OS", "U2OS"]
    assert joined.findings == ()


def test_rows_match_on_all_fields_together() -> None:
    images = [
        ImageKeys(p + w, {"experiment.plate": (p,), "experiment.well": (w,)}) for p in ("P1", "P2") for w in ("A", "B")
    ]
    content = "plate,well,line\nP1,A,a\nP1,B,b\nP2,A,c\nP2,B,d\n"
    joined = join(content, images, {"experiment.plate": "plate", "experiment.well": "well"})
    assert lines(joined) == ["a", "b", "c", "d"]


def test_a_well_is_found_in_another_spelling_and_a_note_says_so() -> None:
    joined = join("well,line\na1,U2OS\nb10,HeLa\n", wells("A01", "B10"))
    assert lines(joined) == ["U2OS", "HeLa"]
    assert [finding.kind for finding in joined.findings] == ["note"]
    assert "2 images" in joined.findings[0].reason
    assert "A01 as a1" in joined.findings[0].reason


def test_zeros_at_the_end_of_a_number_are_not_padding() -> None:
    joined = join("well,line\nA1,U2OS\n", wells("A10"))
    assert lines(joined) == ["nothing"]


def test_two_rows_that_differ_in_zeros_match_no_third_spelling() -> None:
    joined = join("well,line\nA1,U2OS\nA01,HeLa\n", wells("A001"))
    assert lines(joined) == ["nothing"]
    assert "A01, A1" in of("unlabelled", joined)[0].reason
    assert len(of("unused_row", joined)) == 2


def test_two_images_that_differ_in_zeros_do_not_share_a_row() -> None:
    joined = join("well,line\nA1,U2OS\n", wells("A1", "A01"))
    assert lines(joined) == ["U2OS", "nothing"]


def test_the_case_of_a_plate_is_part_of_its_name() -> None:
    images = [ImageKeys("s/1", {"experiment.plate": ("p1",)})]
    assert lines(join("plate,line\nP1,U2OS\n", images, {"experiment.plate": "plate"})) == ["nothing"]


def test_numbers_match_whatever_their_padding() -> None:
    images = [ImageKeys(f"s/{z}", {"geometry.z_slice": (str(z),)}) for z in (1, 2)]
    assert lines(join("z,line\n01,a\n2.0,b\n", images, {"geometry.z_slice": "z"})) == ["a", "b"]


def test_a_path_matches_any_file_of_the_image() -> None:
    images = [
        ImageKeys("s/a", {"storage.path": ("x/a_D.tif", "x/a_R.tif")}),
        ImageKeys("s/b", {"storage.path": ("x/b_D.tif",)}),
    ]
    joined = join("file,line\n.\\x\\a_R.tif,U2OS\nx//b_D.tif,HeLa\n", images, {"storage.path": "file"})
    assert lines(joined) == ["U2OS", "HeLa"]


def test_rows_of_all_files_of_an_image_that_agree_are_one() -> None:
    images = [ImageKeys("s/a", {"storage.filename": ("a_D.tif", "a_R.tif")})]
    joined = join("file,line\na_D.tif,U2OS\na_R.tif,U2OS\n", images, {"storage.filename": "file"})
    assert lines(joined) == ["U2OS"]
    assert joined.findings == ()


def test_a_row_that_says_nothing_agrees_with_one_that_does() -> None:
    assert lines(join("well,line\nA01,unknown\nA01,U2OS\n", wells("A01"))) == ["U2OS"]


def test_rows_that_differ_leave_the_field_unknown_and_are_both_named() -> None:
    joined = join("well,line\nA01,U2OS\nA01,HeLa\n", wells("A01", "A01"))
    assert lines(joined) == [None, None]
    (finding,) = of("conflict", joined)
    assert "'U2OS' (row 2) and 'HeLa' (row 3)" in finding.reason
    assert "s/A01 and 1 image more" in finding.reason


def test_two_tables_that_differ_leave_the_field_unknown() -> None:
    tables = [
        read(name, f"well,line\nA01,{line}\n", WELL, LINE) for name, line in [("p.csv", "U2OS"), ("q.csv", "HeLa")]
    ]
    joined = join_tables(tables, wells("A01"))
    assert lines(joined) == [None]
    assert "'HeLa' (q.csv)" in of("conflict", joined)[0].reason


def test_two_tables_complete_each_other() -> None:
    tables = [
        read("p.csv", "well,line\nA01,U2OS\n", WELL, LINE),
        read("q.csv", "well,drug\nA01,taxol\n", WELL, {"experiment.reagent": "drug"}),
    ]
    joined = join_tables(tables, wells("A01"))
    assert joined.stated == ({"biology.cell_line": "U2OS", "experiment.reagent": "taxol"},)


def test_a_null_word_leaves_the_field_to_others() -> None:
    assert join("well,line\nA01,n/a\n", wells("A01")).stated == ({},)


def test_an_image_without_a_row_and_a_row_without_an_image_are_each_listed() -> None:
    joined = join("well,line\nA01,U2OS\nB01,x\nB02,y\n", wells("A01", "C01"))
    assert [(f.path, f.reason) for f in of("unlabelled", joined)] == [("s/C01", "p.csv has no row for C01")]
    assert [f.reason for f in of("unused_row", joined)] == [
        "row 3 (well=B01) fits no image",
        "row 4 (well=B02) fits no image",
    ]


def test_an_image_that_lacks_the_field_says_which() -> None:
    joined = join("well,line\nA01,U2OS\n", [ImageKeys("s/a", {})])
    assert "has no experiment.well to be found by" in of("unlabelled", joined)[0].reason


def test_a_row_that_names_no_well_fits_no_image() -> None:
    joined = join("well,line\nunknown,U2OS\n", wells("unknown"))
    assert lines(joined) == ["nothing"]
    assert len(of("unused_row", joined)) == 1


MAGNIFICATION = {"microscopy.magnification": "mag"}


def test_a_magnification_is_a_number_and_the_text_as_published() -> None:
    joined = join("well,mag\nA01,20x\nB01,40\n", wells("A01", "B01"), columns=MAGNIFICATION)
    assert joined.stated[0] == {"microscopy.magnification": 20.0, "microscopy.magnification_text": "20x"}
    assert joined.stated[1] == {"microscopy.magnification": 40.0, "microscopy.magnification_text": "40"}


def test_text_where_a_number_stands_is_reported_once_with_row_and_value() -> None:
    joined = join("well,mag\nA01,high\n", wells("A01", "A01"), columns=MAGNIFICATION)
    assert [stated["microscopy.magnification"] for stated in joined.stated] == [None, None]
    (finding,) = of("conflict", joined)
    assert finding.path == "p.csv"
    assert "row 2" in finding.reason
    assert "'high'" in finding.reason


def test_a_magnification_that_rows_dispute_has_no_text_either() -> None:
    joined = join("well,mag\nA01,20x\nA01,40x\n", wells("A01"), columns=MAGNIFICATION)
    assert joined.stated == ({"microscopy.magnification": None, "microscopy.magnification_text": None},)


def test_the_order_of_images_does_not_change_what_is_said() -> None:
    content = "well,line\nA01,a\nA01,b\nB01,c\n"
    one, other = join(content, wells("A01", "B01")), join(content, wells("B01", "A01"))
    assert one.stated == other.stated[::-1]
    assert sorted(map(str, one.findings)) == sorted(map(str, other.findings))
