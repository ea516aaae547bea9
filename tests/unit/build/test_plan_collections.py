"""Real collections, as their microscopes and their publishers named them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chammi75.build.plan import plan_folder
from chammi75.build.planned import BuildPlan
from chammi75.readers.registry import open_image
from chammi75.schemas.recipe import BuildRecipe


@pytest.fixture
def public(shared_data: Path) -> Path:
    return shared_data / "public"


def plan(folder: Path, **keys: Any) -> BuildPlan:
    recipe = BuildRecipe.model_validate({"source": folder.name[:60], **keys})
    planned = plan_folder(str(folder), recipe, workers=2)
    for image in planned.images:
        assert len(image.planes) == image.record.geometry.channels
    return planned


def kinds(planned: BuildPlan) -> Counter[str]:
    return Counter(finding.kind for finding in planned.findings if finding.kind != "note")


def panels(planned: BuildPlan) -> set[tuple[str | None, ...]]:
    return {tuple(image.record.imaging.panel) for image in planned.images}


def assert_readable(planned: BuildPlan) -> None:
    """The first and the last image's planes are what the record says."""
    for image in (planned.images[0], planned.images[-1]):
        for plane in image.planes:
            with open_image(plane.url, axes=plane.axes) as reader:
                pixels = reader.read_plane(plane.series, z=plane.z, t=plane.t, c=plane.c, page=plane.page)
            assert pixels.shape == (image.record.geometry.height, image.record.geometry.width)
            assert pixels.dtype.name == image.record.geometry.dtype


def test_fly_screen(public: Path) -> None:
    planned = plan(public / "cpex_ExampleFly", pattern="{plate}_POS{fov}_{channel}")
    assert [image.record.image_id for image in planned.images] == [
        f"cpex_ExampleFly/01_POS{fov}_*.TIF" for fov in ("002", "076", "218")
    ]
    assert panels(planned) == {("D", "F", "R")}
    assert planned.images[0].record.storage.filename == ["01_POS002_D.TIF", "01_POS002_F.TIF", "01_POS002_R.TIF"]
    assert planned.images[1].record.experiment.plate == "01"
    assert planned.images[1].record.microscopy.fov == "076"
    assert {tuple(image.record.imaging.channel_type) for image in planned.images} == {(None, None, None)}
    assert not kinds(planned)
    assert_readable(planned)


def test_fly_screen_in_the_order_of_a_recipe(public: Path) -> None:
    rules = [{"name": "R"}, {"name": "D", "channel_type": "DNA"}, {"name": "F"}]
    planned = plan(public / "cpex_ExampleFly", pattern="{plate}_POS{fov}_{channel}", channels=rules)
    assert panels(planned) == {("R", "DNA", "F")}
    assert planned.images[0].record.imaging.channel_type == [None, "nucleus", None]
    assert planned.images[0].planes[0].url.endswith("01_POS002_R.TIF")


def test_human_cells(public: Path) -> None:
    planned = plan(public / "cpex_ExampleHuman", pattern="{plate}_{well}f{fov}d{channel}")
    (image,) = planned.images
    assert image.record.experiment.plate == "AS_09125_050116030001"
    assert (image.record.experiment.well, image.record.microscopy.fov) == ("D03", "00")
    assert image.record.imaging.panel == ["0", "1", "2"]
    assert image.record.imaging.channel == [1, 2, 3]
    assert_readable(planned)


def test_cell_painting_of_nf1(public: Path) -> None:
    planned = plan(public / "cdf_NF1_cellpainting_Plate2", pattern=r"{well}_01_{*:\d}_{fov}_{channel}_001")
    assert [(i.record.experiment.well, i.record.microscopy.fov) for i in planned.images] == [
        ("B7", "3"), ("D6", "2"), ("D7", "1"), ("F7", "2"), ("H12", "1"),
    ]  # fmt: skip
    assert panels(planned) == {("DAPI", "GFP", "RFP")}
    assert planned.images[0].record.imaging.channel_type == ["nucleus", None, None]
    assert {image.record.geometry.dtype for image in planned.images} == {"uint16"}
    assert not kinds(planned)
    assert_readable(planned)


def test_vitra_images_with_spaces_in_their_names(public: Path) -> None:
    pattern = r"Channel {channel}-{*:\d\d}-{row}-{column}-{fov}"
    planned = plan(public / "cpex_ExampleVitraImages", pattern=pattern)
    assert [image.record.experiment.well for image in planned.images] == ["A01", "A12"]
    assert panels(planned) == {("1", "2")}
    assert not kinds(planned)


def test_image_xpress_with_guids_thumbnails_and_z_steps(public: Path) -> None:
    folder = public / "faim_ImageXpress_ProjectionMix"
    planned = plan(folder, pattern=r"{plate}_{well}_s{fov}_w{channel:\d}{*}", exclude=["**/*_thumb*"])
    assert len(planned.images) == 12
    assert {(i.record.experiment.well, i.record.microscopy.fov) for i in planned.images} == {
        (well, fov) for well in ("E07", "E08") for fov in ("1", "2")
    }
    assert {image.record.experiment.plate for image in planned.images} == {"Projection-Mix"}
    counts = Counter(
        (tuple(image.record.imaging.channel), tuple(image.record.imaging.missing_channel)) for image in planned.images
    )
    assert counts == {((1, 2, 3), (4,)): 4, ((1, 2, 4), (3,)): 4, ((1, 2), (3, 4)): 4}
    assert kinds(planned) == {"missing_channel": 12}
    assert not any("thumb" in str(path) for image in planned.images for path in image.record.storage.path)
    assert_readable(planned)


def test_image_xpress_z_steps_are_slices(public: Path) -> None:
    folder = public / "faim_ImageXpress_ProjectionMix"
    pattern = r"ZStep_{z}/{plate}_{well}_s{fov}_w{channel:\d}{*}"
    planned = plan(folder, pattern=pattern, include=["**/ZStep_*/*.tif"], exclude=["**/*_thumb*"])
    assert Counter(image.record.geometry.z_slice for image in planned.images) == {1: 4, 2: 4}
    assert {image.record.geometry.depth for image in planned.images} == {2}
    assert kinds(planned) == {"missing_channel": 4}  # no w4 in the second step


def test_image_xpress_skipping_what_is_incomplete(public: Path) -> None:
    folder = public / "faim_ImageXpress_ProjectionMix"
    rules = [{"name": "1"}, {"name": "2"}, {"name": "3"}]
    planned = plan(
        folder,
        pattern=r"{plate}_{well}_s{fov}_w{channel:\d}{*}",
        exclude=["**/*_thumb*"],
        channels=rules,
        missing_channel="skip",
    )
    assert [image.record.imaging.channel for image in planned.images] == [[1, 2, 3]] * 4
    assert kinds(planned) == {"missing_channel": 8, "unmatched": 4}


def test_cell_voyager(public: Path) -> None:
    planned = plan(public / "faim_CV8000_minimal", pattern="{plate}_{well}_T{t}F{fov}L01A{*}Z{z}C{channel}")
    assert len(planned.images) == 32
    assert panels(planned) == {("01", "02")}
    first = planned.images[0].record
    assert (first.experiment.well, first.microscopy.fov) == ("D08", "001")
    assert (first.geometry.timepoint, first.geometry.z_slice, first.geometry.depth) == (1, 1, 4)
    assert [image.record.geometry.z_slice for image in planned.images[:5]] == [1, 2, 3, 4, 1]
    assert not kinds(planned)


def test_a_movie_in_folders_per_channel_is_in_order_of_time(public: Path) -> None:
    folder = public / "microfilm_mitosis_series"
    planned = plan(folder, pattern="channel{channel}/C{*}-MAX_mitosis_t{t}")
    assert [image.record.geometry.timepoint for image in planned.images] == list(range(12))
    assert panels(planned) == {("1", "2")}
    assert planned.images[10].record.image_id == "microfilm_mitosis_series/channel*/C*-MAX_mitosis_t10.tif"
    assert planned.images[10].record.storage.path == [
        "channel1/C1-MAX_mitosis_t10.tif",
        "channel2/C2-MAX_mitosis_t10.tif",
    ]
    assert not kinds(planned)
    assert_readable(planned)


def test_stacks_and_movies_of_imagej(public: Path) -> None:
    planned = plan(public / "neubias_xyz_xyt")
    counts = Counter(image.record.storage.path[0] for image in planned.images)
    assert counts["xyt_8bit_polyp.tif"] == 3
    assert counts["xyz_8bit__chromosomes.tif"] == 40
    movie = [image.record for image in planned.images if image.record.storage.path[0] == "xyt_8bit_polyp.tif"]
    assert [record.geometry.timepoint for record in movie] == [0, 1, 2]
    assert {record.geometry.z_slice for record in movie} == {None}
    stack = [image.record for image in planned.images if image.record.storage.path[0] == "xyz_8bit__nucleus.tif"]
    assert [record.geometry.z_slice for record in stack] == list(range(7))
    assert {record.geometry.depth for record in stack} == {7}
    spots = [image for image in planned.images if image.record.storage.path[0] == "xyzc_16bit__spots.tif"]
    assert {image.record.geometry.channels for image in spots} == {2}
    assert [plane.c for plane in spots[0].planes] == [0, 1]
    assert_readable(planned)


def test_pictures_of_many_kinds_without_a_pattern(public: Path) -> None:
    planned = plan(public / "skimage_wheel")
    counts = Counter(image.record.storage.filename[0] for image in planned.images)
    assert counts == {"cell.png": 1, "ihc.png": 1, "microaneurysms.png": 1, "multipage.tif": 2, "multipage_rgb.tif": 2}
    colour = next(image.record for image in planned.images if image.record.storage.filename[0] == "ihc.png")
    assert colour.imaging.channel_type == ["r", "g", "b"]
    assert colour.storage.path == ["ihc.png"] * 3
    pages = [i.record.image_id for i in planned.images if i.record.storage.filename[0] == "multipage.tif"]
    assert pages == ["skimage_wheel/multipage.tif#page=0", "skimage_wheel/multipage.tif#page=1"]
    assert_readable(planned)


def test_an_ome_tiff_in_a_file_per_slice(public: Path) -> None:
    planned = plan(public / "viv_multifile_ometiff", pattern="{image}-Z{z}")
    assert [image.record.geometry.z_slice for image in planned.images] == [1, 2, 3, 4, 5]
    assert {image.record.geometry.depth for image in planned.images} == {5}
    assert not kinds(planned)
    assert_readable(planned)


def test_no_collection_stops_a_plan_and_every_file_is_an_image_a_companion_or_a_finding(public: Path) -> None:
    from chammi75.build.listing import list_files

    for folder in sorted(public.iterdir()):
        if folder.name == "pillow_broken" or not folder.is_dir():
            continue  # hostile files: the readers' own tests open them under a memory limit
        planned = plan(folder)
        taken = {path for image in planned.images for path in image.record.storage.path}
        reported = {finding.path.partition("#")[0] for finding in planned.findings if finding.kind != "note"}
        noted = " ".join(finding.reason for finding in planned.findings if finding.kind == "note")
        for file in list_files(str(folder))[0]:
            assert file.path in taken or file.path in reported or file.path in noted, (folder.name, file.path)
        assert len({image.record.image_id for image in planned.images}) == len(planned.images)
