"""Real folders, planned by the naming of their microscope. The numbers were counted in the folders by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan
from chammi75.schemas.recipe import BuildRecipe


@dataclass(frozen=True)
class Counted:
    """What a folder holds: images by their channels, and the values of the fields that names state."""

    folder: str
    naming: str
    images: dict[tuple[int, ...], int]
    plates: set[str | None]
    wells: set[str]
    fovs: set[str | None]
    z_slices: set[int | None]
    timepoints: set[int | None]
    left_out: int = 0


FOLDERS = [
    Counted(
        "faim_ImageXpress_ProjectionMix",
        "imagexpress",
        {(1, 2, 3): 4, (1, 2, 4): 4, (1, 2): 4},
        {"Projection-Mix"},
        {"E07", "E08"},
        {"1", "2"},
        {None, 1, 2},
        {None},
        left_out=32,
    ),
    Counted(
        "faim_ImageXpress_SingleChannel_duplicates",
        "imagexpress",
        {(1,): 4},
        {"Projection-Mix"},
        {"E07", "E08"},
        {"1", "2"},
        {None},
        {None},
        left_out=4,
    ),
    Counted(
        "faim_CV8000_minimal",
        "cellvoyager",
        {(1, 2): 32},
        {"CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack"},
        {"D08", "E03"},
        {"001", "002", "003", "004"},
        {1, 2, 3, 4},
        {1},
    ),
    Counted("cdf_JUMP_BR00117006", "jump", {(1, 2, 3): 1}, {None}, {"A01"}, {"01"}, {1}, {1}),
    Counted("cdf_JUMP_BR00117006", "opera-harmony", {(1, 2, 3): 1}, {None}, {"A01"}, {"01"}, {1}, {1}),
    Counted(
        "cdf_NF1_cellpainting_Plate2",
        "gen5",
        {(1, 2, 3): 5},
        {None},
        {"B7", "D6", "D7", "F7", "H12"},
        {"1", "2", "3"},
        {None},
        {1},
    ),
    Counted("cpex_ExampleVitraImages", "vitra", {(1, 2): 2}, {None}, {"A01", "A12"}, {None}, {None}, {None}),
    Counted(
        "cpex_ExampleHuman", "cellomics", {(1, 2, 3): 1}, {"AS_09125_050116030001"}, {"D03"}, {"00"}, {None}, {None}
    ),
    Counted(
        "cpex_ExampleIlluminationCorrection_Transfluor",
        "cellomics",
        {(1,): 12},
        {"AS_09047_050428030001"},
        {"O01", "O02", "O03", "O04"},
        {"00", "01", "02"},
        {None},
        {None},
    ),
    Counted("bia_BBBC022", "bbbc", {(1, 2, 3): 1}, {"IXMtest"}, {"A02"}, {"9"}, {None}, {None}),
    Counted(
        "cpex_ExampleUntangleWorms",
        "imagexpress",
        {(1, 2): 2},
        {"1649_1109_0003_Amp5-1_B_20070424"},
        {"C01", "C20"},
        {None},
        {None},
        {None},
    ),
    Counted(
        "neubias_mitocheck_movie",
        "scanr",
        {(1,): 15},
        {"EMBO_2012_Group3"},
        {"0002"},
        {"001"},
        {0},
        set(range(15)),
    ),
]


def plan(shared_data: Path, folder: str, **keys: str) -> BuildPlan:
    return plan_folder(str(shared_data / "public" / folder), BuildRecipe.model_validate(keys), workers=2)


@pytest.mark.parametrize("counted", FOLDERS, ids=lambda counted: f"{counted.folder}-{counted.naming}")
def test_a_folder_is_what_was_counted_in_it(shared_data: Path, counted: Counted) -> None:
    planned = plan(shared_data, counted.folder, naming=counted.naming)
    records = [image.record for image in planned.images]
    assert Counter(tuple(record.imaging.channel) for record in records) == counted.images
    assert {record.experiment.plate for record in records} == counted.plates
    assert {record.experiment.well for record in records} == counted.wells
    assert {record.microscopy.fov for record in records} == counted.fovs
    assert {record.geometry.z_slice for record in records} == counted.z_slices
    assert {record.geometry.timepoint for record in records} == counted.timepoints
    assert not [finding for finding in planned.findings if finding.kind in ("unmatched", "conflict", "mismatch")]
    thumbnails = [finding.reason for finding in planned.findings if "thumbnail" in finding.reason]
    assert thumbnails == ([f"{counted.left_out} thumbnails left out, by naming imagexpress"] * bool(counted.left_out))


def test_the_projections_of_a_real_plate_are_images_beside_its_slices(shared_data: Path) -> None:
    planned = plan(shared_data, "faim_ImageXpress_ProjectionMix", naming="imagexpress")
    told = Counter(
        (tuple(i.record.imaging.channel), i.record.geometry.z_slice, i.record.geometry.depth) for i in planned.images
    )
    assert told == {((1, 2, 3), None, None): 4, ((1, 2, 4), 1, 2): 4, ((1, 2), 2, 2): 4}


def test_the_example_of_a_wound_that_heals(shared_data: Path) -> None:
    planned = plan(shared_data, "cpex_ExampleWoundHealing", naming="cellprofiler")
    if any(finding.kind == "unreadable" for finding in planned.findings):
        pytest.skip("no reader of JPEG here")
    told = [(i.record.experiment.well, i.record.geometry.timepoint, i.record.geometry.channels) for i in planned.images]
    assert told == [("B5", 0, 3), ("B5", 24, 3)]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("faim_ImageXpress_ProjectionMix", "naming: imagexpress would make 12 images of them, and leave 32 others out"),
        ("faim_CV8000_minimal", "naming: cellvoyager would make 32 images of them"),
        ("cdf_JUMP_BR00117006", "naming: opera-harmony would make 1 image of them"),
        ("cdf_NF1_cellpainting_Plate2", "naming: gen5 would make 5 images of them"),
    ],
)
def test_a_real_folder_without_a_recipe_is_recognised(shared_data: Path, folder: str, words: str) -> None:
    planned = plan(shared_data, folder)
    assert any(finding.reason.endswith(words) for finding in planned.findings if finding.kind == "note")


def test_irregular_names_are_unmatched_and_recognised_as_nothing(shared_data: Path) -> None:
    planned = plan(shared_data, "bia_BBBC007", naming="bbbc")
    assert Counter(finding.kind for finding in planned.findings)["unmatched"] == 6
    assert not any("naming" in finding.reason for finding in plan(shared_data, "bia_BBBC007").findings)
