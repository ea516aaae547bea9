from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from loading_stores import Known
from PIL import Image

from chammi75 import load_dataset
from chammi75.export import export, selections_for


@pytest.fixture(scope="module")
def parquet(store: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet") / "out"
    export(store.url, "parquet", out, shard_bytes=60_000)
    return out


def test_datasets_reads_the_folder_as_pictures_and_records(parquet: Path, store: Known, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(parquet), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    assert loaded["train"].features["planes"] == datasets.List(datasets.Image())
    assert loaded["train"]["image_id"][:] == store.ids
    for row in loaded["train"]:
        pixels = np.stack([np.asarray(plane) for plane in row["planes"]])
        assert pixels.dtype == store.pixels[row["image_id"]].dtype
        assert np.array_equal(pixels, store.pixels[row["image_id"]])


def test_records_and_cells_come_back_equal(parquet: Path, store: Known, tmp_path: Path) -> None:
    import pyarrow.dataset as ds

    ours = load_dataset(store.url, streaming=True)
    theirs = ds.dataset(parquet / "data").to_table().to_pylist()
    for expected, row in zip(ours, theirs, strict=True):
        groups = [name for name in expected if name not in ("image", "annotation")]
        assert {name: row[name] for name in groups} == {name: expected[name] for name in groups}
        known = store.cells[row["image_id"]]
        if known is None:
            assert row["annotation"] is None
            continue
        for entry, centroids, sizes in zip(
            known, row["annotation"]["centroids"], row["annotation"]["sizes"], strict=True
        ):
            assert (entry is None) == (centroids is None)
            if entry is not None:
                assert np.array_equal(np.reshape(centroids, (-1, 2)), entry.centroids)
                assert np.array_equal(sizes, entry.sizes)


def test_polars_and_duckdb_read_the_same(parquet: Path, store: Known) -> None:
    import duckdb

    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(parquet / "data" / "*.parquet")
    assert frame["image_id"].to_list() == store.ids
    first = frame["planes"][0][0]["bytes"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(first))), store.pixels[store.ids[0]][0])
    asked = f"SELECT count(*) FROM '{parquet}/data/*.parquet' WHERE biology.organism = 'Homo sapiens'"
    assert duckdb.sql(asked).fetchall() == [(10,)]


def test_row_groups_and_files_stay_below_their_limits(parquet: Path, store: Known, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    files = sorted((parquet / "data").iterdir())
    assert [file.name for file in files] == [f"train-{number:05d}.parquet" for number in range(len(files))]
    for file in files:
        sizes = [sum(len(plane["bytes"]) for plane in planes) for planes in pq.read_table(file)["planes"].to_pylist()]
        assert len(sizes) == 1 or sum(sizes) <= 60_000


def test_the_card_states_licences_sources_and_sizes(parquet: Path) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(parquet / "README.md")
    assert card.data["license"] == "other"
    assert card.data["license_name"] == "cc-by-4.0-and-cc0-1.0"
    assert card.data["size_categories"] == ["n<1K"]
    assert card.data["dataset_info"]["splits"][0]["num_examples"] == 30
    assert "| plate2 | 10 | [CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/) |" in card.text


def test_one_licence_is_spelled_as_the_hub_does(store: Known, tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    export(selections_for(store.url, study="plate2"), "parquet", tmp_path / "out", title="<b>|mice")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data["license"] == "cc0-1.0"
    assert "# &lt;b&gt;\\|mice" in card.text


def test_an_unknown_licence_is_said_to_be_unknown(published: Known, tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    export(published.url, "parquet", tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data["license"] == "unknown"
    assert "do not publish them" in card.text
    export(published.url, "parquet", tmp_path / "stated", license="CC-BY-4.0")
    assert DatasetCard.load(tmp_path / "stated" / "README.md").data["license"] == "cc-by-4.0"


def test_planes_of_the_published_layout_go_on_as_they_are(published: Known, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    export(published.url, "parquet", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet")
    for row in table.select(["storage", "planes"]).to_pylist():
        for path, plane in zip(row["storage"]["path"], row["planes"], strict=True):
            assert plane["bytes"] == (Path(published.url) / path).read_bytes()


def test_selected_channels_alone_are_exported(store: Known, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    report = export(selections_for(store.url, select_channels=["er"]), "parquet", tmp_path / "out")
    assert report.planes == report.images == 20
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert all(row["imaging"]["channel_type"] == ["er"] and len(row["planes"]) == 1 for row in rows)
    pixels = np.asarray(Image.open(io.BytesIO(rows[0]["planes"][0]["bytes"])))
    assert np.array_equal(pixels, store.pixels[rows[0]["image_id"]][1])
