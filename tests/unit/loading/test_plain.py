"""``to_plain``: ordinary pictures for people who have never heard of this library."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from loading_stores import Known
from PIL import Image

from chammi75 import load_dataset, to_plain
from chammi75.errors import ChammiError

READ_BACK = """
import sys, datasets, numpy as np
ds = datasets.load_dataset("parquet", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
assert "chammi75" not in sys.modules
expected = np.load(sys.argv[3])
for sample in ds:
    planes = np.stack([np.asarray(plane) for plane in sample["planes"]])
    assert (planes == expected[sample["image_id"].replace("/", "|")]).all(), sample["image_id"]
    assert "centroids" in sample["annotation"] if sample["annotation"] else True
print(len(ds), ds.features["planes"])
"""


@pytest.mark.parametrize("streaming", [False, True], ids=["dataset", "stream"])
def test_plain_planes_are_pictures_with_the_same_pixels(known: Known, streaming: bool) -> None:
    plain = to_plain(load_dataset(known.url, streaming=streaming))
    assert "image" not in plain.features
    assert plain.features["planes"] == datasets.List(datasets.Image())
    count = 0
    for sample in plain:
        expected = known.pixels[sample["image_id"]]
        assert np.array_equal(np.stack([np.asarray(plane) for plane in sample["planes"]]), expected)
        cells = known.cells[sample["image_id"]]
        assert (sample["annotation"] is None) == (cells is None)
        if cells is not None:
            for found, cell in zip(sample["annotation"]["centroids"], cells, strict=True):
                assert (found is None) == (cell is None)
                assert cell is None or np.allclose(np.reshape(found, (-1, 2)), cell.centroids)
        count += 1
    assert count == len(known.ids)


@pytest.mark.parametrize(("name", "streaming"), [("store", False), ("store", True), ("published", True)])
def test_parquet_of_plain_samples_is_read_where_chammi75_is_not(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, streaming: bool
) -> None:
    known: Known = request.getfixturevalue(name)
    plain = to_plain(load_dataset(known.url, streaming=streaming))
    plain.to_parquet(str(tmp_path / "plain.parquet"))
    np.savez(tmp_path / "expected.npz", **{name.replace("/", "|"): array for name, array in known.pixels.items()})
    arguments = [str(tmp_path / name) for name in ("plain.parquet", "cache", "expected.npz")]
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(len(known.ids)))


def stored_planes(dataset: Any, name: str = "planes") -> list[bytes]:
    raw = dataset.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return [plane["bytes"] for sample in raw for plane in sample[name]]


def test_the_codec_is_deflate_or_as_stored(store: Known) -> None:
    dataset = load_dataset(store.url)
    stored = [plane for sample in dataset for plane in sample["image"].encoded_planes()]
    assert stored_planes(to_plain(dataset, codec=None)) == stored
    deflated = stored_planes(to_plain(dataset))
    for content, plane in zip(deflated, (plane for array in store.pixels.values() for plane in array), strict=True):
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "TIFF"
            assert picture.tag_v2[259] in (8, 32946)  # type: ignore[attr-defined]
            assert np.array_equal(np.asarray(picture), plane)


def test_published_pngs_stay_the_files_that_they_are(published: Known) -> None:
    dataset = load_dataset(published.url)
    files = [(Path(published.url) / path).read_bytes() for sample in dataset for path in sample["storage"]["path"]]
    assert stored_planes(to_plain(dataset)) == files


def test_a_dataset_without_images_is_refused() -> None:
    with pytest.raises(ChammiError, match="'image'"):
        to_plain(datasets.Dataset.from_dict({"a": [1]}))
