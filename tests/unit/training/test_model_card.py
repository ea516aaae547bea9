"""What a model says of itself: its config out of recipe and data, and the card."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import yaml
from loading_stores import STUDIES, write_store

from chammi75.schemas.model_card import ModelConfig, Result
from chammi75.schemas.training import BackboneSettings, DataSettings, TrainingRecipe
from chammi75.training.backbones import build_backbone
from chammi75.training.model_card import data_of_recipe, model_card, model_config, training_data


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "plates")


def recipe(store, tmp_path, **data):
    return TrainingRecipe(
        title="Plates | of *mine*",
        store=store.url,
        out=str(tmp_path / "run"),
        method="dino",
        backbone=BackboneSettings(name="tiny"),
        data=DataSettings(crop={"plate1": [30, 20], "plate2": [40]}, crop_other=25, **data),
    )


def test_counts_are_those_of_the_images(store):
    data, settings = training_data(store.url)
    assert data.images == 30
    assert data.planes == sum(len(pixels) for pixels in store.pixels.values())
    studies = [name.partition("/")[0] for name in store.ids]
    assert data.studies == {name: studies.count(name) for name in ("plate1", "plate2", "plate3")}
    licenses = {study["study"]: study["license"] for study in STUDIES}
    expected = {word: sum(licenses[name] == word for name in studies) for word in ("CC-BY-4.0", "CC0-1.0")}
    assert {entry.license: entry.images for entry in data.licenses} == expected
    assert data.channel_types["protein"] == 2 * studies.count("plate1")
    assert data.pixel_size_um == (0.5, 0.5)
    assert settings.dtypes == ["uint8", "uint16", "float32"]
    assert settings.value_range is None
    assert len(data.stores[0].content_sha256) == 64


def test_only_what_is_selected_counts(store):
    data, settings = training_data(store.url, {"study": ["plate1", "plate2"], "select_channels": ["nucleus"]})
    assert set(data.channel_types) == {"nucleus"}
    assert data.planes == data.images == sum(not name.startswith("plate3") for name in store.ids)
    assert settings.dtypes == ["uint8", "uint16"]
    assert settings.value_range == (0, 255)  # of 8 significant bits


def test_the_config_says_how_the_model_was_made(store, tmp_path):
    made = recipe(store, tmp_path)
    backbone = build_backbone(made.backbone, "boc")
    config = model_config(made, backbone, steps=12, results=[Result(task="kNN", metric="accuracy", value=0.5)])
    assert config.data.crop_sizes == [20, 25, 30, 40]
    assert (config.method, config.steps, config.width, config.channels) == ("dino", 12, 64, [])
    plain = json.dumps(config.recipe, sort_keys=True).encode()
    assert config.recipe_sha256 == hashlib.sha256(plain).hexdigest()
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_neither_config_nor_card_names_folders_of_the_machine(store, tmp_path):
    made = recipe(store, tmp_path)
    config = model_config(made, build_backbone(made.backbone, "boc"))
    assert str(tmp_path) not in config.model_dump_json() + model_card(config)
    assert config.recipe["store"] == "plates"


def test_the_card_states_licences_with_counts_hashes_and_results(store, tmp_path):
    made = recipe(store, tmp_path)
    seen = data_of_recipe(made)
    results = [Result(task="kNN | of types", metric="accuracy", value=0.8125)]
    config = model_config(made, build_backbone(made.backbone, "boc"), seen, results=results, license="MIT")
    card = model_card(config)
    _, front, body = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["license"] == "mit"
    assert values["library_name"] == "chammi75"
    assert values["chammi75"]["data"][0]["content_sha256"] == config.data.stores[0].content_sha256
    assert values["chammi75"]["data_licenses"] == {entry.license: entry.images for entry in config.data.licenses}
    assert values["chammi75"]["recipe_sha256"] == config.recipe_sha256
    assert "# Plates \\| of \\*mine\\*" in body
    assert "| kNN \\| of types | accuracy | 0.8125 |" in body
    assert "load_model(" in body
    (block,) = [part.partition("~~~~")[0] for part in body.split("~~~~yaml\n")[1:]]
    assert yaml.safe_load(block) == config.recipe


def test_the_hub_reads_the_card(store, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the card is read as the hub's client does")
    made = recipe(store, tmp_path)
    card = hub.ModelCard(model_card(model_config(made, build_backbone(made.backbone, "boc"))))
    assert card.data.library_name == "chammi75"
    assert card.data.pipeline_tag == "image-feature-extraction"


def test_features_of_golden_vectors_are_reproducible_numbers():
    from chammi75.training.golden import golden_pixels

    pixels = golden_pixels(0, 2, (5, 4))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, golden_pixels(0, 2, (5, 4)))
    assert np.array_equal(pixels[:, :3], golden_pixels(0, 2, (3, 4)))
    assert not np.array_equal(pixels, golden_pixels(1, 2, (5, 4)))
