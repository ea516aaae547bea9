"""Tables and images: who met whom, what was contradicted, and when a build is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
import tifffile

from chammi75.build.description import describe
from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan, Reconciliation, check_limits
from chammi75.errors import RecipeError
from chammi75.schemas.recipe import BuildRecipe

WELLS = {"match": {"experiment.well": "well"}, "columns": {"experiment.reagent": "drug"}}
PLATES = {"match": {"experiment.plate": "plate", "experiment.well": "well"}, "columns": {"experiment.reagent": "drug"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plates P1 and P2, wells A01 to A04, one site of one channel each."""
    for plate in ("P1", "P2"):
        for well in range(1, 5):
            tifffile.imwrite(tmp_path / f"{plate}_A0{well}_s1.tif", np.zeros((4, 6), np.uint8), metadata=None)
    return tmp_path


def plan(folder: Path, table: str, rule: dict[str, Any] = WELLS, **limits: Any) -> BuildPlan:
    (folder / "map.csv").write_text(table, encoding="utf-8")
    return planned(folder, {"path": "map.csv", **rule, **limits})


def planned(folder: Path, *rules: dict[str, Any], pattern: str = "{plate}_{well}_s{fov}") -> BuildPlan:
    keys = {"source": "s", "pattern": pattern, "tables": list(rules)}
    return plan_folder(str(folder), BuildRecipe.model_validate(keys))


def reagents(plan: BuildPlan) -> list[str | None]:
    return [image.record.experiment.reagent for image in plan.images]


def conflicts(plan: BuildPlan) -> list[str]:
    return [finding.reason for finding in plan.findings if finding.kind == "conflict"]


def only(plan: BuildPlan) -> Reconciliation:
    (entry,) = plan.reconciliations
    return entry


def test_a_map_that_fits_has_no_problems(folder: Path) -> None:
    made = plan(folder, "well,drug\nA01,a\nA02,b\nA03,c\nA04,d\n")
    entry = only(made)
    assert (entry.table, entry.images, entry.labelled, entry.rows, entry.rows_used) == ("map.csv", 8, 8, 4, 4)
    assert made.problems_above_limits == ()
    check_limits([made])


def test_images_without_a_row_and_rows_without_an_image_are_counted_and_named(folder: Path) -> None:
    made = plan(folder, "well,drug\nA01,a\nA03,c\nH12,x\nB07,y\n")
    entry = only(made)
    assert (entry.labelled, entry.unlabelled, entry.without_row) == (4, 4, ("A02", "A04"))
    assert (entry.rows_used, entry.rows_unused, entry.unused) == (2, 2, ("B07", "H12"))
    (row,) = describe(made)["reconciliations"]
    assert (row["without"], row["unused"], row["images without a row"]) == (4, 2, "A02, A04")
    assert row["above limits"].startswith("4 of 8 images have no row")


def test_a_build_is_refused_above_the_limits_and_not_at_them(folder: Path) -> None:
    table = "well,drug\nA01,a\nA03,c\nH12,x\nB07,y\n"
    with pytest.raises(RecipeError) as refusal:
        check_limits([plan(folder, table)])
    assert str(refusal.value).startswith(
        "map.csv: 4 of 8 images have no row, more than max_unlabelled: 0.1 allows (A02, A04): mend the table"
    )
    check_limits([plan(folder, table, max_unlabelled=0.5)])
    with pytest.raises(RecipeError, match=r"2 of 4 rows fit no image, more than max_unused: 0\.49 allows \(B07, H12\)"):
        check_limits([plan(folder, table, max_unlabelled=0.5, max_unused=0.49)])
    check_limits([plan(folder, table, max_unlabelled=0.5, max_unused=0.5)])


def test_a_row_that_says_nothing_is_a_row(folder: Path) -> None:
    made = plan(folder, "well,drug\nA01,a\nA02,\nA03,n/a\nA04,d\n")
    assert only(made).unlabelled == 0
    assert reagents(made)[:4] == ["a", None, None, "d"]


def test_rows_that_contradict_each_other_name_file_rows_and_values(folder: Path) -> None:
    table = "well,drug\nA01,a\nA02,b\nA03,c\nA04,d\nA02,e\nA03,c\n"
    made = plan(folder, table)
    assert reagents(made) == ["a", None, "c", "d"] * 2
    with pytest.raises(RecipeError) as refusal:
        check_limits([made])
    told = str(refusal.value)
    assert told.startswith("map.csv: 1 contradiction, more than max_contradictions: 0 allows (rows differ in")
    assert "experiment.reagent: 'b' (row 3) and 'e' (row 6)" in told
    check_limits([plan(folder, table, max_contradictions=1)])


def test_rows_for_one_well_in_two_spellings_contradict_each_other(folder: Path) -> None:
    made = plan(folder, "well,drug\nA01,DMSO\nA1,taxol\nA02,b\na2,b\nA03,c\nA04,d\n")
    assert reagents(made) == [None, "b", "c", "d"] * 2
    assert only(made).contradictions == ("rows differ in experiment.reagent: 'DMSO' (row 2) and 'taxol' (row 3)",)
    assert only(made).rows_unused == 0


def test_zeros_of_plates_are_no_spelling(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "007_A01.tif", np.zeros((4, 6), np.uint8), metadata=None)
    (tmp_path / "map.csv").write_text("plate,well,drug\n007,A1,a\n7,A01,b\n")
    made = planned(tmp_path, {"path": "map.csv", **PLATES}, pattern="{plate}_{well}")
    assert only(made).contradictions == ()
    assert reagents(made) == ["a"]
    assert only(made).unused == ("7/A01",)


def test_a_map_that_contradicts_the_file_names_is_refused_with_the_wells(folder: Path) -> None:
    rows = [f"{plate}_A0{well}_s1.tif,{plate},A0{well},x" for plate in ("P1", "P2") for well in range(1, 5)]
    rows[1] = "P1_A02_s1.tif,P1,B02,x"
    rows[6] = "P2_A03_s1.tif,P9,A03,x"
    rule = {
        "match": {"storage.filename": "file"},
        "columns": {"experiment.plate": "plate", "experiment.well": "well", "experiment.reagent": "drug"},
    }
    made = plan(folder, "\n".join(["file,plate,well,drug", *rows]), rule)
    wells = [image.record.experiment.well for image in made.images]
    assert wells == ["A01", None, "A03", "A04", "A01", "A02", "A03", "A04"]
    assert made.images[6].record.experiment.plate is None
    assert reagents(made) == ["x"] * 8
    assert conflicts(made) == [
        "row 3 has experiment.well 'B02', the file names say 'A02'; it stays unknown for s/P1_A02_s1.tif",
        "row 8 has experiment.plate 'P9', the file names say 'P2'; it stays unknown for s/P2_A03_s1.tif",
    ]
    with pytest.raises(
        RecipeError, match=r"map\.csv: 2 contradictions.*row 3 has experiment\.well 'B02', the file names"
    ):
        check_limits([made])


def test_another_spelling_of_what_the_file_names_say_is_no_contradiction(folder: Path) -> None:
    rows = [f"{plate}_A0{well}_s1.tif,r1c{well}" for plate in ("P1", "P2") for well in range(1, 5)]
    rule = {"match": {"storage.filename": "file"}, "columns": {"experiment.well": "well"}}
    made = plan(folder, "\n".join(["file,well", *rows]), rule)
    assert only(made).contradictions == ()
    assert conflicts(made) == []


def test_two_tables_that_contradict_each_other_are_refused(folder: Path) -> None:
    wells = "well,drug\nA01,a\nA02,b\nA03,c\nA04,d\n"
    (folder / "one.csv").write_text(wells)
    (folder / "two.csv").write_text(wells.replace("A02,b", "A02,z"))
    made = planned(folder, {"path": "one.csv", **WELLS}, {"path": "two.csv", **WELLS})
    assert [len(entry.contradictions) for entry in made.reconciliations] == [0, 1]
    with pytest.raises(RecipeError, match=r"^two\.csv: 1 contradiction.*'z' \(two\.csv\), before it 'b'"):
        check_limits([made])


@pytest.mark.parametrize("spelling", ["A{:02d}", "A{}", "a{}", "r01c{:02d}", "R1C{}", "A-{}"])
def test_wells_are_found_in_any_spelling(folder: Path, spelling: str) -> None:
    rows = "\n".join(f"{spelling.format(well)},x{well}" for well in range(1, 5))
    made = plan(folder, f"well,drug\n{rows}\n")
    assert reagents(made) == ["x1", "x2", "x3", "x4"] * 2
    check_limits([made])


def test_wells_of_rows_and_columns_in_names_are_found_too(tmp_path: Path) -> None:
    for well in (1, 12):
        tifffile.imwrite(
            tmp_path / f"r02c{well:02d}f01p01-ch1sk1fk1fl1.tiff", np.zeros((4, 6), np.uint8), metadata=None
        )
    (tmp_path / "map.csv").write_text("well,drug\nb1,x\nB12,y\n")
    recipe = BuildRecipe.model_validate({"naming": "opera-harmony", "tables": [{"path": "map.csv", **WELLS}]})
    made = plan_folder(str(tmp_path), recipe)
    assert reagents(made) == ["x", "y"]


def test_a_map_of_other_plates_says_which(folder: Path) -> None:
    made = plan(folder, "plate,well,drug\nP8,A01,a\nP9,A01,b\n", PLATES)
    assert only(made).unknown_plates == ("P8", "P9")
    with pytest.raises(RecipeError, match=r"8 of 8 images have no row.*; no image is of its plates P8, P9\)"):
        check_limits([made])


def test_a_map_of_a_whole_screen_fits_the_plates_that_are_there(folder: Path) -> None:
    rows = "\n".join(f"P{plate},A{well},{plate}{well}" for plate in (1, 2, 3, 4) for well in range(1, 5))
    made = plan(folder, f"plate,well,drug\n{rows}\n", PLATES)
    assert reagents(made) == [f"{plate}{well}" for plate in (1, 2) for well in range(1, 5)]
    assert (only(made).rows_unused, only(made).unknown_plates) == (8, ("P3", "P4"))
    check_limits([made])


def test_plates_that_take_the_same_rows_are_noted(folder: Path) -> None:
    made = plan(folder, "well,drug\nA01,a\nA02,b\nA03,c\nA04,d\n")
    (note,) = [finding.reason for finding in made.findings if "take the same rows" in finding.reason]
    assert note.startswith("all 2 plates (P1, P2) take the same rows: if their layouts differ")


def test_a_map_for_one_plate_speaks_of_its_images_only(folder: Path) -> None:
    (folder / "one.csv").write_text(",1,2,3,4\nA,a,b,c,d\n")
    (folder / "two.csv").write_text(",1,2,3,4\nA,e,f,g,\n")
    grid = {"layout": "grid", "value": "experiment.reagent"}
    made = planned(
        folder,
        {"path": "one.csv", **grid, "only": {"experiment.plate": "P1"}},
        {"path": "two.csv", **grid, "only": {"experiment.plate": "P2"}},
    )
    assert reagents(made) == ["a", "b", "c", "d", "e", "f", "g", None]
    assert [(entry.images, entry.labelled) for entry in made.reconciliations] == [(4, 4), (4, 3)]
    with pytest.raises(RecipeError, match=r"^two\.csv: 1 of 4 images have no row.*\(A04\)"):
        check_limits([made])


def test_a_sheet_as_people_keep_it(folder: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.title = "read me"
    sheet = workbook.create_sheet("Layout")
    sheet.append(("Plate", "Well", "Drug", "µM", None))
    for plate in ("P1", "P2"):
        for well in range(1, 5):
            sheet.append((plate if well == 1 else None, f"A{well}", 'DMSO "dry", 1%', well / 2, "  "))
    sheet.merge_cells("A2:A5")
    sheet.merge_cells("A6:A9")
    sheet.append((None, None, None))
    workbook.save(folder / "map.xlsx")
    rule = {
        "path": "map.xlsx",
        "sheet": "Layout",
        "match": {"experiment.plate": "Plate", "experiment.well": "Well"},
        "columns": {"experiment.reagent": "Drug"},
    }
    made = planned(folder, rule)
    assert reagents(made) == ['DMSO "dry", 1%'] * 8
    assert only(made).table == "map.xlsx, sheet Layout"
    check_limits([made])


def test_ids_in_number_cells_find_their_images(tmp_path: Path) -> None:
    for name in ("0017_A01.tif", "0018_A01.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 6), np.uint8), metadata=None)
    workbook = openpyxl.Workbook()
    for row in (("plate", "drug"), (17.0, "a"), ("0018", "b")):
        workbook.active.append(row)
    workbook.save(tmp_path / "map.xlsx")
    rule = {"path": "map.xlsx", "match": {"experiment.plate": "plate"}, "columns": {"experiment.reagent": "drug"}}
    made = planned(tmp_path, rule, pattern="{plate}_{well}")
    assert [(i.record.experiment.plate, i.record.experiment.reagent) for i in made.images] == [
        ("0017", "a"),
        ("0018", "b"),
    ]


def test_a_grid_of_numbers_that_are_none_names_its_cells(folder: Path) -> None:
    (folder / "map.csv").write_text(",1,2,3,4\nA,20,twenty,20,20x\n")
    made = planned(folder, {"path": "map.csv", "layout": "grid", "value": "microscopy.magnification"})
    assert [image.record.microscopy.magnification for image in made.images][:4] == [20, None, 20, 20]
    assert conflicts(made) == [
        "cell C2: 'twenty' is no microscopy.magnification (a number is needed); it stays unknown"
    ]


def test_a_plan_without_tables_has_nothing_to_reconcile(folder: Path) -> None:
    made = planned(folder)
    assert made.reconciliations == ()
    assert describe(made)["reconciliations"] == []
    check_limits([made])


def test_a_map_of_a_plate_that_is_not_there_says_which_are(folder: Path) -> None:
    built = plan(folder, "well,drug\nA01,a\n", only={"experiment.plate": "P9"})
    (note,) = [finding for finding in built.findings if "(only)" in finding.reason]
    assert note.reason == "no image is experiment.plate P9, of which alone (only) the table speaks; images are P1, P2"


def test_a_table_of_rows_and_columns_finds_wells(folder: Path) -> None:
    rule = {"match": {"row": "Row", "column": "Col"}, "columns": {"experiment.reagent": "drug"}}
    built = plan(folder, "Row,Col,drug\nA,1,a\nA,2,b\nA,3,c\n1,4,d\n", rule)
    assert reagents(built) == ["a", "b", "c", "d"] * 2
    assert only(built).problems == ()


def test_a_table_that_spells_a_well_otherwise_leaves_it_as_the_names_have_it(folder: Path) -> None:
    lines = [f"P{plate}_A0{well}_s1.tif,a{well}" for plate in (1, 2) for well in range(1, 5)]
    rule = {"match": {"storage.filename": "file"}, "columns": {"experiment.well": "well"}}
    built = plan(folder, "\n".join(["file,well", *lines]), rule)
    assert [image.record.experiment.well for image in built.images] == ["A01", "A02", "A03", "A04"] * 2
