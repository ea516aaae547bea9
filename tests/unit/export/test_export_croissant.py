from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import Known

from chammi75 import load_dataset
from chammi75.export import export, selections_for

pytestmark = pytest.mark.filterwarnings("ignore")  # of rdflib and pandas


@pytest.fixture(scope="module")
def croissant(store: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("croissant") / "out"
    export(store.url, "croissant", out, shard_bytes=300_000, url="https://example.org/plates")
    return out


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def test_mlcroissant_validates_it_without_an_error(croissant: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(croissant / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    recommended = ("citeAs", "datePublished", "version")  # in no record: not made up
    assert all(any(name in warning for name in recommended) for warning in issues.warnings)
    assert len(issues.warnings) <= len(recommended)


def test_mlcroissant_gives_every_image_back(croissant: Path, store: Known) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(croissant / "croissant.json"))
    found = list(dataset.records("train"))
    assert [text(record["train/image_id"]) for record in found] == store.ids
    for record, expected in zip(found, load_dataset(store.url), strict=True):
        pixels = np.stack([np.asarray(plane) for plane in record["train/planes"]])
        assert pixels.dtype == store.pixels[expected["image_id"]].dtype
        assert np.array_equal(pixels, store.pixels[expected["image_id"]])
        assert [text(word) for word in record["train/imaging.channel_type"]] == expected["imaging"]["channel_type"]
        assert text(record["train/biology.organism"]) == expected["biology"]["organism"]
        assert record["train/geometry.width"] == expected["geometry"]["width"]
        assert record["train/microscopy.magnification"] == expected["microscopy"]["magnification"]
        known = store.cells[expected["image_id"]]
        sizes = record["train/annotation.sizes"]
        assert (known is None) == (sizes is None)
        for entry, values in zip(known or (), sizes or (), strict=True):
            assert (entry is None) == (values is None)
            assert entry is None or np.allclose(values, entry.sizes)


def test_files_are_named_with_their_size_and_hash(croissant: Path) -> None:
    described = json.loads((croissant / "croissant.json").read_text(encoding="utf-8"))
    files = [entry for entry in described["distribution"] if entry["@type"] == "cr:FileObject"]
    assert [entry["contentUrl"] for entry in files] == sorted(
        path.relative_to(croissant).as_posix() for path in (croissant / "data").iterdir()
    )
    for entry in files:
        content = (croissant / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"


def test_every_licence_is_listed_by_its_page(croissant: Path, store: Known, tmp_path: Path) -> None:
    described = json.loads((croissant / "croissant.json").read_text(encoding="utf-8"))
    assert described["license"] == [
        "https://creativecommons.org/licenses/by/4.0/",
        "https://creativecommons.org/publicdomain/zero/1.0/",
    ]
    assert "creator" not in described
    export(selections_for(store.url, study="plate2"), "croissant", tmp_path / "one")
    one = json.loads((tmp_path / "one" / "croissant.json").read_text(encoding="utf-8"))
    assert one["license"] == "https://creativecommons.org/publicdomain/zero/1.0/"


def test_every_column_of_the_record_is_a_field(croissant: Path) -> None:
    import pyarrow.parquet as pq

    described = json.loads((croissant / "croissant.json").read_text(encoding="utf-8"))
    (records,) = described["recordSet"]
    fields = {entry["name"] for entry in records["field"]}
    schema = pq.read_schema(croissant / "data" / "train-00000.parquet")
    leaves = {"image_id", "planes"}
    for column in schema:
        for leaf in column.type if column.name not in leaves else ():
            name = f"{column.name}.{leaf.name}"
            inner = leaf.type if str(leaf.type).startswith("struct") else ()
            leaves |= {f"{name}.{part.name}" for part in inner} if inner else {name}
    assert fields == leaves


def test_what_has_a_doi_is_cited(tmp_path: Path) -> None:
    from chammi75.export.croissant import describe
    from chammi75.export.report import ExportReport
    from chammi75.loading.origins import Origin

    origins = (Origin("lab1", "lab1", None, "CC-BY-4.0", "10.5555/12345", None, 2),)
    report = ExportReport("croissant", "out", 2, 4, 1, 10, (), (), origins)
    assert "10.5555/12345" in describe(report, [], [], "title")["citeAs"]
