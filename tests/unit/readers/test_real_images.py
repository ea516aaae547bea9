"""Every real TIFF, PNG and JPEG beside the checkout, against the formats' libraries; hostile ones under limits."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chammi75.errors import ReadError
from chammi75.readers import open_image, probe
from chammi75.readers.image_file import ImageReader, Series

_SUFFIXES = (".tif", ".tiff", ".stk", ".png", ".svs", ".jpg", ".jpeg")


@pytest.fixture(scope="session")
def manifest(shared_data: Path) -> list[dict[str, str]]:
    with open(shared_data / "MANIFEST.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if row["path"].lower().endswith(_SUFFIXES)]


def _planes(reader: ImageReader, series: Series) -> np.ndarray:
    """All planes of a series, shape (page, T, Z, C, Y, X)."""
    sizes = series.sizes
    return np.array(
        [
            [
                [
                    [reader.read_plane(series.index, page=page, t=t, z=z, c=c) for c in range(sizes["C"])]
                    for z in range(sizes["Z"])
                ]
                for t in range(sizes["T"])
            ]
            for page in range(series.pages)
        ]
    )


def _reference(path: Path, series: Series, alpha: bool) -> np.ndarray:
    """The same planes from tifffile's own arrays, libpng's or libjpeg's."""
    if path.suffix.lower() == ".png":
        import imagecodecs

        pixels = imagecodecs.png_decode(path.read_bytes())
        axes = "YXS"[: pixels.ndim]
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        from PIL import Image

        pixels = np.asarray(Image.open(path))
        axes = "YXS"[: pixels.ndim]
    else:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            found = tiff.series[series.index]
            pixels, axes = found.asarray(), found.axes
    if alpha:
        pixels = np.take(pixels, range(pixels.shape[axes.index("S")] - 1), axis=axes.index("S"))
    axes = axes.replace("Q", "I")
    axes = axes.replace("S", "C") if "C" not in axes else axes
    order = [axis for axis in "ITZCYX" if axis in axes]
    pixels = pixels.transpose([axes.index(axis) for axis in order])
    return pixels.reshape([pixels.shape[order.index(axis)] if axis in order else 1 for axis in "ITZCYX"])


def test_every_real_image_reads_as_its_manifest_and_the_format_library_say(
    shared_data: Path, manifest: list[dict[str, str]]
) -> None:
    checked = 0
    for row in manifest:
        if row["status"] != "ok":
            continue
        path = shared_data / row["path"]
        facts = probe(path)
        first = facts.series[0]
        shape, axes = row["shape(axes)"].rstrip(")").split("(")
        lengths = dict(zip(axes, map(int, shape.split("x")), strict=True))
        assert (first.height, first.width) == (lengths["Y"], lengths["X"]), row["path"]
        assert first.dtype == row["dtype"], row["path"]
        alpha = "alpha dropped" in first.steps
        expected = math.prod(length for axis, length in lengths.items() if axis not in "YX")
        kept = math.prod(first.sizes.values()) * first.pages
        assert kept == (expected // lengths["S"] * (lengths["S"] - 1) if alpha else expected), row["path"]
        assert len(first.channel_names) == first.sizes["C"]
        with open_image(path) as reader:
            assert reader.file == facts
            for series in facts.series:
                ours, theirs = _planes(reader, series), _reference(path, series, alpha)
                assert ours.dtype == (np.uint8 if series.dtype == "bool" else np.dtype(series.dtype))
                np.testing.assert_array_equal(ours, theirs, err_msg=row["path"])
        checked += 1
    assert checked > 300


def test_every_published_png_decodes_like_opencv_and_pillow(shared_data: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    from PIL import Image

    paths = sorted((shared_data / "published").rglob("*.png"))
    for path in paths:
        with open_image(path) as reader:
            plane = reader.read_plane()
        np.testing.assert_array_equal(plane, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        np.testing.assert_array_equal(plane, np.asarray(Image.open(path)))
    assert len(paths) >= 40


_READ_UNDER_LIMITS = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
from chammi75.errors import ReadError
from chammi75.readers import open_image
for path in sys.argv[1:]:
    try:
        with open_image(path) as reader:
            for series in reader.file.series:
                for page in range(series.pages):
                    for c in range(series.sizes["C"]):
                        reader.read_plane(series.index, page=page, c=c)
        print(json.dumps([path, None]))
    except ReadError as error:
        print(json.dumps([path, str(error)]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is Unix's")
def test_hostile_files_are_refused_with_path_and_reason_within_time_and_memory(
    shared_data: Path, manifest: list[dict[str, str]]
) -> None:
    rows = [row for row in manifest if "pillow_" in row["path"]]
    paths = {str(shared_data / row["path"]): row["status"] for row in rows}
    done = subprocess.run(
        [sys.executable, "-c", _READ_UNDER_LIMITS, *paths], capture_output=True, text=True, timeout=120, check=True
    )
    outcome = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(outcome) == set(paths)
    assert done.stderr == "", "what tifffile warns of must not be printed"
    for path, error in outcome.items():
        if paths[path] == "broken-on-purpose":
            assert error is not None and error.startswith(path), path
        else:
            assert error is None, error


def test_what_the_files_state_of_pixel_size_and_magnification_is_read(shared_data: Path) -> None:
    def first(pattern: str) -> Path:
        return min((shared_data / "public").glob(pattern))

    stk = probe(first("cpex_ExampleUntangleWorms/*.tif"))
    assert (stk.format, stk.series[0].pixel_size_um) == ("stk", 6.25)
    metaseries = probe(first("faim_ImageXpress_ProjectionMix/**/*_s1_w1[0-9A-F]*.tif"))
    assert (metaseries.format, metaseries.series[0].pixel_size_um) == ("metaseries", 1.3668)
    slide = probe(first("libvips_ometiff_svs/*.svs"))
    assert (slide.format, slide.series[0].magnification, slide.series[0].pixel_size_um) == ("svs", 20.0, 0.499)
    assert len(slide.series) == 1, "a slide's thumbnail, label and macro are no images"
    imagej = probe(first("neubias_xyz_xyt/xyzc_16bit__spots.tif"))
    assert imagej.series[0].pixel_size_um == pytest.approx(1000000 / 10623103)


def test_unnamed_pages_can_be_named_by_the_caller(shared_data: Path) -> None:
    path = shared_data / "public/microfilm_mitosis_multipage/C1-MAX_mitosis.tif"
    unnamed = probe(path).series[0]
    assert (unnamed.pages, unnamed.pages_unnamed, unnamed.sizes["T"]) == (51, True, 1)
    with open_image(path, axes="TYX") as movie, open_image(path) as pages:
        series = movie.file.series[0]
        assert (series.pages, series.pages_unnamed, series.sizes["T"], series.axes) == (1, False, 51, "TYX")
        np.testing.assert_array_equal(movie.read_plane(t=17), pages.read_plane(page=17))
    with pytest.raises(ReadError, match="names 2 axes of pages, the file has 1"):
        probe(path, axes="TZYX")


def test_a_part_of_a_multi_file_ome_tiff_reads_as_a_plain_page_and_says_where_the_rest_is(shared_data: Path) -> None:
    part = probe(shared_data / "public/viv_multifile_ometiff/multifile-Z1.ome.tiff")
    assert any("multifile.companion.ome" in note for note in part.series[0].notes)
