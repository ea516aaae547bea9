from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known
from PIL import Image

from chammi75 import load_dataset
from chammi75.errors import ChammiError
from chammi75.export import export, selections_for
from chammi75.loading.layouts import open_layout
from chammi75.readers.published.csv_rows import PIXEL_COLUMNS, PUBLISHED_COLUMNS, SOURCE_COLUMNS

METADATA = "CHAMMI-75_train_metadata.csv"
INTEGERS = "geometry.dtype <> 'float32'"


def table_of(folder: Path) -> Any:
    import pandas

    return pandas.read_csv(folder / METADATA, dtype=str, keep_default_na=False)


def test_a_copy_of_the_published_layout_comes_back_equal(published: Known, tmp_path: Path) -> None:
    report = export(published.url, "published", tmp_path / "out", workers=2)
    assert report.images == 12
    assert not report.notes
    before, after = open_layout(published.url), open_layout(str(tmp_path / "out"))
    assert [row.as_py() for row in after.samples(np.arange(12))["image_id"]] == list(published.pixels)
    for row in load_dataset(str(tmp_path / "out")):
        assert np.array_equal(np.asarray(row["image"]), published.pixels[row["image_id"]])
        known = published.cells[row["image_id"]]
        assert (known is None) == (row["annotation"] is None)
        for entry, xy in zip(known or (), (row["annotation"] or {"centroids": ()})["centroids"], strict=True):
            assert (entry is None) == (xy is None)
            assert entry is None or np.array_equal(entry.centroids, xy)
    groups = ["image_id", "experiment", "biology", "imaging", "microscopy", "geometry", "storage", "provenance"]
    rows = np.arange(12)
    assert after.samples(rows).select(groups).to_pylist() == before.samples(rows).select(groups).to_pylist()


def test_the_table_has_exactly_the_published_columns_and_words(published: Known, tmp_path: Path) -> None:
    export(published.url, "published", tmp_path / "out")
    table = table_of(tmp_path / "out")
    assert tuple(table.columns) == PUBLISHED_COLUMNS
    first = table.iloc[1]
    assert first["imaging.channel"] == "1"
    assert first["storage.path"] == "CHAMMI-75_train/study0001/img001-ch0.png"
    assert first["biology.cell_line"] == "unknown"
    assert first["experiment.control"] == "no"
    assert first["experiment.plate"] == "01"


def test_pandas_and_pillow_read_what_a_store_holds(store: Known, tmp_path: Path) -> None:
    export(selections_for(store.url, where=INTEGERS), "published", tmp_path / "out")
    table = table_of(tmp_path / "out")
    assert len(table) == sum(len(store.pixels[name]) for name in store.ids if store.pixels[name].dtype.kind == "u")
    for _, row in table.iterrows():
        pixels = store.pixels[row["imaging.multi_channel_id"]][int(row["imaging.channel"]) - 1]
        plane = np.asarray(Image.open(tmp_path / "out" / row["storage.path"]))
        assert plane.dtype == pixels.dtype
        assert np.array_equal(plane, pixels)


def test_16_bits_come_back_as_16_bits(store: Known, tmp_path: Path) -> None:
    export(selections_for(store.url, where=INTEGERS), "published", tmp_path / "out")
    table = table_of(tmp_path / "out")
    assert tuple(table.columns) == (*PUBLISHED_COLUMNS, *PIXEL_COLUMNS, *SOURCE_COLUMNS)
    before = {tuple(row["storage"]["filename"]): row for row in load_dataset(store.url, where=INTEGERS)}
    after = load_dataset(str(tmp_path / "out"))
    assert len(after) == 20
    for row in after:
        expected = before[tuple(row["storage"]["filename"])]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(expected["image"]))
        for name in ("dtype", "significant_bits", "width", "height", "channels"):
            assert row["geometry"][name] == expected["geometry"][name]
        assert row["imaging"]["panel"] == expected["imaging"]["panel"]
        assert row["experiment"] == expected["experiment"]


def test_licences_come_back_and_what_has_no_column_is_named(store: Known, tmp_path: Path) -> None:
    report = export(selections_for(store.url, study="plate2"), "published", tmp_path / "out")
    before = load_dataset(store.url, study="plate2")
    after = load_dataset(str(tmp_path / "out"))
    for name in ("platform", "title", "license", "doi"):
        assert [row["provenance"][name] for row in after] == [row["provenance"][name] for row in before]
    assert {row["provenance"]["license"] for row in after} == {"CC0-1.0"}
    (note,) = [note for note in report.notes if "has no column" in note]
    assert "geometry.pixel_size_um" in note
    assert "license" not in note


def test_guidance_files_hold_whole_pixels_and_the_report_says_so(store: Known, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    report = export(selections_for(store.url, study="plate2"), "published", tmp_path / "out")
    assert any("rounded to whole pixels" in note for note in report.notes)
    files = list((tmp_path / "out" / "CHAMMI-75_guidance" / "plate2").iterdir())
    assert files
    for file in files:
        arrays = load_file(file)
        assert arrays["data"].dtype == np.int64
        assert arrays["data"].shape == (len(arrays["sizes"]), 2)


def test_floats_are_refused_before_anything_is_written(store: Known, tmp_path: Path) -> None:
    with pytest.raises(ChammiError, match=r"10 images are of float32.*ome-zarr"):
        export(store.url, "published", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_channels_stay_missing(tmp_path: Path, published: Known) -> None:
    import shutil

    shutil.copytree(published.url, tmp_path / "gap")
    (tmp_path / "gap" / "CHAMMI-75_train" / "study0001" / "img001-ch1.png").unlink()
    export(str(tmp_path / "gap"), "published", tmp_path / "out")
    assert not (tmp_path / "out" / "CHAMMI-75_train" / "study0001" / "img001-ch1.png").exists()
    (row,) = load_dataset(str(tmp_path / "out"), where="experiment.well = 'B01'")
    assert row["imaging"]["channel"] == [1, 3]
    assert row["imaging"]["missing_channel"] == [2]


def test_the_shared_copy_of_the_published_layout_comes_back_equal(shared_data: Path, tmp_path: Path) -> None:
    source = str(shared_data / "published")
    where = "geometry.width * geometry.height < 1500000"
    export(selections_for(source, where=where), "published", tmp_path / "out", workers=2)
    before, after = load_dataset(source, where=where), load_dataset(str(tmp_path / "out"))
    expected = {row["image_id"]: row for row in before}
    assert sorted(after["image_id"][:]) == sorted(expected)
    for row in after:
        one = expected[row["image_id"]]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(one["image"]))
        for group in ("experiment", "biology", "imaging", "microscopy", "geometry", "storage"):
            assert row[group] == one[group]
