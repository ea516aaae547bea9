"""The published layout becomes a store: pixels, cells, and what is not known."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from chammi75.store import open_store, verify

TABLE = "CHAMMI-75_train_metadata.csv"


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Path:
    return shared_data / "published"


@pytest.fixture(scope="module")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The store, and what the command said."""
    out = tmp_path_factory.mktemp("convert") / "store"
    command = [sys.executable, "-m", "chammi75.cli", "convert", str(published), "--out", str(out), "--json"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture(scope="module")
def rows(published: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of the published table by image, in the order of their channels."""
    images: dict[str, list[dict[str, str]]] = defaultdict(list)
    with open(published / TABLE, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if (published / row["storage.path"]).is_file() and row["storage.path"] not in ("", "unknown"):
                images[row["imaging.multi_channel_id"]].append(row)
    return {image: sorted(group, key=lambda row: int(row["imaging.channel"])) for image, group in images.items()}


def test_every_image_whose_files_are_stated_is_there_and_no_other(
    converted: tuple[Path, dict[str, Any]], rows: dict[str, list[dict[str, str]]]
) -> None:
    records = open_store(converted[0]).records().to_pylist()
    assert {record["imaging"]["multi_channel_id"] for record in records} == set(rows)
    assert len(records) == len(rows) == converted[1]["images"] == 15
    assert converted[1]["failed_images"] == 0
    assert verify(str(converted[0])).is_sound


def test_pixels_are_those_that_pillow_reads(
    converted: tuple[Path, dict[str, Any]], published: Path, rows: dict[str, list[dict[str, str]]]
) -> None:
    store = open_store(converted[0])
    planes = 0
    for number, record in enumerate(store.records().to_pylist()):
        expected = []
        for row in rows[record["imaging"]["multi_channel_id"]]:
            with Image.open(published / row["storage.path"]) as picture:
                expected.append(np.asarray(picture))
        np.testing.assert_array_equal(store.read_image(number), np.stack(expected))
        planes += len(expected)
    assert planes == store.manifest.planes


def test_cells_of_each_channel_are_those_of_its_guidance_file(
    converted: tuple[Path, dict[str, Any]], published: Path, rows: dict[str, list[dict[str, str]]]
) -> None:
    store = open_store(converted[0])
    annotated = channels = 0
    for number, record in enumerate(store.records().to_pylist()):
        cells = store.read_cells(number)
        annotated += cells is not None
        for channel, row in enumerate(rows[record["imaging"]["multi_channel_id"]]):
            name = row["storage.path"].replace("CHAMMI-75_train", "CHAMMI-75_guidance").removesuffix(".png")
            guidance = published / f"{name}.safetensors"
            if not guidance.is_file():
                assert cells is None or cells[channel] is None
                continue
            assert cells is not None and cells[channel] is not None
            stated = load_file(guidance)
            found: Any = cells[channel]
            np.testing.assert_array_equal(found.centroids, stated["data"].reshape(-1, 2).astype(np.float32))
            np.testing.assert_array_equal(found.sizes, stated["sizes"].reshape(-1).astype(np.float32))
            channels += 1
    assert 0 < annotated < len(store)  # some images have none
    assert channels == 31  # 34 files; three belong to the image whose files are stated nowhere


def test_words_are_taken_over_and_unknown_is_null(
    converted: tuple[Path, dict[str, Any]], rows: dict[str, list[dict[str, str]]]
) -> None:
    for record in open_store(converted[0]).records().to_pylist():
        group = rows[record["imaging"]["multi_channel_id"]]
        first = group[0]
        for field in ("experiment.study", "experiment.plate", "experiment.well", "biology.organism", "microscopy.fov"):
            outer, inner = field.split(".")
            expected = None if first[field] in ("unknown", "") else first[field]
            assert record[outer][inner] == expected, field
        assert record["geometry"]["width"] == int(first["geometry.width"])
        assert record["imaging"]["channel"] == [int(row["imaging.channel"]) for row in group]
        assert record["storage"]["path"] == [row["storage.path"] for row in group]
        text = json.dumps({key: value for key, value in record.items() if key != "image_id"})
        assert '"unknown"' not in text.lower()


def test_the_image_whose_file_is_stated_nowhere_is_reported(
    converted: tuple[Path, dict[str, Any]], published: Path, rows: dict[str, list[dict[str, str]]]
) -> None:
    with open(published / TABLE, newline="", encoding="utf-8-sig") as file:
        stated = {row["imaging.multi_channel_id"] for row in csv.DictReader(file)}
    (absent,) = stated - set(rows)
    for findings in (converted[1]["findings"], json.loads((converted[0] / "report.json").read_bytes())["findings"]):
        assert [finding["path"] for finding in findings if finding["kind"] == "unresolved"] == [absent]


def test_both_codecs_hold_the_same_content(
    converted: tuple[Path, dict[str, Any]], published: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "chammi75.cli", "convert", str(published), "--out", str(tmp_path / "store")]
    done = subprocess.run([*command, "--codec", "deflate", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content_sha256"] == converted[1]["content_sha256"]
    assert open_store(tmp_path / "store").manifest.codec == "deflate"
