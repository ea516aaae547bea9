"""From folders that a microscope might have written to planned images."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chammi75.build.description import describe
from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan, Finding, PlannedImage
from chammi75.errors import RecipeError
from chammi75.readers.registry import open_image
from chammi75.schemas.recipe import BuildRecipe

PATTERN = "{plate}_{well}_s{fov}_{channel}"


def write(path: Path, shape: tuple[int, ...] = (6, 8), dtype: str = "uint16", value: int = 1, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (np.arange(np.prod(shape)).reshape(shape) % 50 + value).astype(dtype)
    tifffile.imwrite(path, pixels, **({"photometric": "minisblack", "metadata": None} | options))


def plan(folder: Path, workers: int = 1, recipe_folder: Path | None = None, **keys: Any) -> BuildPlan:
    recipe = BuildRecipe.model_validate({"source": "src1", **keys})
    return plan_folder(
        str(folder), recipe, workers=workers, recipe_folder=str(recipe_folder) if recipe_folder else None
    )


def of(kind: str, planned: BuildPlan) -> list[Finding]:
    return [finding for finding in planned.findings if finding.kind == kind]


def ids(planned: BuildPlan) -> list[str]:
    return [image.record.image_id for image in planned.images]


def only(planned: BuildPlan) -> PlannedImage:
    (image,) = planned.images
    return image


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    folder = tmp_path / "plate"
    for well in ("A01", "B02"):
        for fov in (1, 2):
            for channel in ("DAPI", "Mito", "GFP"):
                write(folder / f"P7/P7_{well}_s{fov}_{channel}.tif")
    return folder


def test_files_that_differ_in_the_channel_only_are_one_image(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN)
    assert ids(planned) == [f"src1/P7/P7_{well}_s{fov}_*.tif" for well in ("A01", "B02") for fov in (1, 2)]
    record = planned.images[1].record
    assert (record.experiment.plate, record.experiment.well, record.microscopy.fov) == ("P7", "A01", "2")
    assert record.experiment.study == "src1"
    assert record.imaging.panel == ["DAPI", "GFP", "Mito"]
    assert record.imaging.channel == [1, 2, 3]
    assert record.imaging.channel_type == ["nucleus", None, "mitochondria"]
    assert record.storage.path == [f"P7/P7_A01_s2_{c}.tif" for c in ("DAPI", "GFP", "Mito")]
    assert record.storage.filename == [f"P7_A01_s2_{c}.tif" for c in ("DAPI", "GFP", "Mito")]
    assert (record.geometry.width, record.geometry.height, record.geometry.channels) == (8, 6, 3)
    assert record.geometry.dtype == "uint16"
    assert record.geometry.significant_bits == 16
    assert record.geometry.z_slice is record.geometry.timepoint is record.geometry.depth is None
    assert record.provenance.reader == "tifffile"
    assert record.provenance.uri == []
    assert planned.findings == ()
    assert planned.pixel_bytes.tolist() == [6 * 8 * 2 * 3] * 4
    assert planned.pixel_bytes.dtype == np.int64


def test_planes_lead_to_the_pixels(plate: Path) -> None:
    write(plate / "P7/P7_A01_s1_GFP.tif", value=100)
    plane = plan(plate, pattern=PATTERN).images[0].planes[1]
    with open_image(plane.url, axes=plane.axes) as reader:
        pixels = reader.read_plane(plane.series, z=plane.z, t=plane.t, c=plane.c, page=plane.page)
    assert pixels.shape == (6, 8)
    assert pixels.min() == 100


def test_the_recipe_gives_the_order_of_channels_and_their_words(plate: Path) -> None:
    rules = [{"name": "Mito", "panel": "MitoTracker"}, {"name": "DAPI", "channel_type": "DNA"}, {"name": "GFP"}]
    imaging = plan(plate, pattern=PATTERN, channels=rules).images[0].record.imaging
    assert imaging.panel == ["MitoTracker", "DAPI", "GFP"]
    assert imaging.channel_type == ["mitochondria", "nucleus", None]
    assert imaging.channel == [1, 2, 3]


def test_a_channel_that_no_rule_names_is_left_out_and_reported_with_the_rules(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN, channels=[{"name": "DAPI"}, {"name": "GFP"}])
    assert all(image.record.imaging.panel == ["DAPI", "GFP"] for image in planned.images)
    findings = of("unmatched", planned)
    assert [finding.path for finding in findings] == [
        f"P7/P7_{w}_s{f}_Mito.tif" for w in ("A01", "B02") for f in (1, 2)
    ]
    assert "Mito is named by no rule" in findings[0].reason
    assert "DAPI, GFP" in findings[0].reason


def test_a_type_that_the_vocabulary_lacks_is_kept_with_the_nearest_word_in_a_note(plate: Path) -> None:
    planned = plan(
        plate,
        pattern=PATTERN,
        channels=[{"name": "DAPI", "channel_type": "nucleis"}, {"name": "GFP"}, {"name": "Mito"}],
    )
    assert planned.images[0].record.imaging.channel_type[0] == "nucleis"
    assert [f.path for f in of("note", planned)] == ["imaging.channel_type"]
    assert "did you mean 'nuclei'?" in of("note", planned)[0].reason


def test_a_missing_channel_is_reported_and_the_others_keep_their_numbers(plate: Path) -> None:
    (plate / "P7/P7_A01_s1_DAPI.tif").unlink()
    planned = plan(plate, pattern=PATTERN)
    assert len(planned.images) == 4
    imaging = planned.images[0].record.imaging
    assert imaging.panel == ["GFP", "Mito"]
    assert imaging.channel == [2, 3]
    assert imaging.missing_channel == [1]
    (finding,) = of("missing_channel", planned)
    assert finding.path == "P7/P7_A01_s1_*.tif"
    assert "DAPI" in finding.reason


def test_images_that_lack_a_channel_can_be_skipped(plate: Path) -> None:
    (plate / "P7/P7_A01_s1_DAPI.tif").unlink()
    planned = plan(plate, pattern=PATTERN, missing_channel="skip")
    assert len(planned.images) == 3
    assert "skipped" in of("missing_channel", planned)[0].reason


def test_a_channel_that_only_the_recipe_names_is_missing(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN, channels=[{"name": n} for n in ("DAPI", "GFP", "Mito", "ER")])
    assert [finding.kind for finding in planned.findings] == ["missing_channel"] * 4
    assert planned.images[0].record.imaging.missing_channel == [4]


def test_an_unreadable_file_is_reported_and_its_channel_is_missing(plate: Path) -> None:
    (plate / "P7/P7_A01_s1_DAPI.tif").write_bytes(b"II*\0\x08\0\0\0")
    (plate / "P7/P7_A01_s2_DAPI.tif").write_bytes(b"")
    planned = plan(plate, pattern=PATTERN)
    unreadable = of("unreadable", planned)
    assert [finding.path for finding in unreadable] == ["P7/P7_A01_s1_DAPI.tif", "P7/P7_A01_s2_DAPI.tif"]
    assert all(finding.reason for finding in unreadable)
    assert "DAPI (its file is unreadable)" in of("missing_channel", planned)[0].reason
    assert len(planned.images) == 4


def test_what_fits_no_pattern_is_reported(plate: Path) -> None:
    write(plate / "overview.tif")
    (finding,) = plan(plate, pattern=PATTERN).findings
    assert (finding.kind, finding.path) == ("unmatched", "overview.tif")
    assert PATTERN in finding.reason


def test_two_files_for_one_channel_are_a_conflict_and_the_image_is_skipped(tmp_path: Path) -> None:
    for name in ("a_w1_x.tif", "a_w1_y.tif", "a_w2_z.tif", "b_w1_x.tif", "b_w2_x.tif"):
        write(tmp_path / name)
    planned = plan(tmp_path, pattern="{image}_w{channel}_{*}")
    assert ids(planned) == ["src1/b_w*_*.tif"]
    (finding,) = planned.findings
    assert (finding.kind, finding.path) == ("conflict", "a_w*_*.tif")
    assert "a_w1_x.tif and a_w1_y.tif" in finding.reason


def test_channels_of_different_size_are_a_mismatch(plate: Path) -> None:
    write(plate / "P7/P7_A01_s1_GFP.tif", shape=(6, 9))
    planned = plan(plate, pattern=PATTERN)
    assert len(planned.images) == 3
    (finding,) = planned.findings
    assert finding.kind == "mismatch"
    assert "8 x 6" in finding.reason
    assert "9 x 6" in finding.reason


def test_channels_of_different_depth_in_bits_are_one_image_of_the_wider_type(plate: Path) -> None:
    write(plate / "P7/P7_A01_s1_GFP.tif", dtype="uint8")
    planned = plan(plate, pattern=PATTERN)
    assert planned.images[0].record.geometry.dtype == "uint16"
    assert planned.pixel_bytes[0] == 6 * 8 * 2 * 3


def test_integers_and_floats_in_one_image_are_a_mismatch(plate: Path) -> None:
    write(plate / "P7/P7_A01_s1_GFP.tif", dtype="float32")
    planned = plan(plate, pattern=PATTERN)
    assert len(planned.images) == 3
    assert "integers and floats" in of("mismatch", planned)[0].reason


def test_floats_have_no_significant_bits(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", dtype="float32")
    geometry = only(plan(tmp_path, record={"geometry.significant_bits": 12})).record.geometry
    assert geometry.dtype == "float32"
    assert geometry.significant_bits is None


def test_channels_with_different_numbers_of_slices_are_a_mismatch(tmp_path: Path) -> None:
    write(tmp_path / "a_1.tif", (3, 6, 8))
    write(tmp_path / "a_2.tif", (4, 6, 8))
    planned = plan(tmp_path, pattern="{image}_{channel}", axes="ZYX")
    assert planned.images == ()
    assert "3 z-slices" in of("mismatch", planned)[0].reason


def test_row_and_column_make_the_well(tmp_path: Path) -> None:
    write(tmp_path / "r02c03f1-ch1.tif")
    record = only(plan(tmp_path, pattern="r{row}c{column}f{fov}-ch{channel}")).record
    assert record.experiment.well == "B03"


def test_slices_and_timepoints_in_file_names_are_images_with_the_numbers_as_named(tmp_path: Path) -> None:
    for t in (1, 10, 2):
        for z in ("01", "02", "04"):
            write(tmp_path / f"a_t{t}_z{z}_w1.tif")
    planned = plan(tmp_path, pattern="{image}_t{t}_z{z}_w{channel}")
    assert [(i.record.geometry.timepoint, i.record.geometry.z_slice) for i in planned.images] == [
        (t, z) for t in (1, 2, 10) for z in (1, 2, 4)
    ]
    assert {i.record.geometry.depth for i in planned.images} == {3}


def test_a_hyperstack_is_one_image_per_time_and_slice_with_its_channels(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "movie.tif",
        np.arange(2 * 3 * 2 * 6 * 8, dtype=np.uint16).reshape(2, 3, 2, 6, 8),
        imagej=True,
        metadata={"axes": "TZCYX"},
    )
    planned = plan(tmp_path)
    assert ids(planned) == [f"src1/movie.tif#t={t}&z={z}" for t in range(2) for z in range(3)]
    image = planned.images[4]
    assert (image.record.geometry.timepoint, image.record.geometry.z_slice, image.record.geometry.depth) == (1, 1, 3)
    assert [(plane.t, plane.z, plane.c) for plane in image.planes] == [(1, 1, 0), (1, 1, 1)]
    assert image.record.provenance.format == "imagej"


def test_pages_that_a_file_does_not_name_are_images_unless_the_recipe_names_them(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", (3, 6, 8))
    planned = plan(tmp_path)
    assert ids(planned) == [f"src1/a.tif#page={page}" for page in range(3)]
    assert [image.planes[0].page for image in planned.images] == [0, 1, 2]
    assert planned.images[0].record.geometry.timepoint is None
    as_time = plan(tmp_path, axes="TYX")
    assert ids(as_time) == [f"src1/a.tif#t={t}" for t in range(3)]
    assert [image.record.geometry.timepoint for image in as_time.images] == [0, 1, 2]
    assert as_time.images[0].planes[0].axes == "TYX"
    as_channels = only(plan(tmp_path, axes="CYX", channels=[{"panel": "a"}, {"panel": "b"}, {"panel": "c"}]))
    assert as_channels.record.image_id == "src1/a.tif"
    assert as_channels.record.imaging.panel == ["a", "b", "c"]


def test_images_of_different_size_in_one_file_are_series(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((6, 8), np.uint8), photometric="minisblack", metadata=None)
        writer.write(np.zeros((12, 16), np.uint8), photometric="minisblack", metadata=None)
    planned = plan(tmp_path)
    assert ids(planned) == ["src1/a.tif#series=0", "src1/a.tif#series=1"]
    assert [image.planes[0].series for image in planned.images] == [0, 1]
    assert [image.record.geometry.width for image in planned.images] == [8, 16]


def test_the_file_s_own_channel_names_size_and_bits_are_taken(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.zeros((2, 6, 8), np.uint16),
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["DAPI", "WGA"]},
            "PhysicalSizeX": 0.325,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.325,
            "PhysicalSizeYUnit": "µm",
        },
    )
    record = only(plan(tmp_path)).record
    assert record.imaging.panel == ["DAPI", "WGA"]
    assert record.imaging.channel_type == ["nucleus", "membrane"]
    assert record.geometry.pixel_size_um == pytest.approx(0.325)
    assert record.provenance.format == "ome-tiff"
    stated = only(plan(tmp_path, record={"geometry": {"pixel_size_um": 0.5, "significant_bits": 12}})).record
    assert stated.geometry.pixel_size_um == 0.5
    assert stated.geometry.significant_bits == 12


def test_an_ome_tiff_of_several_files_is_one_image(tmp_path: Path) -> None:
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="6" SizeZ="1" SizeC="2" SizeT="1">'
        '<Channel ID="C:0" Name="DAPI"/><Channel ID="C:1" Name="ER"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a_c0.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="a_c1.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for name in ("a_c0.ome.tif", "a_c1.ome.tif"):
        write(tmp_path / name, description=xml)
    image = only(plan(tmp_path))
    assert image.record.imaging.panel == ["DAPI", "ER"]
    grouped = plan(tmp_path, pattern="{image}_c{channel}")
    assert only(grouped).record.imaging.panel == ["DAPI", "ER"]
    assert not of("missing_channel", grouped)
    assert not of("conflict", grouped)


def test_constants_apply_and_tables_override_them(plate: Path) -> None:
    (plate / "wells.csv").write_text("Well;Line;Mag\nA1;U2OS;40x\nB2;unknown;\n", encoding="utf-8")
    planned = plan(
        plate,
        pattern=PATTERN,
        study="idr9999",
        record={
            "biology": {"organism": "human", "cell_line": "HeLa"},
            "microscopy.type": "confocal microscopy",
            "microscopy.magnification": 20,
        },
        tables=[
            {
                "path": "wells.csv",
                "match": {"experiment.well": "Well"},
                "columns": {"biology.cell_line": "Line", "microscopy.magnification": "Mag"},
            }
        ],
    )
    first, last = planned.images[0].record, planned.images[-1].record
    assert first.experiment.study == "idr9999"
    assert (first.biology.organism, first.biology.organism_id) == ("Homo sapiens", "NCBITaxon:9606")
    assert (first.microscopy.type, first.microscopy.type_id) == ("confocal", "FBbi:00000251")
    assert (first.biology.cell_line, last.biology.cell_line) == ("U2OS", "HeLa")
    assert (first.microscopy.magnification, first.microscopy.magnification_text) == (40.0, "40x")
    assert (last.microscopy.magnification, last.microscopy.magnification_text) == (20.0, None)
    assert [finding.kind for finding in planned.findings] == ["note"]
    assert "4 images found by another spelling" in planned.findings[0].reason


def test_tables_beside_the_recipe_are_read_from_there(plate: Path, tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("file,drug\nP7/P7_A01_s1_GFP.tif,taxol\n")
    table = {"path": "w.csv", "match": {"storage.path": "file"}, "columns": {"experiment.reagent": "drug"}}
    planned = plan(plate, recipe_folder=tmp_path, pattern=PATTERN, tables=[table])
    assert [image.record.experiment.reagent for image in planned.images] == ["taxol", None, None, None]
    assert len(of("unlabelled", planned)) == 3


def test_a_table_that_contradicts_itself_leaves_the_field_unknown_whatever_the_constants_say(plate: Path) -> None:
    (plate / "w.csv").write_text("well,line\nA01,U2OS\nA01,HeLa\nB02,HeLa\n")
    table = {"path": "w.csv", "match": {"experiment.well": "well"}, "columns": {"biology.cell_line": "line"}}
    planned = plan(plate, pattern=PATTERN, tables=[table], record={"biology.cell_line": "A549"})
    assert [image.record.biology.cell_line for image in planned.images] == [None, None, "HeLa", "HeLa"]
    assert len(of("conflict", planned)) == 1


def test_a_table_that_is_not_there_or_lies_outside_is_a_recipe_error(plate: Path) -> None:
    table = {"path": "none.csv", "match": {"experiment.well": "w"}, "columns": {"biology.cell_line": "l"}}
    with pytest.raises(RecipeError, match=r"none\.csv cannot be read beside the recipe: there is no such file"):
        plan(plate, pattern=PATTERN, tables=[table])
    with pytest.raises(RecipeError, match="must stay inside"):
        plan(plate, pattern=PATTERN, tables=[{**table, "path": "../w.csv"}])


def test_words_that_no_vocabulary_has_are_kept_and_noted_once(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN, record={"biology.organism": "Homo sapien"})
    assert planned.images[0].record.biology.organism == "Homo sapien"
    assert planned.images[0].record.biology.organism_id is None
    (note,) = of("note", planned)
    assert "did you mean 'Homo sapiens'?" in note.reason


def test_an_id_that_the_recipe_states_is_kept(plate: Path) -> None:
    record = (
        plan(plate, pattern=PATTERN, record={"biology": {"organism": "human", "organism_id": "X:1"}}).images[0].record
    )
    assert record.biology.organism_id == "X:1"


def test_guidance_files_are_found_by_template(plate: Path) -> None:
    (plate / "guide").mkdir()
    (plate / "guide/P7_A01_s1_DAPI-A01-0.safetensors").write_bytes(b"x")
    (plate / "guide/P7_A01_s1_Mito-A01-2.safetensors").write_bytes(b"x")
    planned = plan(plate, pattern=PATTERN, guidance="guide/{stem}-{well}-{index}.safetensors")
    first = planned.images[0].guidance
    assert [url is not None for url in first] == [True, False, True]
    assert first[0] is not None
    assert first[0].endswith("/guide/P7_A01_s1_DAPI-A01-0.safetensors")
    assert Path(first[0]).is_file()
    assert "10 of 12 planes have no guidance file" in [finding.reason for finding in of("note", planned)]


@pytest.mark.parametrize(
    "template", ["g/{stem.__class__}", "g/{nope}", "g/{stem!r}", "g/{0}", "../{stem}", "/etc/{stem}", "g/{stem", "g/{}"]
)
def test_a_template_that_is_no_plain_path_below_the_recipe_is_refused(plate: Path, template: str) -> None:
    with pytest.raises(RecipeError, match="guidance"):
        plan(plate, pattern=PATTERN, guidance=template)


def test_a_file_name_leads_no_guidance_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "images/x_...tif")
    write(tmp_path / "images/x_in.tif")
    for folder in (tmp_path, tmp_path / "images/in"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.md").write_bytes(b"x")
    planned = plan(tmp_path / "images", pattern="x_{image}", guidance="{image}/secret.md")
    assert [len(image.guidance) for image in planned.images] == [1, 1]
    found = {image.record.image_id: image.guidance[0] is not None for image in planned.images}
    assert found == {"src1/x_...tif": False, "src1/x_in.tif": True}


def test_slices_in_a_file_whose_name_states_one_are_counted_from_0_and_noted(tmp_path: Path) -> None:
    write(tmp_path / "a_z7.tif", (3, 6, 8))
    planned = plan(tmp_path, pattern="{image}_z{z}", axes="ZYX")
    assert [image.record.geometry.z_slice for image in planned.images] == [0, 1, 2]
    assert {image.record.geometry.depth for image in planned.images} == {3}
    assert "its name says z=7, and it holds 3 z-slices" in of("note", planned)[0].reason


def test_files_of_one_image_that_state_different_scales_give_none(tmp_path: Path) -> None:
    for channel, size in (("a", 0.5), ("b", 0.6)):
        metadata = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeXUnit": "µm"}
        tifffile.imwrite(tmp_path / f"x_{channel}.ome.tif", np.zeros((6, 8), np.uint8), metadata=metadata)
    planned = plan(tmp_path, pattern="{image}_{channel}")
    assert only(planned).record.geometry.pixel_size_um is None
    assert "different pixel sizes (0.5, 0.6)" in of("note", planned)[0].reason


def test_hostile_files_are_findings(tmp_path: Path) -> None:
    (tmp_path / "page.tif").write_bytes(b"<html>404</html>")
    (tmp_path / "zero.tif").write_bytes(b"")
    (tmp_path / "noise.bin").write_bytes(os.urandom(200).replace(b"II", b"xx"))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 50)
    (tmp_path / "loop.tif").write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")
    (tmp_path / "dir.tif").mkdir()
    write(tmp_path / "good.tif")
    planned = plan(tmp_path)
    assert ids(planned) == ["src1/good.tif"]
    assert sorted(finding.path for finding in of("unreadable", planned)) == [
        "loop.tif", "noise.bin", "page.tif", "photo.jpg", "zero.tif",
    ]  # fmt: skip


def test_an_empty_folder_makes_an_empty_plan_that_says_so(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    assert planned.images == ()
    assert planned.pixel_bytes.shape == (0,)
    assert planned.findings[-1].reason == "nothing in this folder makes an image"


def test_the_plan_is_the_same_for_any_workers_and_any_order_of_files(
    plate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plate / "P7/P7_A01_s1_DAPI.tif").write_bytes(b"")
    one = plan(plate, pattern=PATTERN)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Any) -> None:
            self._entries = reversed(list(scandir(path)))

        def __enter__(self) -> Any:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("chammi75.build.listing.os.scandir", Reversed)
    other = plan(plate, workers=4, pattern=PATTERN)
    assert one.images == other.images
    assert one.findings == other.findings
    assert one.groups == other.groups
    assert one.pixel_bytes.tolist() == other.pixel_bytes.tolist()


def test_records_name_no_folder_of_this_machine(plate: Path, tmp_path: Path) -> None:
    text = json.dumps([image.record.model_dump() for image in plan(plate, pattern=PATTERN).images])
    assert str(tmp_path) not in text


def test_a_bucket_is_planned_like_a_folder_and_its_uris_are_kept(plate: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        for file in sorted(plate.rglob("*.tif")):
            memory.pipe_file(f"/chammi75-test-plan/{file.relative_to(plate).as_posix()}", file.read_bytes())
        recipe = BuildRecipe.model_validate({"source": "src1", "pattern": PATTERN})
        remote = plan_folder("memory://chammi75-test-plan", recipe, workers=2)
    finally:
        memory.rm("/chammi75-test-plan", recursive=True)
    local = plan(plate, pattern=PATTERN)
    assert ids(remote) == ids(local)
    record = remote.images[0].record
    assert record.provenance.uri[0] == "memory://chammi75-test-plan/P7/P7_A01_s1_DAPI.tif"
    bare = record.model_copy(update={"provenance": record.provenance.model_copy(update={"uri": []})})
    assert bare == local.images[0].record


def test_groups_show_people_what_was_grouped_with_what(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN)
    assert planned.groups[0] == (
        "src1/P7/P7_A01_s1_*.tif  <-  DAPI: P7_A01_s1_DAPI.tif, GFP: P7_A01_s1_GFP.tif, Mito: P7_A01_s1_Mito.tif"
    )
    assert len(planned.groups) == 4


def test_a_plan_is_described_in_tables(plate: Path) -> None:
    for fov in range(30):
        write(plate / f"stray{fov}.tif")
    described = describe(plan(plate, pattern=PATTERN), limit=3)
    assert described["images"] == [
        {
            "study": "src1",
            "channels": "DAPI (nucleus), GFP, Mito (mitochondria)",
            "size": "8 x 6",
            "dtype": "uint16",
            "images": 4,
            "bytes": 4 * 288,
        }
    ]
    assert len(described["groups"]) == 3
    assert described["kinds"] == [{"finding": "unmatched", "count": 30}]
    assert [row["path"] for row in described["findings"]] == ["stray0.tif", "stray1.tif", "stray2.tif"]
    json.dumps(described)


def test_the_plan_carries_what_the_store_needs(plate: Path) -> None:
    planned = plan(plate, pattern=PATTERN, split="test", codec="deflate", shard_bytes=2**20)
    assert (planned.source, planned.split, planned.codec, planned.shard_bytes) == ("src1", "test", "deflate", 2**20)
    assert len(planned.recipe_sha256) == 64
    assert (
        planned.recipe_sha256
        == plan(plate, pattern=PATTERN, split="test", codec="deflate", shard_bytes=2**20).recipe_sha256
    )
    assert dataclasses.is_dataclass(planned)


def test_pages_without_a_named_axis_are_images_and_the_plan_says_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    plan = plan_folder(str(tmp_path), BuildRecipe())
    assert len(plan.images) == 3
    (note,) = [finding for finding in plan.findings if finding.kind == "note"]
    assert note.path == "movie.tif" and "key axes" in note.reason
    named = plan_folder(str(tmp_path), BuildRecipe(axes="TYX"))
    assert [image.record.geometry.timepoint for image in named.images] == [0, 1, 2]
    assert not named.findings
