"""Embedding a store: which rows there are, that nothing is done twice, and that ranks and workers change nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import pyarrow.parquet as pq
import torch
from loading_stores import write_store

from chammi75.errors import ChammiError, StoreError
from chammi75.loading.image import MultiChannelImage
from chammi75.schemas.model_card import InputSettings, ModelConfig
from chammi75.schemas.training import BackboneSettings
from chammi75.training.backbones import build_backbone
from chammi75.training.embedding import embed_store
from chammi75.training.models import load_model, save_model

TYPES = ("bright-field", "er", "nucleus", "protein", "other")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "plates")


def make_model(folder, strategy="boc", seed=0, channels=TYPES):
    torch.manual_seed(seed)
    backbone = build_backbone(BackboneSettings(name="tiny", image_size=32), strategy, channels=channels)
    config = ModelConfig(
        library_version="0",
        title="a test",
        architecture="tiny",
        width=64,
        patch_size=16,
        image_size=32,
        strategy=strategy,
        channels=list(backbone.channels),
        input=InputSettings(dtypes=["uint8", "uint16", "float32"]),
    )
    return load_model(save_model(folder, backbone, config))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "boc")


@pytest.fixture(scope="module")
def multi_channel_model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "mca", "mca")


def read(file):
    return pq.read_table(file).to_pylist()


def types_of(image_id):
    return {
        "plate1": ["nucleus", "er", "protein", "protein"],
        "plate2": ["nucleus", "er"],
        "plate3": ["bright-field"],
    }[image_id.partition("/")[0]]


def test_each_image_has_one_row_with_the_features_that_the_model_gives_it(store, model, tmp_path):
    report = embed_store(model, store.url, tmp_path / "f.parquet", batch_size=8)
    rows = read(tmp_path / "f.parquet")
    assert (report.rows, report.images, report.embedded, report.finished) == (30, 30, 30, True)
    assert [row["image_id"] for row in rows] == store.ids
    for row in rows:
        pixels = store.pixels[row["image_id"]]
        assert row["channel_types"] == types_of(row["image_id"])
        assert row["study"] == row["image_id"].partition("/")[0]
        np.testing.assert_allclose(row["features"], model.embed(pixels)[0], atol=1e-5)


def test_a_multi_channel_model_gives_as_many_features_to_all(store, multi_channel_model, tmp_path):
    file = tmp_path / "f.parquet"
    embed_store(multi_channel_model, store.url, file)
    assert str(pq.read_schema(file).field("features").type) == "fixed_size_list<element: float>[64]"
    for row in read(file)[::7]:
        expected = multi_channel_model.embed(store.pixels[row["image_id"]], types_of(row["image_id"]))[0]
        np.testing.assert_allclose(row["features"], expected, atol=1e-5)


def test_lists_have_one_size_where_all_images_have_as_many_channels(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    embed_store(model, store.url, file, selection={"study": "plate1"})
    assert str(pq.read_schema(file).field("features").type) == "fixed_size_list<element: float>[256]"


def test_only_what_is_selected_is_embedded(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    embed_store(model, store.url, file, selection={"select_channels": ["er"], "where": "experiment.well > 'A03'"})
    rows = read(file)
    expected = [name for name in store.ids if "er" in types_of(name) and name.partition("/P")[2][:2] > "03"]
    assert [row["image_id"] for row in rows] == expected
    assert all(row["channel_types"] == ["er"] for row in rows)
    np.testing.assert_allclose(rows[0]["features"], model.embed(store.pixels[expected[0]][1:2])[0], atol=1e-5)


def test_a_row_for_each_cell_has_its_place_and_the_window_around_it(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    report = embed_store(model, store.url, file, crop="cells", crop_size=10, part_images=4)
    rows = read(file)
    expected = []
    for name in store.ids:
        known = [cells for cells in store.cells[name] or [] if cells is not None]
        best = max(known, key=lambda cells: len(cells.centroids), default=None)
        for number, (x, y) in enumerate([] if best is None else best.centroids.tolist()):
            expected.append((name, number, x, y))
    assert report.rows == len(rows) == len(expected) > 30
    for row, (name, number, x, y) in zip(rows, expected, strict=True):
        assert (row["image_id"], row["cell"]) == (name, number)
        assert (row["x"], row["y"]) == (pytest.approx(x), pytest.approx(y))
    for row in rows[::9]:
        pixels = store.pixels[row["image_id"]]
        top, left = (
            min(max(int(np.floor(centre + 0.5)) - 5, 0), edge - 10)
            for centre, edge in zip((row["y"], row["x"]), pixels.shape[1:], strict=True)
        )
        window = pixels[:, top : top + 10, left : left + 10]
        np.testing.assert_allclose(row["features"], model.embed(window)[0], atol=1e-5)


def test_cells_of_studies_without_a_size_of_windows_are_refused(store, model, tmp_path):
    with pytest.raises(ChammiError, match=r"plate1, plate2, plate3 have no window.*crop_size"):
        embed_store(model, store.url, tmp_path / "f.parquet", crop="cells")
    assert list(tmp_path.iterdir()) == []


def test_a_number_cuts_the_middle(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    embed_store(model, store.url, file, crop=44)
    row = read(file)[0]  # 300 x 280
    window = store.pixels[row["image_id"]][:, 128:172, 118:162]
    np.testing.assert_allclose(row["features"], model.embed(window)[0], atol=1e-5)
    row = read(file)[1]  # 41 x 48
    window = store.pixels[row["image_id"]][:, :, 2:46]
    np.testing.assert_allclose(row["features"], model.embed(window)[0], atol=1e-5)


def test_ranks_write_the_file_that_one_process_writes(store, model, tmp_path):
    alone, together = tmp_path / "alone.parquet", tmp_path / "together.parquet"
    embed_store(model, store.url, alone, part_images=4, rank=0, world_size=1)
    reports = [embed_store(model, store.url, together, part_images=4, rank=rank, world_size=3) for rank in (1, 0, 2)]
    assert [report.finished for report in reports] == [False, False, True]
    assert [report.embedded for report in reports] == [10, 12, 8]
    assert sum(report.embedded for report in reports) == 30
    assert alone.read_bytes() == together.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.parquet", "together.parquet"]


def test_workers_change_nothing(store, model, tmp_path):
    for workers in (0, 2):
        embed_store(model, store.url, tmp_path / f"{workers}.parquet", part_images=7, workers=workers)
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


class StoppedError(Exception):
    """Stands for what ends a process."""


def stop_after(images):
    done = []

    def advance(number):
        done.append(number)
        if sum(done) >= images:
            raise StoppedError

    return advance


def test_a_stopped_command_goes_on_with_the_parts_that_are_missing(store, model, tmp_path):
    whole, stopped = tmp_path / "whole.parquet", tmp_path / "stopped.parquet"
    embed_store(model, store.url, whole, part_images=4)
    with pytest.raises(StoppedError):
        embed_store(model, store.url, stopped, part_images=4, advance=stop_after(12))
    assert not stopped.exists()
    report = embed_store(model, store.url, stopped, part_images=4)
    assert report.embedded == 18
    assert whole.read_bytes() == stopped.read_bytes()


def test_parts_of_another_model_or_selection_are_refused(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    with pytest.raises(StoppedError):
        embed_store(model, store.url, file, part_images=4, advance=stop_after(4))
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(StoreError, match="parts of another model; delete"):
        embed_store(other, store.url, file, part_images=4)
    with pytest.raises(StoreError, match="parts of another selection"):
        embed_store(model, store.url, file, part_images=4, selection={"study": ["plate1", "plate2"]})
    with pytest.raises(StoreError, match="parts of another crop"):
        embed_store(model, store.url, file, part_images=4, crop=20)


def test_a_finished_file_is_not_made_again_and_another_is_not_written_over(store, model, tmp_path):
    file = tmp_path / "f.parquet"
    embed_store(model, store.url, file)
    before = file.stat().st_mtime_ns
    report = embed_store(model, store.url, file)
    assert (report.finished, report.rows, report.embedded) == (True, 30, 0)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(StoreError, match="features of another crop"):
        embed_store(model, store.url, file, crop=20)
    (tmp_path / "thesis.parquet").write_text("mine")
    with pytest.raises(StoreError, match="no Parquet file"):
        embed_store(model, store.url, tmp_path / "thesis.parquet")
    assert (tmp_path / "thesis.parquet").read_text() == "mine"


def test_the_file_says_what_it_is_of(store, model, tmp_path):
    from chammi75.store import open_store

    file = tmp_path / "f.parquet"
    embed_store(model, store.url, file)
    said = json.loads(pq.read_schema(file).metadata[b"chammi75"])
    assert said["model"]["sha256"] == model.sha256
    assert said["stores"][0][0] == open_store(store.url).manifest.content_sha256
    assert len(said["selection"][0]) == 64


def test_images_that_cannot_be_read_stop_it_or_are_left_out_and_named(model, tmp_path):
    known = write_store(tmp_path / "plates", images=10)
    shutil.copytree(known.url, tmp_path / "damaged")
    (shard,) = (tmp_path / "damaged" / "shards").glob("*00001.arrow")
    content = bytearray(shard.read_bytes())
    from chammi75.loading.stores import open_stores

    layout = open_stores(str(tmp_path / "damaged"))[0]
    image = layout.samples(np.array([8])).column("image").to_pylist()[0]
    start = image["offsets"][1] + image["lengths"][1] // 2
    content[start : start + 200] = b"\xff" * 200
    shard.write_bytes(bytes(content))
    with pytest.raises(ChammiError, match="P08"):
        embed_store(model, str(tmp_path / "damaged"), tmp_path / "raised.parquet")
    report = embed_store(model, str(tmp_path / "damaged"), tmp_path / "f.parquet", on_error="skip")
    assert [name for name, _ in report.failed] == ["plate1/P08_*.tif"]
    assert [row["image_id"] for row in read(tmp_path / "f.parquet")] == [
        name for name in known.ids if name != "plate1/P08_*.tif"
    ]
    again = embed_store(model, str(tmp_path / "damaged"), tmp_path / "f.parquet", on_error="skip")
    assert again.failed == report.failed


def test_an_image_that_does_not_fit_is_named(store, tmp_path):
    narrow = make_model(tmp_path / "narrow", "mca", channels=("er", "nucleus"))
    with pytest.raises(ChammiError, match=r"plate1/P00.*protein"):
        embed_store(narrow, store.url, tmp_path / "f.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["narrow"]  # there was no part of it yet
    report = embed_store(narrow, store.url, tmp_path / "f2.parquet", unknown_channels="other")
    assert report.rows == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "half"}, "crop is"),
        ({"crop": 0}, "crop is"),
        ({"crop_size": 30}, "goes with"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"selection": {"studdy": "x"}}, "study"),
    ],
)
def test_wrong_options_are_told_before_anything_is_written(store, model, tmp_path, options, words):
    with pytest.raises(ChammiError, match=words):
        embed_store(model, store.url, tmp_path / "f.parquet", **options)
    assert list(tmp_path.iterdir()) == []


def test_features_are_keyed_by_the_ids_of_load_dataset(store, model, tmp_path):
    from chammi75.loading import load_dataset

    embed_store(model, store.url, tmp_path / "f.parquet")
    features = {row["image_id"]: row["features"] for row in read(tmp_path / "f.parquet")}
    sample = load_dataset(store.url, split=None)[5]
    assert isinstance(sample["image"], MultiChannelImage)
    np.testing.assert_allclose(features[sample["image_id"]], model.embed(sample["image"])[0], atol=1e-5)
