"""The namings in catalog/naming, and folders that are planned by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from chammi75.build.namings import load_naming, report_known_names, table
from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan
from chammi75.build.recipes import parse_recipe, with_naming
from chammi75.declarations import declarations_folder
from chammi75.errors import RecipeError
from chammi75.schemas.naming import Naming, naming, naming_ids
from chammi75.schemas.recipe import BuildRecipe

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = [(name, example.path, example.fields) for name in naming_ids() for example in naming(name).examples]
OTHERS = [(name, path) for name in naming_ids() for path in naming(name).others]
GUID = "E94C24BD-45E4-450A-9919-257C714278F7"


def write(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / path, np.full((4, 6), number, np.uint8), metadata=None)


def plan(folder: Path, **keys: Any) -> BuildPlan:
    return plan_folder(str(folder), BuildRecipe.model_validate({"source": "s", **keys}))


def notes(planned: BuildPlan) -> list[str]:
    return [finding.reason for finding in planned.findings if finding.kind == "note"]


@pytest.mark.parametrize(("name", "path", "fields"), EXAMPLES)
def test_a_naming_reads_its_examples(name: str, path: str, fields: dict[str, str]) -> None:
    chosen = load_naming(name)
    found = chosen.match(path)
    assert found is not None
    assert dict(found.fields) == fields
    assert chosen.what_is_left_out(path) is None


@pytest.mark.parametrize(("name", "path"), OTHERS)
def test_a_naming_reads_no_others(name: str, path: str) -> None:
    chosen = load_naming(name)
    assert chosen.match(path) is None or chosen.what_is_left_out(path) is not None


@pytest.mark.parametrize(("name", "path", "fields"), [entry for entry in EXAMPLES if naming(entry[0]).recognised])
def test_an_example_is_recognised_as_of_its_naming_alone(name: str, path: str, fields: dict[str, str]) -> None:
    (note,) = report_known_names([path])
    assert f"naming: {name} would make 1 image of them" in note.reason


@pytest.mark.parametrize("name", naming_ids())
def test_a_naming_states_itself_as_its_file_does(name: str) -> None:
    assert naming(name).id == name
    text = (declarations_folder("catalog") / "naming" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../../schemas/naming.schema.json\n")
    assert all(len(line) <= 160 for line in text.splitlines())


@pytest.mark.parametrize("name", naming_ids())
def test_namings_fit_their_json_schema(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    file = declarations_folder("catalog") / "naming" / f"{name}.yaml"
    jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), Naming.model_json_schema())


def test_every_naming_is_on_the_page_of_microscopes() -> None:
    page = (ROOT / "docs" / "microscopes.md").read_text(encoding="utf-8")
    for row in table():
        assert f"| `{row['naming']}` | {row['title']} | `{row['example']}` |" in page


def test_an_unknown_naming_is_an_error_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no naming 'ImageXpres'; did you mean 'imagexpress'\? \(known: bbbc, cell"):
        load_naming("ImageXpres")
    with pytest.raises(RecipeError, match=r"r\.yaml, line 2: there is no naming 'opera'"):
        parse_recipe(b"source: a\nnaming: opera\n", "r.yaml")


def test_a_naming_and_a_pattern_are_one_too_many() -> None:
    with pytest.raises(RecipeError, match=r"naming: pattern says how files are named, too"):
        parse_recipe(b'naming: imagexpress\npattern: "{image}"\n', "r.yaml")
    with pytest.raises(RecipeError, match=r"imagexpress is asked for, and the recipe says '\{image\}'"):
        with_naming(BuildRecipe(pattern="{image}"), "imagexpress")
    with pytest.raises(RecipeError, match="leave one of them"):
        plan_folder("/nowhere", BuildRecipe(pattern="{image}").model_copy(update={"naming": "jump"}))


def test_projections_are_not_mixed_with_slices(tmp_path: Path) -> None:
    tops = [f"12/P_A01_s1_w{channel}{GUID}.tif" for channel in (1, 2)]
    slices = [f"12/ZStep_{z}/P_A01_s1_w{channel}{GUID}.tif" for z in (0, 1, 2) for channel in (1, 2)]
    write(tmp_path, *tops, *slices)
    planned = plan(tmp_path, naming="imagexpress")
    told = [(i.record.image_id, i.record.geometry.z_slice, i.record.geometry.depth) for i in planned.images]
    assert told == [
        ("s/12/P_A01_s1_w*.tif", None, None),
        ("s/12/ZStep_0/P_A01_s1_w*.tif", None, None),
        ("s/12/ZStep_1/P_A01_s1_w*.tif", 1, 2),
        ("s/12/ZStep_2/P_A01_s1_w*.tif", 2, 2),
    ]
    assert {image.record.geometry.channels for image in planned.images} == {2}
    assert planned.findings == ()


def test_acquisitions_of_one_plate_stay_apart(tmp_path: Path) -> None:
    write(tmp_path, *(f"{day}/P_A01_s1_w{channel}{GUID}.tif" for day in (1, 2) for channel in (1, 2)))
    planned = plan(tmp_path, naming="imagexpress")
    assert [len(image.planes) for image in planned.images] == [2, 2]
    assert planned.findings == ()


def test_measurements_of_one_plate_stay_apart(tmp_path: Path) -> None:
    folders = [f"P1__2020-11-0{day}T19_57_47-Measurement 1/Images" for day in (8, 9)]
    write(tmp_path, *(f"{folder}/r02c03f01p01-ch{c}sk1fk1fl1.tiff" for folder in folders for c in (1, 2)))
    planned = plan(tmp_path, naming="opera-harmony")
    assert [len(image.planes) for image in planned.images] == [2, 2]
    assert {(i.record.experiment.plate, i.record.experiment.well) for i in planned.images} == {("P1", "B03")}


def test_thumbnails_are_counted_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, f"P_A01_s1_w1{GUID}.tif", f"P_A01_s1_w1_thumb{GUID}.tif", f"P_A01_s1_w2_thumb{GUID}.tif")
    planned = plan(tmp_path, naming="imagexpress")
    assert len(planned.images) == 1
    assert notes(planned) == ["2 thumbnails left out, by naming imagexpress"]


def test_names_that_a_naming_does_not_read_are_unmatched(tmp_path: Path) -> None:
    write(tmp_path, "P_A01_s1_w1.tif", "overview.tif")
    planned = plan(tmp_path, naming="imagexpress")
    (finding,) = planned.findings
    assert (finding.kind, finding.path) == ("unmatched", "overview.tif")
    assert finding.reason == (
        "its name does not fit the naming imagexpress (Molecular Devices ImageXpress (MetaXpress))"
    )


def test_known_names_are_noted_and_nothing_is_grouped_without_a_recipe(tmp_path: Path) -> None:
    write(tmp_path, *(f"P_A0{well}_s1_w{c}{GUID}.tif" for well in (1, 2) for c in (1, 2)))
    write(tmp_path, f"P_A01_s1_w1_thumb{GUID}.tif")
    planned = plan(tmp_path)
    assert len(planned.images) == 5
    assert notes(planned) == [
        "the names of 4 files are those of Molecular Devices ImageXpress (MetaXpress): naming: imagexpress would make"
        " 2 images of them, and leave 1 other out"
    ]


def test_nothing_is_said_of_names_that_nobody_uses(tmp_path: Path) -> None:
    write(tmp_path, "one.tif", "two.tif", f"P_A01_s1_w1{GUID}.tif")
    assert plan(tmp_path).findings == ()
    assert report_known_names([]) == []


def test_folders_of_many_files_are_known_by_a_sample() -> None:
    paths = [f"AS_1_2_A01f{number:03d}d0.tif" for number in range(900)]
    (note,) = report_known_names(paths)
    assert "900 files" in note.reason
    assert "900 images" in note.reason


def test_times_of_names_become_timepoints_that_wells_share(tmp_path: Path) -> None:
    times = ["00d00h00m", "00d06h30m", "01d00h00m"]
    write(tmp_path, *(f"VID7_A1_1_{time}.tif" for time in times), f"VID7_A2_1_{times[2]}.tif")
    planned = plan(tmp_path, naming="incucyte")
    told = [(i.record.experiment.well, i.record.geometry.timepoint) for i in planned.images]
    assert told == [("A1", 0), ("A1", 1), ("A1", 2), ("A2", 2)]
    assert notes(planned) == ["timepoints are the times of its names in order: 0 is 00d00h00m, 2 is 01d00h00m"]


def test_a_well_that_no_plate_has_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "P_A01_s1_w1.tif", "P_ZZ99_s1_w1.tif", "P_AF48_s1_w1.tif")
    planned = plan(tmp_path, naming="imagexpress")
    (note,) = notes(planned)
    assert note.startswith("no plate has the well ZZ99 (plates of 1536 wells have rows A to AF")


def test_a_pattern_or_naming_that_fits_nothing_is_answered_with_the_one_that_does(tmp_path: Path) -> None:
    write(tmp_path, "P_A01_s1_w1.tif", "P_A01_s1_w2.tif")
    for keys in ({"naming": "incucyte"}, {"pattern": "{plate}--{well}"}):
        assert any("naming: imagexpress would make 1 image of them" in note for note in notes(plan(tmp_path, **keys)))


def test_correction_images_of_a_cellvoyager_are_left_out_but_no_plate_that_begins_so(tmp_path: Path) -> None:
    corrections = ("DC_sCMOS #1_CAM1.tif", "SC_BP445-45_40x_M10_CH01.tif")
    write(tmp_path, "DC_1_A01_T0001F001L01A01Z01C01.tif", *corrections)
    planned = plan(tmp_path, naming="cellvoyager")
    assert [image.record.experiment.plate for image in planned.images] == ["DC_1"]
    assert notes(planned) == ["2 correction images left out, by naming cellvoyager"]
