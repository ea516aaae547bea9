"""Real collections, built with a recipe each and compared pixel for pixel with what tifffile or Pillow read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from chammi75.build.execute import BuildReport, build_store
from chammi75.build.plan import plan_folder
from chammi75.schemas.recipe import BuildRecipe
from chammi75.store import open_store, verify

Planes = dict[str, list[np.ndarray]]
Oracle = Callable[[Path], Planes]


def build(folder: Path, out: Path, **keys: Any) -> BuildReport:
    recipe = BuildRecipe.model_validate({"source": folder.name[:60], **keys})
    return build_store([plan_folder(str(folder), recipe)], str(out))


def stored(out: Path) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Pixels (C, H, W) and records by image id, without the source's id."""
    store = open_store(out)
    rows = store.records().to_pylist()
    names = [row["image_id"].split("/", 1)[1] for row in rows]
    return {name: store.read_image(k) for k, name in enumerate(names)}, dict(zip(names, rows, strict=True))


def assert_same(out: Path, expected: Planes) -> dict[str, dict[str, Any]]:
    """The store holds exactly these images, bit for bit; gives their records."""
    found, records = stored(out)
    assert sorted(found) == sorted(expected)
    for name, planes in expected.items():
        assert found[name].shape == (len(planes), *planes[0].shape), name
        for plane, whole in zip(planes, found[name], strict=True):
            np.testing.assert_array_equal(whole, plane, name)
        geometry = records[name]["geometry"]
        assert (geometry["channels"], geometry["height"], geometry["width"]) == found[name].shape
        assert geometry["dtype"] == found[name].dtype.name
    assert verify(str(out)).is_sound
    return records


def tiff(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def per_channel(folder: Path, groups: dict[str, list[str]]) -> Planes:
    return {image: [tiff(folder / name) for name in names] for image, names in groups.items()}


def fly(folder: Path) -> Planes:
    """Palette TIFFs: the values are the camera's, the palette is decoration."""
    return per_channel(folder, {f"01_POS{fov}_*.TIF": [f"01_POS{fov}_{c}.TIF" for c in "DFR"]
                                for fov in ("002", "076", "218")})  # fmt: skip


def human(folder: Path) -> Planes:
    name = "AS_09125_050116030001_D03f00d"
    return per_channel(folder, {f"{name}*.tif": [f"{name}{k}.tif" for k in range(3)]})


def vitra(folder: Path) -> Planes:
    return per_channel(
        folder,
        {
            f"Channel *-*-{fov[3:]}.tif": [f"Channel {c}-{fov}.tif" for c in (1, 2)]
            for fov in ("01-A-01-00", "12-A-12-00")
        },
    )


def jump(folder: Path) -> Planes:
    return per_channel(
        folder, {"r01c01f01p*-ch*sk1fk1fl1.tiff": [f"r01c01f01p01-ch{c}sk1fk1fl1.tiff" for c in (2, 3, 5)]}
    )


def neurofibromatosis(folder: Path) -> Planes:
    wells = (("B7", 3), ("D6", 2), ("D7", 1), ("F7", 2), ("H12", 1))
    return {
        f"{well}_01_*_{fov}_*_001.tif": [
            tiff(folder / f"{well}_01_{k}_{fov}_{c}_001.tif") for k, c in ((1, "DAPI"), (2, "GFP"), (3, "RFP"))
        ]
        for well, fov in wells
    }


def hyperstack(folder: Path) -> Planes:
    return {"IXMtest_A02_s9.tif": list(tiff(folder / "IXMtest_A02_s9.tif"))}


def stacks(folder: Path) -> Planes:
    expected: Planes = {}
    for path in sorted(folder.glob("*.tif")):
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            array, axis = series.asarray(), series.axes[0].lower()
        for k, part in enumerate(array):
            expected[f"{path.name}#{axis}={k}"] = list(part) if part.ndim == 3 else [part]
    return expected


def multipage(folder: Path) -> Planes:
    movies = [tiff(folder / f"C{c}-MAX_mitosis.tif") for c in (1, 2)]
    return {f"C*-MAX_mitosis.tif#t={t}": [movie[t] for movie in movies] for t in range(51)}


def worms(folder: Path) -> Planes:
    return {name: colours(folder / name) for name in ("WT_orig.png", "fat_orig.png")}


def colours(path: Path) -> list[np.ndarray]:
    with Image.open(path) as picture:
        array = np.asarray(picture)
    return [array] if array.ndim == 2 else [array[..., k] for k in range(min(array.shape[2], 3))]


def wheel(folder: Path) -> Planes:
    expected = {name: colours(folder / name) for name in ("cell.png", "ihc.png", "microaneurysms.png")}
    pages = tiff(folder / "multipage.tif")
    return expected | {f"multipage.tif#page={k}": [page] for k, page in enumerate(pages)}


def movie(folder: Path) -> Planes:
    return {path.name: [tiff(path)] for path in folder.glob("*.tif")}


def edge_cases(folder: Path) -> Planes:
    expected = {}
    for path in folder.glob("*.tif"):
        array = tiff(path)
        expected[path.name] = [array.astype(np.uint8) if array.dtype == bool else array]
    return expected


def slices(folder: Path) -> Planes:
    with tifffile.TiffFile(folder / "multifile-Z1.ome.tiff") as file:
        pixels = file.pages[0].asarray()  # each file by itself: its page is its slice
    assert pixels.shape == (24, 18)
    pages = [tifffile.TiffFile(folder / f"multifile-Z{z}.ome.tiff") for z in range(1, 6)]
    try:
        return {f"multifile-Z{z}.ome.tiff": [file.pages[0].asarray()] for z, file in enumerate(pages, 1)}
    finally:
        for file in pages:
            file.close()


def signed(folder: Path) -> Planes:
    """int8 without negative values is stored as uint8, with them as float32; (C, Z, Y, X) becomes an image per z."""
    array = tiff(folder / "multi-channel-z-series.ome.tif")
    assert array.dtype == np.int8 and array.shape[:2] == (3, 5)
    return {f"multi-channel-z-series.ome.tif#z={z}": list(array[:, z]) for z in range(5)}


COLLECTIONS: dict[str, tuple[dict[str, Any], Oracle]] = {
    "cpex_ExampleFly": ({"pattern": "{plate}_POS{fov}_{channel}"}, fly),
    "cpex_ExampleHuman": ({"pattern": "{plate}_{well}f{fov}d{channel}"}, human),
    "cpex_ExampleVitraImages": ({"pattern": r"Channel {channel}-{*:\d\d}-{row}-{column}-{fov}"}, vitra),
    "cdf_JUMP_BR00117006": ({"pattern": r"r{row}c{column}f{fov}p{*:\d\d}-ch{channel}sk1fk1fl1"}, jump),
    "cdf_NF1_cellpainting_Plate2": ({"pattern": r"{well}_01_{*:\d}_{fov}_{channel}_001"}, neurofibromatosis),
    "bia_BBBC022": ({}, hyperstack),
    "neubias_xyz_xyt": ({}, stacks),
    "microfilm_mitosis_multipage": ({"pattern": "C{channel}-MAX_mitosis", "axes": "TYX"}, multipage),
    "cpex_ExampleUntangleWormsBrightField": ({}, worms),
    "skimage_wheel": ({"exclude": ["multipage_rgb.tif"]}, wheel),
    "neubias_mitocheck_movie": ({}, movie),
    "neubias_edge_cases": ({}, edge_cases),
    "viv_multifile_ometiff": ({"pattern": "multifile-Z{z}"}, slices),
    "libvips_ometiff_svs": ({"include": ["multi-channel-z-series.ome.tif"]}, signed),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_real_collection_is_built_pixel_for_pixel(shared_data: Path, tmp_path: Path, name: str) -> None:
    keys, oracle = COLLECTIONS[name]
    folder = shared_data / "public" / name
    report = build(folder, tmp_path / "store", **keys)
    assert report.failed_images == 0
    records = assert_same(tmp_path / "store", oracle(folder))
    for record in records.values():
        assert len(record["provenance"]["checksum"]) == record["geometry"]["channels"]


def test_what_is_stored_as_another_type_says_so(shared_data: Path, tmp_path: Path) -> None:
    build(shared_data / "public" / "libvips_ometiff_svs", tmp_path / "store", include=["multi-channel*"])
    for record in stored(tmp_path / "store")[1].values():
        steps = record["provenance"]["steps"]
        assert any(step.startswith("int8 stored as ") and step.endswith(", values unchanged") for step in steps), steps


def test_pictures_with_an_alpha_channel_keep_their_colours(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "public" / "bia_IDR_png"
    build(folder, tmp_path / "store")
    found, records = stored(tmp_path / "store")
    assert len(found) == 2
    for name, planes in found.items():
        for plane, expected in zip(planes, colours(folder / name), strict=True):
            np.testing.assert_array_equal(plane, expected)
        assert records[name]["imaging"]["channel_type"] == ["r", "g", "b"]
        assert any("alpha" in step for step in records[name]["provenance"]["steps"])


@pytest.mark.parametrize("name", ["cpex_ExampleHuman", "bia_BBBC022"])
def test_the_command_builds_a_real_collection(shared_data: Path, tmp_path: Path, name: str) -> None:
    keys, oracle = COLLECTIONS[name]
    folder = shared_data / "public" / name
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"source": "real", **keys}), encoding="utf-8")
    command = [sys.executable, "-m", "chammi75.cli", "build", str(folder), "--recipe", str(recipe)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "store"), "--workers", "1", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = oracle(folder)
    assert json.loads(done.stdout)["images"] == len(expected)
    assert_same(tmp_path / "store", expected)
    again = subprocess.run([*command, "--out", str(tmp_path / "store")], capture_output=True, text=True)
    assert again.returncode == 1
    assert "finished store" in again.stderr and "Traceback" not in again.stderr
