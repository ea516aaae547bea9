"""Weights from elsewhere are read whatever they are wrapped in, and refused in words where they do not fit."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
from functools import partial

import pytest

pytest.importorskip("torch", reason="weights need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")
pytest.importorskip("safetensors", reason="weights need safetensors")

import torch
from safetensors.torch import save_file

from chammi75.errors import ChammiError, ReadError
from chammi75.schemas.training import BackboneSettings
from chammi75.training.backbones import build_backbone
from chammi75.training.foreign import read_foreign

NAMES = ["actin", "er", "nucleus"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(kind="boc", seed=0, *, name="tiny", patch=16, image_size=64, channels=NAMES):
    torch.manual_seed(seed)
    settings = BackboneSettings(name=name, patch_size=patch, image_size=image_size)
    return build_backbone(settings, kind, channels=channels, other=False).state_dict()


def head():
    return {
        "mlp.0.weight": torch.randn(8, 64),
        "mlp.0.bias": torch.randn(8),
        "last_layer.weight_g": torch.ones(5, 1),
        "last_layer.weight_v": torch.randn(5, 8),
    }


def network(state, prefix):
    """As `state_dict` gives a backbone and a head in one wrapper."""
    own = {f"{prefix}backbone.{name}": tensor for name, tensor in state.items()}
    return own | {f"{prefix}head.{name}": tensor for name, tensor in head().items()}


def checkpoint(kind="boc", *, student="module.", teacher="", **options):
    """All that the reference's training script saves."""
    return {
        "student": network(weights(kind, 1, **options), student),
        "teacher": network(weights(kind, 2, **options), teacher),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", patch_size=16, global_crops_scale=(0.4, 1.0), seed=0),
        "dino_loss": {"center": torch.zeros(1, 5)},
        "fp16_scaler": None,
    }


@pytest.fixture
def saved(tmp_path):
    def save(content, name="checkpoint.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def assert_same(given, expected):
    assert set(given) == set(expected)
    for name, tensor in expected.items():
        assert given[name].dtype == torch.float32
        assert torch.equal(given[name], tensor.float()), name


# -- the reference's checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["boc", "mca"])
@pytest.mark.parametrize(("which", "seed"), [(None, 1), ("student", 1), ("teacher", 2)])
def test_a_checkpoint_of_the_reference_gives_its_student_unless_the_teacher_is_asked_for(saved, kind, which, seed):
    found = read_foreign(saved(checkpoint(kind)), which=which)
    assert found.kind == kind
    assert found.which == (which or "student")
    assert (found.settings.name, found.settings.patch_size, found.settings.image_size) == ("tiny", 16, 64)
    assert_same(found.state, weights(kind, seed))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(saved, prefix):
    assert_same(read_foreign(saved(checkpoint(student=prefix))).state, weights(seed=1))


def test_a_backbone_that_was_compiled_or_sharded_by_itself_is_read(saved):
    state = {}
    for name, tensor in weights(seed=1).items():
        inner = re.sub(
            r"^blocks\.(\d+)\.", r"blocks.\1._orig_mod._fsdp_wrapped_module._checkpoint_wrapped_module.", name
        )
        state[f"module.backbone._orig_mod.{inner}"] = tensor
    assert_same(read_foreign(saved({"student": state})).state, weights(seed=1))


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.backbone.", "model."])
@pytest.mark.parametrize("container", [None, "model", "state_dict"])
@pytest.mark.parametrize("name", ["weights.pth", "model.safetensors"])
def test_parameters_of_one_network_are_read_from_either_format(tmp_path, saved, prefix, container, name):
    state = {f"{prefix}{key}": tensor for key, tensor in weights(seed=3).items()}
    if name.endswith("safetensors"):
        save_file(state, tmp_path / name)
        path = tmp_path / name
    else:
        path = saved({container: state} if container else state, name)
    found = read_foreign(path)
    assert found.which is None
    assert_same(found.state, weights(seed=3))


def test_both_networks_in_one_table_are_told_apart(tmp_path):
    state = {f"student.backbone.{name}": tensor for name, tensor in weights(seed=1).items()}
    state |= {f"teacher.backbone.{name}": tensor for name, tensor in weights(seed=2).items()}
    save_file(state, tmp_path / "both.safetensors")
    assert_same(read_foreign(tmp_path / "both.safetensors", which="teacher").state, weights(seed=2))


def test_a_file_in_the_format_before_zip_is_read(saved):
    path = saved(checkpoint(), _use_new_zipfile_serialization=False)
    assert_same(read_foreign(path).state, weights(seed=1))


def test_half_precision_becomes_single(saved):
    state = {name: tensor.half() for name, tensor in weights().items()}
    assert_same(read_foreign(saved(state)).state, state)


def test_the_tensors_live_on_when_the_file_is_gone(saved):
    path = saved(checkpoint())
    found = read_foreign(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    path.unlink()
    assert_same(found.state, weights(seed=1))


@pytest.mark.parametrize(
    ("name", "patch", "image_size"),
    [("vit_tiny", 16, 224), ("vit_small", 8, 64), ("vit_tiny", 14, 224), ("tiny", 8, 96)],
)
def test_name_patch_and_input_size_follow_from_shapes(saved, name, patch, image_size):
    found = read_foreign(saved(weights(name=name, patch=patch, image_size=image_size)))
    assert (found.settings.name, found.settings.patch_size, found.settings.image_size) == (name, patch, image_size)


@pytest.mark.parametrize("kind", ["boc", "mca"])
def test_the_backbone_made_of_it_gives_the_features_of_the_one_that_was_saved(saved, kind):
    torch.manual_seed(1)
    settings = BackboneSettings(name="tiny", image_size=64)
    original = build_backbone(settings, kind, channels=NAMES, other=False).eval()
    path = saved({"teacher": network(original.state_dict(), "module.")})
    backbone = read_foreign(path).backbone()
    pixels = torch.randn(2, 1 if kind == "boc" else 3, 96, 80)
    with torch.no_grad():
        assert torch.equal(backbone(pixels), original(pixels))
    assert not backbone.training


# -- the hub -----------------------------------------------------------------------------------------------------------

CONFIG = {
    "architectures": ["VisionTransformer"],
    "model_type": "vit",
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 1,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "drop_path_rate": 0.0,
}


def hub_folder(folder, **changed):
    """A snapshot as the hub has it of CaicedoLab/MorphEm."""
    save_file(weights(name="vit_small", image_size=224), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | changed))
    (folder / "vision_transformer.py").write_text("raise SystemExit('code of strangers ran')")
    return folder


def test_a_snapshot_of_morphem_is_read_without_its_code(tmp_path):
    found = read_foreign(hub_folder(tmp_path))
    assert (found.kind, found.settings.name, found.settings.image_size) == ("boc", "vit_small", 224)
    assert_same(found.state, weights(name="vit_small", image_size=224))


def test_a_config_that_is_of_another_architecture_is_named(tmp_path):
    with pytest.raises(ReadError, match=r"num_heads 12 instead of 6"):
        read_foreign(hub_folder(tmp_path, num_heads=12))


def test_a_folder_with_no_or_several_files_of_weights_is_refused(tmp_path, saved):
    with pytest.raises(ReadError, match="there is none"):
        read_foreign(tmp_path)
    saved(weights(), "a.pth")
    assert_same(read_foreign(tmp_path).state, weights())
    saved(weights(), "b.pth")
    with pytest.raises(ReadError, match=r"there are 2 \(a.pth, b.pth\); name the file"):
        read_foreign(tmp_path)


# -- names of channels -------------------------------------------------------------------------------------------------


def test_channels_are_named_by_the_map_beside_the_file(saved):
    path = saved(weights("mca"))
    assert read_foreign(path).channels == ("0", "1", "2")
    path.with_name("channel_map.json").write_text(json.dumps({"nucleus": 2, "actin": 0, "er": 1}))
    assert read_foreign(path).channels == ("actin", "er", "nucleus")
    assert read_foreign(path).backbone().channels == ("actin", "er", "nucleus")
    assert read_foreign(path, channels=["x", "y", "z"]).channels == ("x", "y", "z")


def test_channels_that_do_not_fit_the_weights_are_refused(saved):
    path = saved(weights("mca"))
    with pytest.raises(ReadError, match="tokens of 3 channel types, and 2 names are given"):
        read_foreign(path, channels=["x", "y"])
    path.with_name("channel_map.json").write_text(json.dumps({"nucleus": 2, "actin": 0, "er": 2}))
    with pytest.raises(ReadError, match="not 0 to 2, each once"):
        read_foreign(path)
    path.with_name("channel_map.json").write_text("[")
    with pytest.raises(ReadError, match=r"channel_map.json: is no JSON"):
        read_foreign(path)


# -- what does not fit -------------------------------------------------------------------------------------------------


def without(name):
    return {key: tensor for key, tensor in weights().items() if key != name}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (without("norm.bias"), r"1 missing: norm\.bias$"),
        (without("blocks.2.attn.qkv.bias"), r"1 missing: blocks\.2\.attn\.qkv\.bias$"),
        (without("cls_token"), r"lacks cls_token, and has pos_embed"),
        (weights() | {"fc.weight": torch.zeros(2)}, r"1 too many: fc\.weight$"),
        (weights() | {"blocks.0.ls1.gamma": torch.zeros(64)}, r"1 too many: blocks\.0\.ls1\.gamma$"),
        (weights() | {"norm.bias": torch.zeros(63)}, r"norm\.bias \(63,\) instead of \(64,\)"),
        (weights() | {"norm.bias": torch.zeros(64, dtype=torch.int64)}, r"norm\.bias torch.int64"),
        (weights() | {"blocks.4.norm1.weight": torch.zeros(64)}, "64 wide and 5 blocks deep, .*tiny \\(64 and 4\\)"),
        (weights() | {"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}, "3 channels at once"),
        (weights() | {"patch_embed.proj.weight": torch.zeros(64, 256)}, r"of shape \(64, 256\)"),
        (weights() | {"pos_embed": torch.zeros(1, 18, 64)}, "no CLS token and a square of patches"),
        (weights() | {"pos_embed": torch.zeros(17, 64)}, "one with 3 axes is meant"),
        (weights() | {"norm.bias": torch.full((64,), torch.nan)}, r"no finite numbers: norm\.bias"),
        (weights() | {"norm.bias": "a word"}, "'norm.bias' is a str"),
        (weights() | {"module.norm.bias": torch.zeros(64)}, "'norm.bias' and 'module.norm.bias' are both"),
        (
            {key: value for key, value in weights("mca").items() if "channel_tokens" not in key},
            "channel_tokens is missing",
        ),
        ({"conv1.weight": torch.zeros(3), "bn1.weight": torch.zeros(3)}, "and has conv1.weight, bn1.weight"),
        ({}, "no vision transformer of the reference's"),
        ({"epoch": 3}, "'epoch' is a int"),
        ([1, 2], "holds a list"),
    ],
)
def test_what_does_not_fit_is_named(saved, state, words):
    with pytest.raises(ReadError, match=words) as caught:
        read_foreign(saved(state))
    assert str(caught.value).startswith(str(caught.value.path))
    assert "\n" not in str(caught.value)


def test_a_network_that_the_file_has_not_is_refused(saved):
    with pytest.raises(ReadError, match="has no teacher, only a student"):
        read_foreign(saved({"student": weights()}), which="teacher")
    with pytest.raises(ReadError, match="does not say which; leave out which='teacher'"):
        read_foreign(saved(weights()), which="teacher")
    with pytest.raises(ChammiError, match="there is no 'ema'; there are student and teacher"):
        read_foreign(saved(checkpoint()), which="ema")


@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
def test_missing_empty_and_truncated_files_are_refused(tmp_path, saved, name):
    path = tmp_path / name
    with pytest.raises(ReadError, match="no such file or folder"):
        read_foreign(path)
    path.write_bytes(b"")
    with pytest.raises(ReadError, match="no whole"):
        read_foreign(path)
    if name.endswith("pth"):
        saved(checkpoint(), name)
    else:
        save_file(weights(), path)
    content = path.read_bytes()
    for length in (10, 1000, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        with pytest.raises(ReadError, match="no whole"):
            read_foreign(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ReadError, match="no whole"):
        read_foreign(path)


# -- hostile files -----------------------------------------------------------------------------------------------------


class Hostile:
    """On being read it calls a function, as a pickle may."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(self.place),))


class Evaluated(Hostile):
    def __reduce__(self):
        return (eval, (f"open({str(self.place)!r}, 'w').close()",))


class Partial(Hostile):
    def __reduce__(self):
        return (partial, (pathlib.Path.touch, pathlib.Path(self.place)))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [Hostile, Evaluated, Partial])
@pytest.mark.parametrize("place", ["top", "args", "weight"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, saved, kind, zipped, place):
    trace = tmp_path / "ran"
    hostile = kind(trace)
    content = checkpoint()
    if place == "top":
        content = hostile
    elif place == "args":
        content["args"] = argparse.Namespace(seed=hostile)
    else:
        content["student"]["module.backbone.norm.bias"] = hostile
    path = saved(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ReadError, match="to read would mean to run its code, so it is refused") as caught:
        read_foreign(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)


def test_classes_that_are_allowed_here_are_not_allowed_ever_after(saved):
    path = saved(checkpoint())
    read_foreign(path)
    with pytest.raises(Exception, match="Namespace"):
        torch.load(path, weights_only=True)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
