"""Masked autoencoders, against the paper's definitions in plain NumPy loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("timm", reason="backbones are made of timm's blocks")

import torch
from method_batches import GLOBAL_SIZE, PATCH, random_views, small_method, small_recipe, some_of

from chammi75.errors import RecipeError
from chammi75.training.methods.mae import Mae, draw_mask, masked_loss, patchify, sine_positions
from chammi75.training.progress import Progress

PATCHES = (GLOBAL_SIZE // PATCH) ** 2
NOW = Progress(0, 3, 12)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _patches_of_loops(pixels: np.ndarray, size: int) -> np.ndarray:
    samples, channels, height, width = pixels.shape
    return np.array(
        [
            [
                pixels[sample, channel, row : row + size, column : column + size].reshape(-1)
                for channel in range(channels)
                for row in range(0, height, size)
                for column in range(0, width, size)
            ]
            for sample in range(samples)
        ]
    )


def _loss_of_loops(predictions: np.ndarray, patches: np.ndarray, masked: np.ndarray, norm_pixels: bool) -> float:
    errors = []
    for sample, token in zip(*np.nonzero(masked), strict=True):
        target = patches[sample, token].astype(np.float64)
        if norm_pixels:
            target = (target - target.mean()) / math.sqrt(target.var(ddof=1) + 1e-6)
        errors.append(((predictions[sample, token].astype(np.float64) - target) ** 2).mean())
    return float(np.mean(errors))


def test_patches_come_channel_by_channel_and_row_by_row() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 3, 24, 16)).astype(np.float32)
    np.testing.assert_array_equal(patchify(torch.from_numpy(pixels), 8).numpy(), _patches_of_loops(pixels, 8))


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_the_loss_is_the_mean_squared_error_of_masked_patches(norm_pixels: bool) -> None:
    generator = np.random.default_rng(1)
    predictions, patches = (generator.normal(size=(3, 10, 64)).astype(np.float32) * 3 for _ in range(2))
    masked = generator.random((3, 10)) < 0.6
    found = masked_loss(*map(torch.from_numpy, (predictions, patches, masked)), norm_pixels=norm_pixels)
    assert found.item() == pytest.approx(_loss_of_loops(predictions, patches, masked, norm_pixels), rel=1e-5)


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    patches = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    masked = torch.tensor([[True, False, True], [False, False, True]])
    loss = lambda values: masked_loss(values, patches, masked, norm_pixels=True)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (predictions,))


def test_a_constant_patch_has_a_finite_target() -> None:
    loss = masked_loss(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 7.0), torch.ones(1, 1) > 0, norm_pixels=True)
    assert loss.item() == 0


def test_the_loss_is_float32_where_the_network_is_not() -> None:
    masked = torch.ones(1, 2) > 0
    assert masked_loss(torch.zeros(1, 2, 4).bfloat16(), torch.ones(1, 2, 4), masked, norm_pixels=False) == 1
    found = masked_loss(torch.zeros(1, 2, 4).bfloat16(), torch.ones(1, 2, 4), masked, norm_pixels=False)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.9, 0.01, 0.999])
def test_each_sample_keeps_its_share_of_the_tokens_that_it_has(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.tensor([[True] * 4, [False, True, False, False], [True, False, True, True]])
    scores = torch.rand(3, 4 * 9, generator=generator)
    mask = draw_mask(scores, present, 9, ratio)
    for sample in range(3):
        tokens = [token for token in range(36) if present[sample, token // 9]]
        kept = min(max(1, int(len(tokens) * (1 - ratio))), len(tokens) - 1)
        lowest = sorted(tokens, key=lambda token: scores[sample, token].item())[:kept]
        assert mask.order[sample][mask.seen[sample]].tolist() == lowest
        assert mask.masked[sample].nonzero().flatten().tolist() == sorted(set(tokens) - set(lowest))


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    found = sine_positions(16, 3, 5).numpy()
    for row in range(3):
        for column in range(5):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (i / 4) for i in range(4)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            np.testing.assert_allclose(found[row * 5 + column], expected, atol=1e-6)


def _mask_of(method: Mae, views: object) -> torch.Tensor:
    kept = []
    handle = method.autoencoder.register_forward_pre_hook(lambda _, given: kept.append(given[3].masked))
    with torch.no_grad():
        method(views, NOW)
    handle.remove()
    return kept[0]


def test_the_mask_depends_on_seed_epoch_and_position_alone() -> None:
    recipe = small_recipe("mae")
    method, views = small_method(recipe), random_views(recipe)
    mask = _mask_of(method, views)
    assert torch.equal(_mask_of(method, some_of(views, slice(2, 5))), mask[2:5])
    assert not torch.equal(_mask_of(method, views._replace(epoch=1)), mask)
    assert not torch.equal(_mask_of(small_method(small_recipe("mae", seed=4)), views), mask)
    assert (mask.sum(dim=1) == PATCHES - PATCHES // 4).all()


def test_the_encoder_gets_visible_tokens_only_and_the_loss_is_that_of_its_predictions() -> None:
    recipe = small_recipe("mae")
    method, views = small_method(recipe), random_views(recipe)
    seen: dict[str, torch.Tensor] = {}
    method.backbone.blocks[0].register_forward_pre_hook(lambda _, given: seen.update(tokens=given[0]))
    method.autoencoder.register_forward_hook(lambda _, given, out: seen.update(masked=given[3].masked, out=out[1]))
    loss = method(views, NOW)["loss"]
    assert seen["tokens"].shape == (6, 1 + PATCHES // 4, 64)
    tokens, _ = method.backbone.patch_tokens(views.pixels[0])
    for sample in range(6):
        visible = tokens[sample][~seen["masked"][sample]]
        found = seen["tokens"][sample, 1:]
        assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in visible.tolist()}
    patches = _patches_of_loops(views.pixels[0].numpy(), PATCH)
    expected = _loss_of_loops(seen["out"].detach().numpy(), patches, seen["masked"].numpy(), True)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_predictions_do_not_depend_on_what_is_masked() -> None:
    recipe = small_recipe("mae", "mca", channels={"sampling": False})
    method, views = small_method(recipe), random_views(recipe)
    outs: list[torch.Tensor] = []
    method.autoencoder.register_forward_hook(lambda _, given, out: outs.append(out[1].detach()))
    masked = _mask_of(method, views)
    hidden = masked.unflatten(1, (4, GLOBAL_SIZE // PATCH, -1)).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    _mask_of(method, views._replace(pixels=[views.pixels[0] + 100 * hidden]))
    _mask_of(method, views._replace(pixels=[views.pixels[0] + ~hidden]))
    there = views.present.repeat_interleave(PATCHES, dim=1)
    assert torch.equal(outs[0][there], outs[1][there])
    assert not torch.allclose(outs[0][there], outs[2][there])


def test_absent_channels_are_neither_masked_nor_counted_nor_seen() -> None:
    recipe = small_recipe("mae", "mca", channels={"sampling": False})
    method, views = small_method(recipe), random_views(recipe)
    present = views.present.repeat_interleave(PATCHES, dim=1)
    outs: list[torch.Tensor] = []
    method.autoencoder.register_forward_hook(lambda _, given, out: outs.append(out[1].detach()))
    masked = _mask_of(method, views)
    assert not (masked & ~present).any()
    assert masked.sum(dim=1).tolist() == [PATCHES * n - PATCHES * n // 4 for n in views.present.sum(dim=1).tolist()]
    for sample in range(6):  # as each would be alone, without any padding
        count = int(views.present[sample].sum())
        alone = some_of(views, slice(sample, sample + 1))
        alone = alone._replace(
            pixels=[alone.pixels[0][:, :count]],
            channel_ids=alone.channel_ids[:, :count],
            present=alone.present[:, :count],
        )
        torch.testing.assert_close(_mask_of(method, alone)[0], masked[sample, : count * PATCHES])
        torch.testing.assert_close(outs[-1][0], outs[0][sample, : count * PATCHES], rtol=1e-4, atol=1e-5)


def test_the_decoder_knows_the_place_and_the_type_of_each_channel() -> None:
    recipe = small_recipe("mae", "mca", channels={"sampling": False})
    method, views = small_method(recipe), random_views(recipe, samples=4)
    with torch.no_grad():  # then codes are all alike, and only places and types tell predictions apart
        method.autoencoder.decoder.embed.weight.zero_()
    outs: list[torch.Tensor] = []
    method.autoencoder.register_forward_hook(lambda _, given, out: outs.append(out[1].detach()))
    masked = _mask_of(method, views)[3].nonzero().flatten()
    predictions = outs[0][3]
    first, second = masked[:2]
    assert not torch.allclose(predictions[first], predictions[second])
    twins = [(i, j) for i in masked for j in masked if i < j and i % PATCHES == j % PATCHES]
    assert twins
    for one, other in twins:  # one place, two channels
        assert not torch.allclose(predictions[one], predictions[other], atol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_channels_that_sampling_leaves_out_are_as_if_absent(masked: bool) -> None:
    recipe = small_recipe("mae", "mca", channels={"sampling": True, "masked": masked})
    method, views = small_method(recipe), random_views(recipe, samples=16)
    chosen = method.channels_of(views, 0)[1]
    assert (chosen.sum(dim=1) < views.present.sum(dim=1)).any()
    there = _mask_of(method, views).unflatten(1, (4, PATCHES)).any(dim=2)
    assert not (there & ~chosen).any()
    blank = views._replace(pixels=[views.pixels[0] + 9 * ~chosen[:, :, None, None]])
    with torch.no_grad():
        assert method(blank, NOW)["loss"].item() == pytest.approx(method(views, NOW)["loss"].item(), rel=1e-6)


@pytest.mark.parametrize("strategy", ["boc", "mca"])
def test_it_learns_and_every_parameter_has_a_gradient(strategy: str) -> None:
    recipe = small_recipe("mae", strategy)
    method = small_method(recipe)
    optimizer = torch.optim.AdamW(method.trained.parameters(), lr=3e-3)
    ramp = torch.linspace(-1, 1, GLOBAL_SIZE)
    views = random_views(recipe)
    views = views._replace(pixels=[(0.1 * views.pixels[0] + ramp + ramp[:, None]) * views.present[:, :, None, None]])
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        found = method(views._replace(epoch=step), NOW)
        found["loss"].backward()
        optimizer.step()
        losses.append(found["loss"].item())
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert losses[-1] < 0.8 * losses[0]
    assert 0 < found["feature_std"].item() < 1
    assert method.backbones() == {"encoder": method.backbone}


def test_settings_that_do_not_fit_say_why() -> None:
    with pytest.raises(RecipeError, match="decoder_width: 30 must be a multiple of 4"):
        small_method(small_recipe("mae", mae={"decoder_width": 30}))
    with pytest.raises(RecipeError, match="decoder_heads, 5"):
        small_method(small_recipe("mae", mae={"decoder_heads": 5}))
    with pytest.raises(RecipeError, match="one patch"):
        small_method(small_recipe("mae", views={"global_views": {"count": 1, "size": PATCH, "scale": (0.4, 1)}}))
