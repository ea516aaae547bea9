"""How the backbones behave: channels, sizes, initial weights, checkpointing, and what they say of bad input."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch", reason="backbones need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from chammi75.errors import ChammiError, RecipeError
from chammi75.schemas.training import BACKBONES, BackboneSettings
from chammi75.training.backbones import build_backbone

NAMES = ["actin", "er", "mitochondria", "nucleus", "rna"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(
    strategy="boc", *, drop_path=0.0, seed=0, checkpointing=False, name="tiny", image_size=64, patch=16, **options
):
    torch.manual_seed(seed)
    settings = BackboneSettings(
        name=name,
        patch_size=patch,
        image_size=image_size,
        drop_path=drop_path,
        activation_checkpointing=checkpointing,
    )
    if strategy == "mca":
        options.setdefault("channels", NAMES)
    return build_backbone(settings, strategy, **options)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- what is built -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_parameters_have_the_names_and_shapes_of_the_references_checkpoints(strategy, patch):
    backbone = built(strategy, patch=patch, image_size=4 * patch)
    shapes = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    expected = {
        "cls_token": (1, 1, 64),
        "pos_embed": (1, 17, 64),
        "patch_embed.proj.weight": (64, 1, patch, patch) if strategy == "boc" else (64, 1, 1, patch, patch),
        "patch_embed.proj.bias": (64,),
        "norm.weight": (64,),
        "norm.bias": (64,),
    }
    if strategy == "mca":
        expected["patch_embed.channel_tokens"] = (1, 64, 6, 1, 1)
    for number in range(4):
        for part, shape in {
            "norm1": (64,),
            "norm2": (64,),
            "attn.qkv": (192, 64),
            "attn.proj": (64, 64),
            "mlp.fc1": (256, 64),
            "mlp.fc2": (64, 256),
        }.items():
            expected[f"blocks.{number}.{part}.weight"] = shape
            expected[f"blocks.{number}.{part}.bias"] = shape[:1]
    assert shapes == expected
    assert (backbone.width, backbone.patch_size) == (64, patch)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_name_gives_its_width_depth_and_heads(name):
    with torch.device("meta"):
        backbone = built(name=name, image_size=224)
    width, depth, heads = BACKBONES[name]
    assert backbone.width == width
    assert len(backbone.blocks) == depth
    assert {block.attn.num_heads for block in backbone.blocks} == {heads}
    if name == "vit_small":
        assert sum(parameter.numel() for parameter in backbone.parameters()) == 21_469_056  # ViT-S/16 of one channel


def test_weights_are_drawn_as_dino_draws_them():
    backbone = built("mca", name="vit_tiny", image_size=224)
    for name, parameter in backbone.named_parameters():
        if "norm" in name:
            assert (parameter == float(name.endswith("weight"))).all(), name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert (parameter == 0).all(), name
        elif "patch_embed" not in name:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
            assert abs(parameter.mean().item()) < 0.005, name
    kernel = backbone.patch_embed.proj.weight
    assert kernel.abs().max() <= 1 / 16  # PyTorch's own: uniform within 1 / sqrt(256 pixels)
    assert kernel.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.02)
    tokens = backbone.patch_embed.channel_tokens[0, :, :, 0, 0]
    torch.testing.assert_close(tokens.T @ tokens, torch.eye(6), rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_weights():
    one, same, another = built(seed=3).state_dict(), built(seed=3).state_dict(), built(seed=4).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["cls_token"], another["cls_token"])


def test_drop_path_grows_linearly_with_the_depth():
    backbone = built(drop_path=0.3, name="vit_tiny")
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in backbone.blocks]
    assert rates == pytest.approx([0.3 * number / 11 for number in range(12)])
    assert rates == [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.blocks]


def test_drop_path_acts_in_training_only():
    backbone = built(drop_path=0.9)
    pixels = noise(16, 1, 64, 64)
    assert not torch.equal(backbone(pixels), backbone(pixels))
    backbone.eval()
    assert torch.equal(backbone(pixels), backbone(pixels))


def test_the_channel_table_ends_with_other_unless_it_is_a_foreign_one():
    assert built("mca").channels == (*NAMES, "other")
    assert built("mca", channels=[*NAMES, "other"]).channels == (*NAMES, "other")
    assert built("mca", other=False).channels == tuple(NAMES)
    assert built("mca", channels=built("mca").channels, other=False).channels == (*NAMES, "other")
    assert built("boc").channels == ()


# -- channels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_features_of_an_image_alone_are_those_it_has_in_a_batch_padded_to_five_channels(count, reference):
    backbone = built("mca", reference_positions=reference).eval()
    pixels, ids = noise(1, count, 64, 64), torch.tensor([[3, 0, 4][:count]])
    padded = torch.cat([pixels, 1e6 * noise(1, 5 - count, 64, 64)], 1)
    batch = torch.cat([padded, noise(1, 5, 64, 64, seed=2)])
    batch_ids = torch.tensor([[*ids[0].tolist(), -1, 7, -1, 99][:5], [0, 1, 2, 3, 4]])
    present = torch.tensor([[True] * count + [False] * (5 - count), [True] * 5])
    with torch.no_grad():
        alone = backbone(pixels, ids)[0]
        together = backbone(batch, batch_ids, present)[0]
        known = backbone(pixels, ids, torch.ones(1, count, dtype=torch.bool))[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)
    torch.testing.assert_close(known, alone, rtol=0, atol=2e-6)


def test_what_absent_channels_hold_changes_not_one_bit():
    backbone = built("mca").eval()
    pixels, ids = noise(2, 5, 64, 64), torch.tensor([[0, 1, 2, 3, 4]] * 2)
    present = torch.tensor([[True, False, True, True, False]] * 2)
    other = pixels.clone()
    other[:, 1], other[:, 4] = float("nan"), float("inf")
    with torch.no_grad():
        assert torch.equal(backbone(pixels, ids, present), backbone(other, ids * present, present))


def test_absent_channels_get_no_gradient_and_make_none():
    backbone = built("mca")
    pixels = noise(1, 5, 64, 64).requires_grad_()
    present = torch.tensor([[True, True, False, True, False]])
    backbone(pixels, torch.tensor([[0, 1, 2, 3, 4]]), present)[:, :9].sum().backward()
    assert (pixels.grad[0].abs().amax((1, 2)) > 0).tolist() == present[0].tolist()
    moved = backbone.patch_embed.channel_tokens.grad[0].abs().amax((0, 2, 3)) > 0
    assert moved.tolist() == [True, True, False, True, False, False]


def test_masks_work_without_fused_attention_too():
    backbone = built("mca").eval()
    pixels, ids = noise(1, 5, 64, 64), torch.tensor([[0, 1, 2, 3, 4]])
    present = torch.tensor([[True, False, True, True, False]])
    with torch.no_grad():
        fused = backbone(pixels, ids, present)
        with sdpa_kernel(SDPBackend.MATH):
            plain = backbone(pixels, ids, present)
        for block in backbone.blocks:
            block.attn.fused_attn = False
        by_hand = backbone(pixels, ids, present)
    torch.testing.assert_close(plain, fused, rtol=0, atol=2e-6)
    torch.testing.assert_close(by_hand, fused, rtol=0, atol=2e-6)


def test_an_image_without_any_channel_gives_numbers():
    backbone = built("mca").eval()
    present = torch.tensor([[False, False], [True, True]])
    features = backbone(noise(2, 2, 64, 64), torch.tensor([[0, 1]] * 2), present)
    assert features.isfinite().all()


def test_the_order_of_channels_does_not_matter_and_their_types_do():
    backbone = built("mca").eval()
    pixels, ids = noise(1, 3, 64, 64), torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        features = backbone(pixels, ids)
        turned = backbone(pixels.flip(1), ids.flip(1))
        renamed = backbone(pixels, ids.flip(1))
    torch.testing.assert_close(turned, features, rtol=0, atol=2e-6)
    assert (renamed - features).abs().max() > 1e-4


def test_ids_below_zero_are_the_type_other():
    backbone = built("mca").eval()
    pixels = noise(1, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(pixels, torch.tensor([[0, -1]])), backbone(pixels, torch.tensor([[0, len(NAMES)]])))


def test_without_ids_channels_are_taken_in_the_order_of_the_table():
    backbone = built("mca").eval()
    pixels = noise(1, 5, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(pixels), backbone(pixels, torch.arange(5)[None]))
        assert backbone(noise(1, 6, 64, 64)).shape == (1, 64)


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_a_feature_is_the_first_token_of_the_encoded_patches(strategy):
    backbone = built(strategy).eval()
    pixels = noise(2, 1 if strategy == "boc" else 5, 64, 96)
    with torch.no_grad():
        tokens, valid = backbone.patch_tokens(pixels)
        encoded = backbone.encode(tokens, valid)
        assert torch.equal(encoded[:, 0], backbone(pixels))
    assert encoded.shape == (2, 1 + tokens.shape[1], 64)
    assert tokens.shape == (2, pixels.shape[1] * 24, 64)


def test_some_of_the_tokens_can_be_encoded_alone():
    backbone = built("mca").eval()
    present = torch.tensor([[True, True, False], [True, True, True]])
    tokens, valid = backbone.patch_tokens(noise(2, 3, 64, 64), torch.tensor([[0, 1, 2]] * 2), present)
    assert valid.tolist() == present.repeat_interleave(16, 1).tolist()
    kept = torch.tensor([0, 5, 17, 30, 33, 40])
    with torch.no_grad():
        features = backbone.encode(tokens[:, kept], valid[:, kept])
        first = backbone.encode(tokens[:1, kept[:4]])
    torch.testing.assert_close(features[:1, :5], first, rtol=0, atol=2e-6)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_activation_checkpointing_changes_neither_features_nor_gradients(strategy):
    pixels = noise(4, 1 if strategy == "boc" else 3, 64, 64)
    ids = torch.tensor([[0, 1, 2]] * 4)[:, : pixels.shape[1]]
    present = torch.ones_like(ids, dtype=torch.bool)
    found = []
    for checkpointing in (False, True):
        backbone = built(strategy, drop_path=0.4, checkpointing=checkpointing)
        runs = []
        for block in backbone.blocks:
            block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(5)
        features = backbone(pixels, ids, present)
        features[:, :9].sum().backward()  # over all of a normed token the sum never changes
        found.append((features, [parameter.grad for parameter in backbone.parameters()], len(runs)))
    (plain, gradients, once), (saved, same_gradients, twice) = found
    assert torch.equal(plain, saved)
    assert all(torch.equal(one, other) for one, other in zip(gradients, same_gradients, strict=True))
    assert (once, twice) == (4, 8)


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_every_parameter_learns(strategy):
    backbone = built(strategy)
    pixels = noise(2, 1, 96, 80) if strategy == "boc" else noise(2, 6, 96, 80)
    backbone(pixels)[:, :9].sum().backward()
    still = [name for name, parameter in backbone.named_parameters() if not parameter.grad.abs().max() > 1e-5]
    assert still == []


def test_mixed_precision_gives_nearly_the_same_features():
    backbone = built("mca").eval()
    pixels, ids = noise(1, 2, 64, 64), torch.tensor([[0, 1]])
    present = torch.tensor([[True, False]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = backbone(pixels, ids, present)
    with torch.no_grad():
        full = backbone(pixels, ids, present)
    assert mixed.isfinite().all()
    assert (mixed - full).abs().max() < 0.1


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "pixels", "ids", "present", "words"),
    [
        ("boc", torch.zeros(2, 3, 64, 64), None, None, "planes one by one"),
        ("boc", torch.zeros(3, 64, 64), None, None, r"shape \(images, channels, height, width\)"),
        ("boc", torch.zeros(2, 1, 0, 64), None, None, r"\(2, 1, 0, 64\)"),
        ("boc", torch.zeros(2, 1, 64, 64, dtype=torch.uint8), None, None, "uint8"),
        ("mca", torch.zeros(2, 3, 64, 64), None, None, "3 channels need channel_ids"),
        ("mca", torch.zeros(2, 3, 64, 64), torch.zeros(2, 2, dtype=torch.long), None, "channel_ids: of shape"),
        ("mca", torch.zeros(1, 2, 64, 64), torch.tensor([[0, 6]]), None, "6 is none of the 6 channel types"),
        (
            "mca",
            torch.zeros(1, 2, 64, 64),
            torch.tensor([[0, 1]]),
            torch.ones(1, 3, dtype=torch.bool),
            "present: of shape",
        ),
    ],
)
def test_input_that_does_not_fit_is_refused_in_words(strategy, pixels, ids, present, words):
    with pytest.raises(ChammiError, match=words):
        built(strategy)(pixels, ids, present)


def test_a_table_without_other_refuses_unknown_types():
    with pytest.raises(ChammiError, match="-1 is none of the 5 channel types"):
        built("mca", other=False)(torch.zeros(1, 2, 64, 64), torch.tensor([[0, -1]]))


@pytest.mark.parametrize(
    ("strategy", "channels", "words"),
    [
        ("both", NAMES, "there is no 'both'"),
        ("mca", [], "needs the names"),
        ("mca", ["dna", "rna", "dna"], "dna: more than once"),
    ],
)
def test_settings_that_make_no_backbone_are_refused_in_words(strategy, channels, words):
    with pytest.raises(RecipeError, match=words):
        built(strategy, channels=channels)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    from chammi75.errors import MissingDependencyError

    for name in [name for name in sys.modules if name.startswith("chammi75.training.backbones")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"timm.* is missing: pip install"):
        __import__("chammi75.training.backbones")
