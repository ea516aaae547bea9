"""The backbones give what their papers' formulas give, worked out here in float64, image by image."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch", reason="backbones need PyTorch")
pytest.importorskip("timm", reason="backbones need timm")

import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

from chammi75.schemas.training import BACKBONES, BackboneSettings
from chammi75.training.backbones import build_backbone
from chammi75.training.backbones.positions import interpolate_positions

TOLERANCE = 2e-5
SIZES = [(224, 224), (96, 96), (64, 64), (96, 80), (160, 160)]
NAMES = ["actin", "er", "mitochondria", "nucleus", "rna"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_lively_weights(backbone, seed=0):
    """Weights far from their initial ones, so that every term of the formulas counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.2 * noise + name.endswith("weight"))
            elif parameter.ndim == 2:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(0.3 * noise)
    return backbone.eval()


def settings(name="tiny", **changed):
    return BackboneSettings(name=name, **{"drop_path": 0.0, **changed})


# -- the formulas ------------------------------------------------------------------------------------------------------


def cubic_weight(distance, a=-0.75):
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def cubic_matrix(count_in, count_out, scale):
    """Rows of weights of Keys' cubic convolution, whose borders are repeated."""
    matrix = np.zeros((count_out, count_in))
    for row in range(count_out):
        place = (row + 0.5) / scale - 0.5
        for near in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[row, min(max(near, 0), count_in - 1)] += cubic_weight(place - near)
    return matrix


def positions_of(table, height, width, shift):
    edge = round(len(table) ** 0.5)
    down = cubic_matrix(edge, height, (height + shift) / edge)
    across = cubic_matrix(edge, width, (width + shift) / edge)
    grid = table.reshape(edge, edge, -1)
    return np.einsum("hi,wj,ijd->hwd", down, across, grid).reshape(height * width, -1)


def normed(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + torch.from_numpy(x / np.sqrt(2)).erf().numpy())


def through_blocks(tokens, w, depth, heads):
    for number in range(depth):
        p = f"blocks.{number}."
        x = normed(tokens, w[p + "norm1.weight"], w[p + "norm1.bias"])
        q, k, v = np.split(x @ w[p + "attn.qkv.weight"].T + w[p + "attn.qkv.bias"], 3, axis=-1)
        heard = []
        for head in np.split(np.arange(x.shape[-1]), heads):
            scores = q[:, head] @ k[:, head].T / np.sqrt(len(head))
            chances = np.exp(scores - scores.max(-1, keepdims=True))
            heard.append(chances / chances.sum(-1, keepdims=True) @ v[:, head])
        tokens = tokens + np.concatenate(heard, -1) @ w[p + "attn.proj.weight"].T + w[p + "attn.proj.bias"]
        x = normed(tokens, w[p + "norm2.weight"], w[p + "norm2.bias"])
        x = gelu(x @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"])
        tokens = tokens + x @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]
    return normed(tokens, w["norm.weight"], w["norm.bias"])


def patches_of(plane, w, patch):
    kernel = w["patch_embed.proj.weight"].reshape(-1, patch * patch)
    rows = []
    for y in range(0, plane.shape[0], patch):
        for x in range(0, plane.shape[1], patch):
            rows.append(kernel @ plane[y : y + patch, x : x + patch].ravel() + w["patch_embed.proj.bias"])
    return np.array(rows)


def feature_of(backbone, planes, ids=None, shift=0.1):
    """The feature of one image (C, H, W); ``ids`` None: a bag's plane; id None: a padded channel that takes part."""
    w = {name: value.detach().double().numpy() for name, value in backbone.state_dict().items()}
    _, depth, heads = BACKBONES[backbone.settings.name]
    table, patch = w["pos_embed"][0], backbone.patch_size
    height, width = planes.shape[1] // patch, planes.shape[2] // patch
    native = shift and height == width and len(planes) * height * width == len(table) - 1
    positions = table[1:] if native else positions_of(table[1:], height, width, shift)
    tokens = []
    for number, plane in enumerate(np.asarray(planes, np.float64)):
        embedded = patches_of(plane, w, patch)
        if ids is not None and ids[number] is not None:
            embedded = embedded + w["patch_embed.channel_tokens"][0, :, ids[number], 0, 0]
        tokens.append(embedded + positions)
    cls = w["cls_token"][0] + table[:1]
    return through_blocks(np.concatenate([cls, *tokens]), w, depth, heads)[0]


def assert_close(given, expected):
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(given.detach().numpy(), expected, rtol=0, atol=TOLERANCE)


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "shift"), [(True, 0.1), (False, 0.0)])
@pytest.mark.parametrize("grid", [(14, 14), (6, 6), (4, 4), (6, 5), (10, 10), (1, 1), (16, 20)])
def test_positions_are_those_of_cubic_convolution_with_and_without_the_shift(grid, reference, shift):
    table = torch.randn(1, 196, 8, generator=torch.Generator().manual_seed(1))
    given = interpolate_positions(table, *grid, reference=reference, at_native=True)
    expected = positions_of(table[0].double().numpy(), *grid, shift)
    np.testing.assert_allclose(given[0].numpy(), expected, rtol=0, atol=1e-5)


def test_the_shift_of_the_reference_makes_a_difference():
    table = torch.randn(1, 196, 8, generator=torch.Generator().manual_seed(1))
    apart = interpolate_positions(table, 6, 6) - interpolate_positions(table, 6, 6, reference=False)
    assert apart.abs().max() > 0.05


def test_the_table_is_given_as_it_is_at_its_own_size_only():
    table = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(1))
    assert interpolate_positions(table, 4, 4) is table
    assert interpolate_positions(table, 4, 4, reference=False, at_native=True) is table
    assert not torch.allclose(interpolate_positions(table, 2, 8), table)


# -- bag of channels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "patch"), [("tiny", 16), ("tiny", 14), ("tiny", 8), ("vit_tiny", 16)])
def test_a_bag_of_channels_gives_what_timm_gives_with_the_same_weights(name, patch):
    size = 112
    ours = with_lively_weights(build_backbone(settings(name, patch_size=patch, image_size=size), "boc"))
    width, depth, heads = BACKBONES[name]
    theirs = TimmVisionTransformer(
        img_size=size,
        patch_size=patch,
        in_chans=1,
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs(pixels)
        given = ours(pixels)
        tokens = ours.encode(*ours.patch_tokens(pixels))
        every = theirs.forward_features(pixels)
    torch.testing.assert_close(given, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(tokens, every, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_bag_of_channels_is_the_published_formula_at_any_input_size(size, reference):
    backbone = with_lively_weights(build_backbone(settings(), "boc", reference_positions=reference))
    pixels = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(3))
    shift = 0.1 if reference else 0.0
    with torch.no_grad():
        given = backbone(pixels)
    assert_close(given, [feature_of(backbone, image.numpy(), shift=shift) for image in pixels])


def test_the_formula_holds_for_a_deeper_network_and_patches_of_8():
    backbone = with_lively_weights(build_backbone(settings("vit_tiny", patch_size=8, image_size=64), "boc"))
    pixels = torch.randn(1, 1, 96, 80, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert_close(backbone(pixels), [feature_of(backbone, pixels[0].numpy())])


def test_sizes_that_are_no_multiple_of_the_patch_are_filled_up_around_the_image():
    backbone = with_lively_weights(build_backbone(settings(), "boc"))
    pixels = torch.randn(1, 1, 90, 71, generator=torch.Generator().manual_seed(4))
    filled = np.zeros((1, 96, 80))
    filled[:, 3:93, 4:75] = pixels[0].numpy()  # 6 rows: 3 and 3; 9 columns: 4 left, 5 right
    with torch.no_grad():
        assert_close(backbone(pixels), [feature_of(backbone, filled)])


# -- ChannelViT --------------------------------------------------------------------------------------------------------


def mixed_batch(size, seed=5):
    """Three images of 3, 1 and 5 channels in one batch; what padded channels hold is not to matter."""
    pixels = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(seed))
    ids = torch.tensor([[4, 0, 2, -1, -1], [3, -1, -1, -1, -1], [1, 3, 0, 4, 2]])
    return pixels, ids, ids >= 0


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_channelvit_with_masks_gives_each_image_what_the_formula_gives_it_alone(size, reference):
    backbone = build_backbone(settings(), "mca", channels=NAMES, reference_positions=reference)
    backbone = with_lively_weights(backbone)
    pixels, ids, present = mixed_batch(size)
    with torch.no_grad():
        given = backbone(pixels, ids, present)
    shift = 0.1 if reference else 0.0
    expected = [
        feature_of(backbone, planes[there].numpy(), numbers[there].tolist(), shift)
        for planes, numbers, there in zip(pixels, ids, present, strict=True)
    ]
    assert_close(given, expected)


@pytest.mark.parametrize("size", SIZES)
def test_channelvit_without_masks_lets_padded_channels_take_part_as_the_reference_does(size):
    backbone = with_lively_weights(build_backbone(settings(), "mca", channels=NAMES, masked=False, other=False))
    pixels, ids, present = mixed_batch(size)
    with torch.no_grad():
        given = backbone(pixels, ids, present)
    pixels = torch.where(present[:, :, None, None], pixels, 0)
    expected = [
        feature_of(backbone, planes.numpy(), [n if n >= 0 else None for n in numbers.tolist()])
        for planes, numbers in zip(pixels, ids, strict=True)
    ]
    assert_close(given, expected)
    masked = with_lively_weights(build_backbone(settings(), "mca", channels=NAMES, other=False))
    with torch.no_grad():
        apart = (masked(pixels, ids, present) - given).abs().amax(1)
    assert (apart[:2] > 0.01).all()
    assert apart[2] < TOLERANCE  # nothing of the third is padded


def test_channelvit_interpolates_at_native_size_unless_there_is_one_channel():
    backbone = with_lively_weights(build_backbone(settings(image_size=64), "mca", channels=NAMES))
    table = backbone.pos_embed[:, 1:]
    pixels = torch.zeros(1, 2, 64, 64)
    blank = with_lively_weights(build_backbone(settings(image_size=64), "mca", channels=NAMES))
    with torch.no_grad():
        blank.pos_embed.zero_()
        ids = torch.tensor([[0, 1]])
        one = backbone.patch_tokens(pixels[:, :1], ids[:, :1])[0] - blank.patch_tokens(pixels[:, :1], ids[:, :1])[0]
        two = backbone.patch_tokens(pixels, ids)[0] - blank.patch_tokens(pixels, ids)[0]
    torch.testing.assert_close(one, table.detach())
    shifted = interpolate_positions(table, 4, 4, at_native=True).detach()
    torch.testing.assert_close(two, torch.cat([shifted, shifted], 1))
    assert (shifted - table).abs().max() > 0.005


@pytest.mark.parametrize("masked", [True, False])
def test_four_channels_at_half_size_share_the_table_only_where_the_reference_is_reproduced(masked):
    backbone = with_lively_weights(build_backbone(settings(image_size=64), "mca", channels=NAMES, masked=masked))
    pixels = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(6))
    ids = torch.tensor([[0, 1, 2, 3]])
    tokens = backbone.patch_tokens(pixels, ids)[0]
    with torch.no_grad():
        table = backbone.pos_embed[:, 1:].clone()
        backbone.pos_embed.zero_()
    bare = backbone.patch_tokens(pixels, ids)[0]
    shared = torch.allclose(tokens - bare, table, atol=1e-5)
    assert shared is not masked


def test_tokens_of_the_patches_lie_channel_by_channel():
    backbone = with_lively_weights(build_backbone(settings(image_size=64), "mca", channels=NAMES))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    ids = torch.tensor([[2, 0, 4], [1, 3, 0]])
    tokens, valid = backbone.patch_tokens(pixels, ids)
    assert valid is None
    assert tokens.shape == (2, 48, 64)
    with torch.no_grad():
        expected = torch.nn.functional.conv3d(
            pixels[:, None], backbone.patch_embed.proj.weight, backbone.patch_embed.proj.bias, stride=(1, 16, 16)
        )
        expected = expected + backbone.patch_embed.channel_tokens[0, :, ids].permute(1, 0, 2, 3, 4)
        expected = expected.flatten(2).transpose(1, 2)
        where = interpolate_positions(backbone.pos_embed[:, 1:], 4, 4, at_native=True)
    torch.testing.assert_close(tokens, expected + where.repeat(1, 3, 1), rtol=0, atol=TOLERANCE)
