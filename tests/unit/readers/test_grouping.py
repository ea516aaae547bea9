"""File-name patterns: what they read, what they refuse, and how files group into images."""

from __future__ import annotations

import random
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi75.errors import RecipeError
from chammi75.readers import FilePattern, group_files


def _fields(pattern: str, path: str) -> dict[str, str] | None:
    match = FilePattern.parse(pattern).match(path)
    return None if match is None else dict(match.fields)


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        (
            "{plate}_{well}_s{fov}_w{channel}",
            "a/my_plate_A01_s1_w2.tif",
            {"plate": "my_plate", "well": "A01", "fov": "1", "channel": "2"},
        ),
        ("{plate}_{well}_w{channel}", "p_a-01_w1.TIF", {"plate": "p", "well": "a-01", "channel": "1"}),
        ("{plate}_{well}_w{channel}", "p_AA12_w1.ome.tif", {"plate": "p", "well": "AA12", "channel": "1"}),
        (
            "r{row}c{column}f{fov}p{z}-ch{channel:\\d}{*}",
            "r01c03f01p02-ch5sk1fk1fl1.tiff",
            {"row": "01", "column": "03", "fov": "01", "z": "02", "channel": "5", "well": "A03"},
        ),
        ("r{row}c{column}-{channel}", "r27c4-x.png", {"row": "27", "column": "4", "channel": "x", "well": "AA04"}),
        ("{row}{column}-{channel}", "d3-x.png", {"row": "d", "column": "3", "channel": "x", "well": "D03"}),
        (
            "{study}/{plate}/{image}-ch{channel}",
            "x/S1/P1/i-ch0.png",
            {"study": "S1", "plate": "P1", "image": "i", "channel": "0"},
        ),
        ("{channel}/{image}_t{t}", "root/C1/mitosis_t007.tif", {"channel": "C1", "image": "mitosis", "t": "007"}),
        ("{image}.ome.tif", "a.ome.tif", {"image": "a"}),
        ("{image}.png", "a.tif", None),
        ("{image}-{channel:[A-Z]{2,3}}", "x-ABC.tif", {"image": "x", "channel": "ABC"}),
        ("{image}_{{{channel}}}", "x_{DAPI}.tif", {"image": "x", "channel": "DAPI"}),
        ("{plate}/{image}", "image.png", None),
        ("{image}_z{z}", "a_zb.tif", None),
        ("{plate}.{well}", "p.v2.A01", {"plate": "p.v2", "well": "A01"}),
        ("a+b{fov}", "a+b1.tif", {"fov": "1"}),
        ("a+b{fov}", "aab1.tif", None),
        (
            "{plate:[^/]+/Plate[0-9]+}/{well}",
            "images/HEPG2-01/Plate1/B02.png",
            {"plate": "HEPG2-01/Plate1", "well": "B02"},
        ),
        ("{t:[0-9]{4}/[0-9]{2}}/{well}", "x/2401/15/B02.png", {"t": "2401/15", "well": "B02"}),
        ("{t:[0-9]{4}/[0-9]{2}}/{well}", "15/B02.png", None),
        ("{image}--{image}--{well}", "a--b--A01.tif", {"image": "a b", "well": "A01"}),
    ],
)
def test_a_pattern_reads_its_fields(pattern: str, path: str, fields: dict[str, str] | None) -> None:
    assert _fields(pattern, path) == fields


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{plate}_{wel}", "{wel} is no placeholder; accepted: study, plate"),
        ("{plate}_{plate}", "occurs twice"),
        ("{channel:[}", "is no regular expression"),
        ("{channel:(?P<x>a)}", "named groups"),
        ("{channel:(a)\\1}", "back references"),
        ("{channel:(a+)+}", "match for ever"),
        ("{channel:(?:a*b?)*}", "match for ever"),
        ("{plate}{image}", "nothing says where"),
        ("{channel}{*}", "nothing says where"),
        ("{plate", "not closed"),
        ("plate}", "closes nothing"),
        ("plain.tif", "no placeholder"),
        ("", "characters"),
        ("{fov}" * 200, "characters"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_the_reason(pattern: str, says: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(says)):
        FilePattern.parse(pattern)


def test_matching_a_long_hostile_name_takes_no_time() -> None:
    pattern = FilePattern.parse("{study}_{plate}_{image}_{well}_s{fov}_w{channel}_z{z}")
    start = time.perf_counter()
    assert pattern.match("_" * 200 + "A01_s" * 10 + ".tif") is None
    assert time.perf_counter() - start < 5


def test_channels_of_one_image_group_and_two_files_of_one_channel_stay_visible() -> None:
    paths = [
        "p/A01_s1_w1AB.tif",
        "p/A01_s1_w2CD.tif",
        "p/A01_s1_w2EF.tif",
        "p/A01_s10_w1.tif",
        "p/A01_s2_w1X.tif",
        "p/notes.txt",
    ]
    random.Random(0).shuffle(paths)
    grouping = group_files(paths, FilePattern.parse("{well}_s{fov}_w{channel:\\d}{*}"))
    assert [group.fields["fov"] for group in grouping.groups] == ["1", "2", "10"]
    first = grouping.groups[0]
    assert first.identity == "p/A01_s1_w*.tif"
    assert first.files == {"1": ("p/A01_s1_w1AB.tif",), "2": ("p/A01_s1_w2CD.tif", "p/A01_s1_w2EF.tif")}
    assert first.conflicts == ("2",)
    assert "channel" not in first.fields
    assert grouping.unmatched == ("p/notes.txt",)


def test_z_and_t_make_images_of_their_own() -> None:
    paths = [f"x_t{t}_z{z}_c{c}.tif" for t in range(2) for z in range(3) for c in range(2)]
    grouping = group_files(paths, FilePattern.parse("{image}_t{t}_z{z}_c{channel}"))
    assert len(grouping.groups) == 6
    assert all(set(group.files) == {"0", "1"} for group in grouping.groups)


def test_a_channel_folder_is_starred_in_the_identity() -> None:
    grouping = group_files(["m/c2/a_t1.tif", "m/c1/a_t1.tif"], FilePattern.parse("{channel}/{image}_t{t}"))
    assert [(group.identity, list(group.files)) for group in grouping.groups] == [("m/*/a_t1.tif", ["c1", "c2"])]


def test_a_pattern_without_channel_makes_each_file_an_image() -> None:
    grouping = group_files(["b.png", "a.png"], FilePattern.parse("{image}"))
    assert [(group.identity, dict(group.files)) for group in grouping.groups] == [
        ("a.png", {"": ("a.png",)}),
        ("b.png", {"": ("b.png",)}),
    ]


def test_real_plates_group_as_their_microscopes_name_them(shared_data: Path) -> None:
    folder = shared_data / "public/faim_ImageXpress_ProjectionMix"
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*.tif")]
    grouping = group_files(paths, FilePattern.parse("{plate}_{well}_s{fov}_w{channel:\\d}{*:[0-9A-F-]{36}}"))
    assert all("thumb" not in path for group in grouping.groups for files in group.files.values() for path in files)
    assert all("thumb" in path for path in grouping.unmatched)
    assert {group.fields["well"] for group in grouping.groups} == {"E07", "E08"}
    assert all(not group.conflicts for group in grouping.groups)


_WORD = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=8)


@given(plate=_WORD, row=st.integers(0, 25), column=st.integers(1, 48), fov=st.integers(0, 999), channel=_WORD)
def test_a_name_made_from_fields_reads_back_as_these_fields(
    plate: str, row: int, column: int, fov: int, channel: str
) -> None:
    well = f"{string.ascii_uppercase[row]}{column:02d}"
    name = f"{plate}_{well}_s{fov}_w{channel}.tif"
    assert _fields("{plate}_{well}_s{fov}_w{channel}", name) == {
        "plate": plate,
        "well": well,
        "fov": str(fov),
        "channel": channel,
    }


@given(st.text(max_size=60))
def test_any_text_is_a_pattern_or_a_recipe_error(text: str) -> None:
    try:
        pattern = FilePattern.parse(text)
    except RecipeError:
        return
    pattern.match("a_b/c_d.tif")


@given(st.lists(st.tuples(_WORD, st.integers(0, 12), st.integers(1, 5)), max_size=20), st.randoms())
def test_grouping_loses_no_file_and_does_not_depend_on_order(
    names: list[tuple[str, int, int]], shuffler: random.Random
) -> None:
    paths = sorted({f"{image}_s{fov}_w{channel}.tif" for image, fov, channel in names})
    pattern = FilePattern.parse("{image}_s{fov}_w{channel}")
    grouping = group_files(paths, pattern)
    held = [path for group in grouping.groups for files in group.files.values() for path in files]
    assert sorted([*held, *grouping.unmatched]) == paths
    shuffler.shuffle(paths)
    assert group_files(paths, pattern) == grouping


def test_a_group_knows_the_folder_above_what_its_pattern_reads() -> None:
    grouping = group_files(["a/b/Z1/p_w1.tif", "Z1/p_w1.tif"], FilePattern.parse("Z{z}/{plate}_w{channel}"))
    assert [group.folder for group in grouping.groups] == ["", "a/b"]


def test_every_part_of_a_repeated_image_is_part_of_the_identity() -> None:
    pattern = FilePattern.parse("{image:[0-9]}/{well}_{image}_w{channel}")
    identities = [group.identity for group in group_files(["1/A01_x_w1.tif", "2/A01_x_w1.tif"], pattern).groups]
    assert identities == ["1/A01_x_w*.tif", "2/A01_x_w*.tif"]
