"""Models out: saving, loading, what is refused, and features against a plain computation in float64."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import torch
from safetensors.torch import load_file, save_file

from chammi75.errors import ChammiError, FetchError, ReadError, StoreError
from chammi75.loading.image import MultiChannelImage
from chammi75.schemas.model_card import InputSettings, ModelConfig, TrainingData
from chammi75.schemas.training import BackboneSettings
from chammi75.training.backbones import build_backbone
from chammi75.training.checkpoints import write_checkpoint
from chammi75.training.models import load_model, save_model

NAMES = ("er", "nucleus", "other")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(strategy="boc", seed=0):
    torch.manual_seed(seed)
    settings = BackboneSettings(name="tiny", patch_size=8, image_size=32)
    return build_backbone(settings, strategy, channels=NAMES)


def config(strategy="boc", **changed):
    values = {
        "library_version": "0",
        "title": "a test",
        "architecture": "tiny",
        "width": 64,
        "patch_size": 8,
        "image_size": 32,
        "strategy": strategy,
        "channels": list(NAMES) if strategy == "mca" else [],
        "input": InputSettings(dtypes=["uint8", "uint16"], value_range=(0, 4095)),
        "data": TrainingData(pixel_size_um=(0.2, 0.6)),
    }
    return ModelConfig.model_validate({**values, **changed})


@pytest.fixture
def saved(tmp_path):
    def save(strategy="boc", seed=0, name="model", student=None, **changed):
        return save_model(tmp_path / name, network(strategy, seed), config(strategy, **changed), student=student)

    return save


def planes(*shape, seed=0, dtype=np.uint8, most=256):
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def plain_resize(plane, size):
    """Antialiased bilinear resizing by its definition: along each axis a triangle as wide as shrinking asks for."""

    def matrix(length, target):
        scale = length / target
        support = max(scale, 1.0)
        rows = np.zeros((target, length))
        for i in range(target):
            centre = (i + 0.5) * scale
            for j in range(length):
                rows[i, j] = max(0.0, 1 - abs((j + 0.5 - centre) / support))
            rows[i] /= rows[i].sum()
        return rows

    return matrix(plane.shape[0], size[0]) @ plane @ matrix(plane.shape[1], size[1]).T


def plain_plane(plane, size=(32, 32)):
    plane = plane.astype(np.float64)
    return plain_resize((plane - plane.mean()) / np.sqrt(plane.var() + 1e-7), size)


def plain_features(backbone, image, ids=None):
    """Each plane alone, or all together, through the backbone in float64."""
    backbone = backbone.double().eval()
    made = torch.from_numpy(np.stack([plain_plane(plane) for plane in image]))
    with torch.no_grad():
        if ids is None:
            return np.concatenate([backbone(plane[None, None])[0].numpy() for plane in made])
        return backbone(made[None], torch.tensor([ids]))[0].numpy()


def test_a_bag_of_channels_gives_the_features_of_each_plane_side_by_side(saved):
    images = planes(2, 3, 50, 41)
    found = load_model(saved()).embed(images)
    assert found.shape == (2, 3 * 64)
    assert found.dtype == np.float32
    for image, features in zip(images, found, strict=True):
        np.testing.assert_allclose(features, plain_features(network(), image), atol=2e-5)


def test_a_multi_channel_model_gives_the_features_of_all_channels_together(saved):
    images = planes(2, 2, 50, 41)
    found = load_model(saved("mca")).embed(images, ["nucleus", "er"])
    assert found.shape == (2, 64)
    for image, features in zip(images, found, strict=True):
        np.testing.assert_allclose(features, plain_features(network("mca"), image, [1, 0]), atol=2e-5)


def test_a_bright_plane_that_hardly_varies_keeps_its_contrast(saved):
    image = 60000 + planes(1, 40, 40, most=3, dtype=np.uint16)
    model = load_model(saved(input=InputSettings(dtypes=["uint16"])))
    np.testing.assert_allclose(model.embed(image)[0], plain_features(network(), image), atol=2e-5)


def test_a_constant_plane_gives_finite_features(saved):
    assert np.isfinite(load_model(saved()).embed(np.full((1, 20, 20), 7, np.uint8))).all()


def test_features_do_not_depend_on_what_is_embedded_beside(saved):
    model = load_model(saved("mca"))
    images = [planes(count, 30 + count, 40, seed=count) for count in (1, 2, 3, 2)]
    names = [["nucleus"], ["er", "nucleus"], ["er", "other", "nucleus"], ["nucleus", "er"]]
    together = model.embed(images, names, batch_size=2)
    for image, types, features in zip(images, names, together, strict=True):
        np.testing.assert_allclose(model.embed(image, types)[0], features, atol=1e-5)


def test_the_batch_size_does_not_change_features(saved):
    model, images = load_model(saved()), planes(5, 2, 40, 40)
    np.testing.assert_allclose(model.embed(images, batch_size=3), model.embed(images, batch_size=64), atol=1e-5)


def test_images_of_different_numbers_of_channels_are_a_list(saved):
    model = load_model(saved())
    images = [planes(1, 40, 40), planes(3, 30, 44)]
    with pytest.raises(ChammiError, match=r"1, 3 channels.*embed_each"):
        model.embed(images)
    found = model.embed_each(images)
    assert [features.shape for features in found] == [(64,), (192,)]
    np.testing.assert_allclose(found[1], model.embed(images[1])[0], atol=1e-5)


def test_channels_of_a_multi_channel_image_are_picked_in_the_order_that_is_asked_for(saved):
    pixels = planes(2, 40, 40)
    image = MultiChannelImage.from_array(pixels, ["nucleus", "er"])
    model = load_model(saved())
    np.testing.assert_allclose(model.embed(image, ["er", "nucleus"]), model.embed(pixels[::-1].copy()), atol=1e-6)
    with pytest.raises(ChammiError, match="golgi"):
        model.embed(image, ["golgi"])


def test_tensors_and_arrays_are_alike(saved):
    model, images = load_model(saved()), planes(2, 1, 40, 40)
    assert np.array_equal(model.embed(images), model.embed(torch.from_numpy(images)))
    halves = torch.rand((1, 40, 40), generator=torch.Generator().manual_seed(0)).bfloat16()
    assert np.array_equal(model.embed(halves, resample=True), model.embed(halves.float(), resample=True))


def test_channels_of_unknown_types_are_refused_or_taken_as_others(saved):
    model, image = load_model(saved("mca")), planes(1, 40, 40)
    with pytest.raises(ChammiError, match="channels=\\["):
        model.embed(image)
    with pytest.raises(ChammiError, match="did you mean nucleus"):
        model.embed(image, ["nuclei"])
    found = model.embed(image, ["nuclei"], unknown_channels="other")
    assert np.array_equal(found, model.embed(image, ["other"]))
    with pytest.raises(ChammiError, match="'refuse' or 'other', not 'othr'"):
        model.embed(image, ["nuclei"], unknown_channels="othr")
    with pytest.raises(ChammiError, match="1 channels, and channels names 2"):
        model.embed(image, ["er", "nucleus"])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((1, 20, 20), np.float32), "float32.*uint8 and uint16"),
        (np.full((1, 20, 20), 5000, np.uint16), "5000.*0 to 4095"),
    ],
)
def test_pixels_unlike_those_of_the_training_are_refused_unless_asked_for(saved, image, words):
    model = load_model(saved())
    with pytest.raises(ChammiError, match=words):
        model.embed(image)
    assert model.embed(image, resample=True).shape == (1, 64)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((1, 20, 20), np.int64), "int64"),
        (np.full((1, 20, 20), np.nan, np.float32), "finite"),
        (np.linspace(0, 1e30, 400, dtype=np.float32).reshape(1, 20, 20), "overflow float32"),
        (np.linspace(0, 1e300, 400).reshape(1, 20, 20), "overflow float32"),
        (np.zeros((20, 20), np.uint8), "shape"),
        ("image.tif", "str"),
        ([np.zeros((0, 2, 2), np.uint8)], "shape"),
    ],
)
def test_what_is_no_image_is_refused(saved, image, words):
    with pytest.raises(ChammiError, match=words):
        load_model(saved()).embed(image, resample=True)


def test_pixels_of_another_size_are_refused_or_brought_to_that_of_the_training(saved):
    model, image = load_model(saved()), planes(1, 80, 64)
    model.embed(image, pixel_size_um=0.1)  # half of the smallest
    with pytest.raises(ChammiError, match=r"0.05 µm.*0.2 to 0.6.*resample=True"):
        model.embed(image, pixel_size_um=0.05)
    for edge in (0, -0.3, float("nan"), float("inf")):
        with pytest.raises(ChammiError, match="above 0"):
            model.embed(image, pixel_size_um=edge, resample=True)
    found = model.embed(image, pixel_size_um=0.05, resample=True)[0]
    coarse = plain_resize(image[0].astype(np.float64), (20, 16))  # 0.05 µm to 0.2 µm
    np.testing.assert_allclose(found, plain_features(network(), coarse[None]), atol=5e-5)


def test_a_model_that_does_not_normalise_scales_other_types_to_its_range(saved):
    model = load_model(saved(input=InputSettings(dtypes=["uint16"], value_range=(0, 65535), normalisation="none")))
    image = planes(1, 32, 32)
    scaled = (image.astype(np.float32) * np.float32(257)).astype(np.uint16)
    np.testing.assert_allclose(model.embed(image, resample=True), model.embed(scaled), rtol=1e-4, atol=1e-4)


def test_a_folder_has_weights_config_and_card_and_nothing_else(saved, tmp_path):
    folder = saved(student=network(seed=1))
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "student.safetensors",
    ]  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_teacher_and_student_are_told_apart(saved):
    folder, image = saved(student=network(seed=1)), planes(1, 40, 40)
    teacher, student = (load_model(folder, which=which).embed(image) for which in ("teacher", "student"))
    assert np.array_equal(teacher, load_model(folder).embed(image))
    np.testing.assert_allclose(student[0], plain_features(network(seed=1), image), atol=2e-5)
    assert not np.allclose(teacher, student)
    with pytest.raises(ReadError, match="no student"):
        load_model(saved(name="alone"), which="student")


def test_saving_draws_no_random_number_and_leaves_the_network_as_it_was(tmp_path):
    backbone = network().train()
    state = torch.get_rng_state()
    save_model(tmp_path / "model", backbone, config())
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training


def test_a_folder_with_something_in_it_is_not_written_over(saved, tmp_path):
    folder = saved()
    with pytest.raises(StoreError, match="something already"):
        saved(seed=1)
    save_model(folder, network(seed=1), config(), overwrite=True)
    image = planes(1, 40, 40)
    np.testing.assert_allclose(load_model(folder).embed(image)[0], plain_features(network(seed=1), image), atol=2e-5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="no model's folder"):
        save_model(other, network(), config(), overwrite=True)
    assert (other / "thesis.txt").exists()


def test_a_model_that_cannot_be_saved_leaves_nothing(tmp_path):
    backbone = network()
    with torch.no_grad():
        backbone.cls_token[0, 0, 0] = torch.nan
    with pytest.raises(ChammiError, match=r"finite.*cls_token"):
        save_model(tmp_path / "model", backbone, config())
    with pytest.raises(ReadError, match="width is 65"):
        save_model(tmp_path / "model", network(), config(width=65))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_finds_no_room_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    import safetensors.torch

    def full(*_, **__):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match=r"model\.safetensors cannot be written to .*No space left"):
        save_model(tmp_path / "model", network(), config())
    assert list(tmp_path.iterdir()) == []


def change_config(folder, **changed):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_a_truncated_file_of_weights_is_told(saved):
    file = saved() / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(ReadError, match=r"model\.safetensors: is cut off"):
        load_model(file.parent)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ReadError, match="damaged"):
        load_model(file.parent)
    file.unlink()
    with pytest.raises(ReadError, match="missing"):
        load_model(file.parent)


def test_a_config_of_a_newer_format_is_told(saved):
    folder = saved()
    for version in (2, "2"):
        change_config(folder, format_version=version, something="new")
        with pytest.raises(ReadError, match=r"format 2.*up to 1"):
            load_model(folder)


def test_a_config_that_is_none_is_told(saved):
    folder = saved()
    change_config(folder, strategy="both")
    with pytest.raises(ReadError, match="strategy"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ReadError, match="no JSON"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ReadError, match=r"config\.json is missing"):
        load_model(folder)


def resave(folder, change):
    """Other weights in the folder of a model, with size and hash as the config must have them."""
    import hashlib

    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    weights = json.loads((folder / "config.json").read_text())["weights"]
    content = file.read_bytes()
    weights["model"].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    change_config(folder, weights=weights)


def test_another_architecture_says_what_differs(saved):
    folder = saved()

    def change(state):
        state["block.0.extra"] = state.pop("norm.bias")
        state["cls_token"] = torch.zeros(1, 1, 32)

    resave(folder, change)
    with pytest.raises(ReadError, match=r"missing \(norm.bias\).*too many \(block.0.extra\).*cls_token \(1, 1, 32\)"):
        load_model(folder)


def test_features_other_than_where_it_was_saved_are_noticed(saved):
    folder = saved()
    resave(folder, lambda state: state["blocks.1.attn.qkv.weight"].mul_(1.05))
    with pytest.raises(ReadError, match="golden vector"):
        load_model(folder)
    load_model(folder, check=False)


def test_another_rule_for_positions_is_noticed(saved):
    folder = saved()
    change_config(folder, reference_positions=False)
    with pytest.raises(ReadError, match="golden vector at 24 x 40"):
        load_model(folder)


def test_a_checkpoint_of_the_reference_gives_the_student(tmp_path):
    states = {
        name: {f"module.backbone.{key}": value for key, value in network(seed=seed).state_dict().items()}
        for name, seed in (("student", 0), ("teacher", 1))
    }
    torch.save(states, tmp_path / "checkpoint.pth")
    image = planes(2, 32, 32, dtype=np.float32)
    for which, seed in ((None, 0), ("student", 0), ("teacher", 1)):
        found = load_model(tmp_path / "checkpoint.pth", which=which).embed(image)[0]
        np.testing.assert_allclose(found, plain_features(network(seed=seed), image), atol=2e-5)


def test_a_model_of_timm_takes_each_plane_for_all_its_channels(monkeypatch):
    import timm

    torch.manual_seed(0)
    made = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32).eval()
    made.pretrained_cfg["input_size"] = (3, 32, 32)
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or made)
    image = planes(2, 40, 50)
    for name in ("timm:vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224"):
        model = load_model(name)
        found = model.embed(image)[0]
        expected = [
            made.double()(torch.from_numpy(plain_plane(plane))[None, None].repeat(1, 3, 1, 1))[0].detach().numpy()
            for plane in image
        ]
        np.testing.assert_allclose(found, np.concatenate(expected), atol=2e-5)
        made.float()
    assert asked == [
        ("vit_tiny_patch16_224.augreg_in21k", {"pretrained": True, "num_classes": 0}),
        ("vit_tiny_patch16_224", {"pretrained": True, "num_classes": 0}),
    ]


def test_a_name_that_nothing_has_is_told(tmp_path):
    with pytest.raises(ChammiError, match="nearest are vit_tiny"):
        load_model("timm:vit_tiny_patch16_225")
    with pytest.raises(ChammiError, match=r"no such file or folder.*MorphEm"):
        load_model("not-a-model")
    with pytest.raises(ChammiError, match="no such file or folder"):
        load_model(str(tmp_path / "gone.pth"))
    with pytest.raises(ChammiError, match="which"):
        load_model(tmp_path, which="parent")
    with pytest.raises(ChammiError, match="no model is named"):
        load_model("")


def test_a_folder_of_ours_on_the_hub_is_loaded(saved, monkeypatch):
    import huggingface_hub

    folder = saved()
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.append((name, options)) or str(folder)
    )
    assert load_model("someone/model", revision="v1").config.title == "a test"
    assert asked == [
        ("someone/model", {"revision": "v1", "allow_patterns": ["config.json", "README.md", "*.safetensors"]})
    ]


def hub_error(name):
    from huggingface_hub import errors

    if name in ("GatedRepoError", "RepositoryNotFoundError"):
        answer = SimpleNamespace(headers={}, request=None, status_code=403)
        return getattr(errors, name)("no", response=answer)
    return {"LocalEntryNotFoundError": errors.LocalEntryNotFoundError("no"), "ConnectionError": ConnectionError("no")}[
        name
    ]


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("GatedRepoError", "ask on https://huggingface.co/someone/model"),
        ("RepositoryNotFoundError", "withdrawn"),
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("ConnectionError", "cannot be fetched"),
    ],
)
def test_weights_that_the_hub_does_not_give_name_what_else_can_be_used(monkeypatch, raised, words):
    import huggingface_hub

    def refuse(*_, **__):
        raise hub_error(raised)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FetchError, match=words) as caught:
        load_model("someone/model")
    assert "what else can be used" in str(caught.value)


def test_weights_that_are_no_safetensors_are_not_taken_from_the_hub(monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ChammiError, match="no safetensors"):
        load_model("someone/model")


def test_a_device_that_is_not_there_is_told(saved):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ChammiError, match="device cuda: it is not there"):
        load_model(Path(saved()), device="cuda")


def test_the_folder_of_a_run_stands_for_its_model(saved, tmp_path):
    (tmp_path / "run").mkdir()
    saved().rename(tmp_path / "run" / "model")
    (tmp_path / "run" / "recipe.yaml").write_text("title: a run\n")
    assert load_model(tmp_path / "run").sha256 == load_model(tmp_path / "run" / "model").sha256


def test_a_checkpoint_of_a_run_names_the_model_beside_it(tmp_path):
    (tmp_path / "recipe.yaml").write_text("title: a run\n")
    checkpoint = write_checkpoint(tmp_path / "checkpoints", 3, {"weights": torch.zeros(2)}, keep=1)
    with pytest.raises(ReadError, match=f"which a run goes on from; its model is in {tmp_path / 'model'}"):
        load_model(checkpoint.path)


def test_a_configuration_without_its_version_is_still_ours(saved):
    folder = saved()
    content = json.loads((folder / "config.json").read_text())
    del content["format_version"]
    (folder / "config.json").write_text(json.dumps(content))
    assert load_model(folder).config.input == config().input
