"""What the simulator writes: the files, their metadata, their truth, and that it is the same each time."""

from __future__ import annotations

import csv
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from safetensors.numpy import load_file

from chammi75.build.plan import plan_folder
from chammi75.build.recipes import load_recipe
from chammi75.errors import ChammiError, ReadError
from chammi75.mini.simulate import STUDIES, count_images, write_sources
from chammi75.mini.studies import (
    brightfield,
    histology,
    migration,
    organelles,
    plate,
    screen,
    timelapse,
    yeast,
)
from chammi75.mini.truth import ImageTruth, StudyTruth, read_truth
from chammi75.readers.grouping import FilePattern
from chammi75.schemas.recipe import BuildRecipe

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


#: Sizes at which each study still has every kind of duplicate and defect that it can have.
SIZES = {"mini0001": 0.42, "mini0004": 0.3, "mini0007": 1.0, "mini0008": 1.0}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources that are small, and still have every kind of duplicate and defect."""
    folder = tmp_path_factory.mktemp("sources")
    for name, study in STUDIES.items():
        study.write(folder, size=SIZES.get(name, 0.5), seed=75)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def planes_of(folder: Path, image: ImageTruth) -> np.ndarray:
    """The image's planes as (C, H, W)."""
    if image.channel_paths:
        files = [tifffile.imread(folder / path) for path in image.channel_paths]
        return np.stack([pages if image.z_slice is None else pages[image.z_slice] for pages in files])
    path = folder / image.path
    pixels = np.asarray(Image.open(path)) if path.suffix == ".png" else tifffile.imread(path)
    if pixels.ndim == 5:
        return pixels[image.timepoint, image.z_slice]
    if pixels.shape[-1] == 3:
        return np.moveaxis(pixels, -1, 0)
    return pixels if pixels.ndim == 3 else pixels[None]


def guidance_of(folder: Path, image: ImageTruth, channel: int) -> dict[str, np.ndarray]:
    """The guidance file that the recipe names for a channel."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    match = FilePattern.parse(recipe["pattern"]).match(image.path) if "pattern" in recipe else None
    fields = dict(match.fields) if match is not None else {}
    fields |= {"stem": re.sub(r"(\.ome)?\.[^.]+$", "", Path(image.path).name), "index": str(channel)}
    fields |= {key: str(n) for key, n in (("z", image.z_slice), ("t", image.timepoint)) if n is not None}
    return load_file(folder / recipe["guidance"].format(**fields))


def test_one_process_or_two_give_the_same_bytes_and_a_larger_size_keeps_the_first_images(tmp_path: Path) -> None:
    write_sources(tmp_path / "a", size=0.1)
    write_sources(tmp_path / "b", size=0.1, workers=2)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    write_sources(tmp_path / "c", size=0.18)
    larger = digests(tmp_path / "c")
    kept = {path: digest for path, digest in first.items() if "/images/" in path or "/guidance/" in path}
    assert kept.items() <= larger.items()
    assert len(larger) > len(first)


def test_another_seed_gives_other_pixels(tmp_path: Path, sources: Path) -> None:
    write_sources(tmp_path, size=0.05, seed=76)
    path = "mini0001/images/CP7501/CP7501_B02_s1.ome.tif"
    assert (tmp_path / path).read_bytes() != (sources / path).read_bytes()


def test_the_recipes_are_valid_and_named_for_their_studies(sources: Path) -> None:
    for study in STUDIES:
        recipe = BuildRecipe.model_validate(
            yaml.safe_load((sources / study / "recipe.yaml").read_text(encoding="utf-8"))
        )
        assert recipe.source == study
        files = {path for glob in recipe.include for path in (sources / study).glob(glob)}
        files -= {path for glob in recipe.exclude for path in (sources / study).glob(glob)}
        truth = read_truth(sources / study)
        known = {path for image in truth.images for path in (image.channel_paths or (image.path,))}
        assert files == {sources / study / path for path in known}


@pytest.mark.parametrize("study", sorted(STUDIES))
def test_the_recipes_plan_every_image_of_the_truth_and_no_other(sources: Path, study: str) -> None:
    recipe, folder, _ = load_recipe(sources / study / "recipe.yaml")
    plan = plan_folder(str(folder), recipe, recipe_folder=str(folder))
    assert [finding for finding in plan.findings if "left out by include" not in finding.reason] == []
    planned = {
        (tuple(image.record.storage.path), image.record.geometry.z_slice, image.record.geometry.timepoint)
        for image in plan.images
    }
    images = read_truth(sources / study).images
    channels = len(recipe.channels or ())
    expected = {(i.channel_paths or (i.path,) * channels, i.z_slice, i.timepoint) for i in images}
    assert planned == expected
    assert len(plan.images) == len(images)
    for image in plan.images:
        assert None not in (image.guidance or (None,))
        assert None not in image.record.imaging.channel_type
        assert image.record.biology.organism_id is not None
        assert image.record.geometry.pixel_size_um is not None


def test_licences_differ_and_each_recipe_says_who_gives_it(sources: Path) -> None:
    licenses = set()
    for study in STUDIES:
        text = (sources / study / "recipe.yaml").read_text(encoding="utf-8")
        license = yaml.safe_load(text)["license"]
        assert text.splitlines()[0].endswith(f"its authors give these images under {license}.")
        licenses.add(license)
    assert licenses == {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0"}


def test_the_patterns_read_plate_well_and_field(sources: Path) -> None:
    read = {}
    for study in ("mini0001", "mini0003", "mini0004", "mini0008"):
        recipe = yaml.safe_load((sources / study / "recipe.yaml").read_text(encoding="utf-8"))
        pattern = FilePattern.parse(recipe["pattern"])
        matches = [pattern.match(image.path) for image in read_truth(sources / study).images]
        assert None not in matches
        read[study] = [match.fields for match in matches if match is not None]
    assert read["mini0001"][0] == {"plate": "CP7501", "well": "B02", "fov": "1"}
    assert read["mini0003"][0] == {"plate": "C2C12-growth", "well": "A1", "fov": "1", "image": "00d12h00m"}
    assert read["mini0004"][0] == {"plate": "MCF7-7501", "well": "B02", "fov": "1", "channel": "1"}
    assert read["mini0008"][0]["well"] == "A01"


def test_ome_tiff_states_axes_channels_pixel_size_and_bits(sources: Path) -> None:
    path = sources / "mini0001/images/CP7501/CP7501_B02_s1.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        assert file.series[0].shape == (5, 512, 512)
        assert file.series[0].dtype == np.uint16
        assert "DateTime" not in file.pages[0].tags
        pixels = ElementTree.fromstring(file.ome_metadata).find(f"{OME}Image/{OME}Pixels")
    assert pixels is not None
    assert float(pixels.attrib["PhysicalSizeX"]) == 0.325
    assert pixels.attrib["SignificantBits"] == "12"
    names = [channel.attrib["Name"] for channel in pixels.iter(f"{OME}Channel")]
    assert names == ["Hoechst 33342", "Concanavalin A", "SYTO 14", "Phalloidin + WGA", "MitoTracker"]


def test_hyperstack_states_axes_and_calibration(sources: Path) -> None:
    path = sources / f"mini0002/images/{timelapse.movie_name(0)}.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert file.series[0].axes == "TZCYX"
        assert file.series[0].shape == (4, 3, 3, 256, 256)
        assert file.series[0].dtype == np.uint8
        metadata = file.imagej_metadata
        pixels, length = file.pages[0].tags["XResolution"].value
    assert metadata["unit"] == "um"
    assert metadata["spacing"] == 2.5
    assert metadata["finterval"] == 90.0
    assert metadata["Labels"][1] == "c:2/3 z:1/3 t:1/4 - Spider-GFP"
    assert length / pixels == pytest.approx(0.3)


def test_bright_field_is_8_bit_grey_png(sources: Path) -> None:
    truth = read_truth(sources / "mini0003")
    path = sources / "mini0003" / truth.images[0].path
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (640, 512))


@pytest.mark.parametrize("study", sorted(STUDIES))
def test_guidance_equals_truth(sources: Path, study: str) -> None:
    truth = read_truth(sources / study)
    for image in truth.images:
        for channel in range(len(planes_of(sources / study, image))):
            guidance = guidance_of(sources / study, image, channel)
            assert guidance["data"].dtype == guidance["sizes"].dtype == np.int64
            assert guidance["data"].shape == (len(image.cells), 2)
            assert guidance["sizes"].tolist() == [cell.area_px for cell in image.cells]
            assert np.all(guidance["data"] >= 0)
            assert np.all(guidance["data"] < (image.width, image.height))
            np.testing.assert_allclose(
                guidance["data"], [(c.x, c.y) for c in image.cells] or np.zeros((0, 2)), atol=0.51
            )


def test_plate_map_names_every_well_once(sources: Path) -> None:
    with open(sources / "mini0001/platemap.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wells = {(row["plate"], row["well"]) for row in rows}
    assert len(wells) == len(rows)
    images = read_truth(sources / "mini0001").images
    assert wells == {tuple(Path(image.path).name.split("_")[:2]) for image in images}
    assert {row["reagent"] for row in rows if row["control"] == "negative"} == {"DMSO"}


def test_known_duplicates_and_defects_are_what_truth_says(sources: Path) -> None:
    folder = sources / "mini0001"
    truth = read_truth(folder)
    exact = next(image for image in truth.images if image.duplicate == "exact")
    np.testing.assert_array_equal(planes_of(folder, exact), planes_of(folder, truth.at(exact.duplicate_of or "")))

    near = next(image for image in truth.images if image.duplicate == "near")
    original = truth.at(near.duplicate_of or "")
    copy, first = planes_of(folder, near)[0].astype(float), planes_of(folder, original)[0].astype(float)
    assert not np.array_equal(copy, first)
    # 5 rows and 9 columns apart, the same cells lie over each other
    moved = np.corrcoef(copy[:-5, 9:].ravel(), first[5:, :-9].ravel())[0, 1]
    assert moved > 0.97
    assert moved > np.corrcoef(copy.ravel(), first.ravel())[0, 1] + 0.05

    defects = {defect: image for image in truth.images for defect in image.defects}
    assert set(defects) == {"blurred", "saturated", "empty"}
    sound = planes_of(folder, truth.images[0])
    assert detail(planes_of(folder, defects["blurred"])) < 0.2 * detail(sound)
    assert (planes_of(folder, defects["saturated"]) == 4095).mean() > 0.05
    assert defects["empty"].cells == ()
    assert planes_of(folder, defects["empty"]).std() < 0.1 * sound.std()


def detail(planes: np.ndarray) -> float:
    """Share of the variance of the ER channel that lies between 4 and 12 pixels."""
    power = np.abs(np.fft.rfft2(planes[1] - planes[1].mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :])
    return float(power[(frequency > 1 / 12) & (frequency < 1 / 4)].sum() / power.sum())


def test_duplicates_of_every_study_are_what_truth_says(sources: Path) -> None:
    kinds = set()
    for study in STUDIES:
        truth = read_truth(sources / study)
        for image in truth.images:
            if image.duplicate is None:
                continue
            original = truth.at(image.duplicate_of or "", z_slice=image.z_slice, timepoint=image.timepoint)
            copy, first = planes_of(sources / study, image), planes_of(sources / study, original)
            assert np.array_equal(copy, first) == (image.duplicate == "exact")
            assert image.group == original.group
            if image.duplicate == "exact":
                same_bytes = (sources / study / image.path).read_bytes() == (
                    sources / study / original.path
                ).read_bytes()
                kinds.add(f"exact, {'same bytes' if same_bytes else 'another file'}")
            else:
                kinds.add("near")
    assert kinds == {"exact, same bytes", "exact, another file", "near"}


def test_every_kind_of_defect_is_there(sources: Path) -> None:
    defects = {defect for study in STUDIES for i in read_truth(sources / study).images for defect in i.defects}
    assert defects == {"blurred", "saturated", "empty", "debris", "swapped channels"}


def test_movies_have_divisions_whose_daughters_name_their_mother() -> None:
    _, truth = timelapse.simulate(0, 75)
    by_frame = [{cell.track: cell for plane in frame for cell in plane} for frame in truth]
    daughters = [cell for cell in by_frame[-1].values() if cell.parent is not None]
    assert daughters
    earlier = {
        track for frame in by_frame[:-1] for track, cell in frame.items() if cell.phase in ("anaphase", "telophase")
    }
    assert earlier & {cell.parent for cell in daughters}
    # most cells are followed from frame to frame, and move
    shared = by_frame[0].keys() & by_frame[-1].keys()
    assert len(shared) > 0.5 * len(by_frame[0])
    assert all(
        np.hypot(by_frame[0][t].x - by_frame[-1][t].x, by_frame[0][t].y - by_frame[-1][t].y) < 30 for t in shared
    )


def test_size_one_has_about_two_hundred_images_of_eight_studies() -> None:
    assert 180 <= count_images() <= 230
    assert len(STUDIES) == 8
    assert {field.reagent for field in plate.plan(1.0)} == {condition[0] for condition in plate.CONDITIONS}


def test_images_are_counted_without_being_simulated(sources: Path) -> None:
    for name, study in STUDIES.items():
        assert study.count_images(SIZES.get(name, 0.5)) == len(read_truth(sources / name).images)


def test_any_size_scales_the_same_simulation() -> None:
    assert count_images(50) == pytest.approx(50 * count_images(), rel=0.01)
    for module in (plate, timelapse, brightfield, screen, organelles, migration, histology, yeast):
        small, large = module.plan(0.3), module.plan(30)
        assert large[: len(small)] == small
        assert len(set(large)) == len(large)


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mini0001").mkdir()
    (tmp_path / "mini0001" / "mine.txt").write_text("keep")
    with pytest.raises(ChammiError, match="already holds files"):
        write_sources(tmp_path, size=0.05)
    assert [path.name for path in tmp_path.rglob("*")] == ["mini0001", "mine.txt"]


@pytest.mark.parametrize("arguments", [{"size": 0.0}, {"size": -1.0}, {"size": float("nan")}, {"seed": -1}])
def test_sizes_and_seeds_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(ChammiError, match="must"):
        write_sources(tmp_path, **arguments)


def test_truth_that_is_missing_or_not_ours_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_truth(tmp_path)
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(ReadError, match="not the truth"):
        read_truth(tmp_path)


def test_truth_finds_an_image_by_place() -> None:
    image = ImageTruth("images/a.tif", 8, 8, "untreated", (), z_slice=1, timepoint=2)
    truth = StudyTruth("s", 0, 1.0, (image,))
    assert truth.at("images/a.tif", z_slice=1, timepoint=2) is image
    with pytest.raises(KeyError, match="z=0"):
        truth.at("images/a.tif", z_slice=0, timepoint=2)
