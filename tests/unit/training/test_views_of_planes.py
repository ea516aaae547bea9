"""What happens to whole crops: saturation noise and normalisation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from chammi75.training.randomness import Draws  # noqa: E402
from chammi75.training.views.normalisation import constant_planes, fill_bad_pixels, measure, normalise  # noqa: E402
from chammi75.training.views.saturation import add_saturation_noise, replace_anywhere, replace_few  # noqa: E402

SHARES = (200 / 255, 1.0)


def draws_of(count: int, first: int = 0) -> Draws:
    return Draws(3, 1, torch.arange(count) + first, "crop")


def whole(pixels: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(pixels), 1, *pixels.shape[2:], dtype=torch.bool)


def test_saturated_pixels_become_uniform_between_200_and_255() -> None:
    pixels = torch.full((2, 1, 100, 100), 255.0)
    noise = add_saturation_noise(pixels, whole(pixels), torch.full((2,), 255.0), SHARES, draws_of(2))
    assert 200 <= float(noise.min()) < 200.05 and 254.95 < float(noise.max()) <= 255
    counts = torch.histc(noise, 20, 200, 255)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 43.8  # chi-squared, 19 degrees, p = 0.001
    assert not torch.equal(noise[0], noise[1])


def test_each_sample_has_its_own_saturation_and_floats_have_none() -> None:
    pixels = torch.tensor([254.0, 255.0, 4094.0, 4095.0]).repeat(3, 1, 50, 1)
    saturations = torch.tensor([255.0, 4095.0, torch.nan])
    noisy = add_saturation_noise(pixels.clone(), whole(pixels), saturations, SHARES, draws_of(3))
    assert torch.equal(noisy[2], pixels[2])
    assert torch.equal(noisy[1, ..., :3], pixels[1, ..., :3])
    assert (noisy[1, ..., 3] >= 4095 * 200 / 255 - 1e-3).all() and (noisy[1, ..., 3] <= 4095).all()
    assert torch.equal(noisy[0, ..., 0], pixels[0, ..., 0]) and (noisy[0, ..., 1:] <= 255).all()


def test_padding_gets_no_noise() -> None:
    pixels = torch.full((1, 2, 4, 6), 255.0)
    inside = whole(pixels)
    inside[..., 3:] = False
    noisy = add_saturation_noise(pixels, inside, torch.tensor([255.0]), SHARES, draws_of(1))
    assert (noisy[..., 3:] == 255).all() and (noisy[..., :3] < 255).all()


def test_the_way_of_a_gpu_gives_the_same_noise() -> None:
    pixels = torch.randint(0, 256, (3, 2, 20, 30), generator=torch.Generator().manual_seed(0)).float()
    pixels[:, :, 5:9] = 255
    saturated = pixels >= torch.tensor([255.0, 250.0, torch.nan])[:, None, None, None]
    limits = torch.tensor([255.0, 250.0, torch.nan])
    draws = draws_of(3, 40)
    few = replace_few(pixels.clone(), saturated, limits, SHARES, draws)
    assert torch.allclose(few, replace_anywhere(pixels, saturated, limits, SHARES, draws), rtol=1e-6)
    assert torch.equal(few != pixels, saturated)


@pytest.mark.parametrize(
    ("mean", "deviation"), [(100, 30), (60000, 1), (60000, 0.02), (0.5, 0.1), (1e-2, 1e-3), (-40, 3)]
)
def test_planes_are_normalised_as_in_double_precision(mean: float, deviation: float) -> None:
    generator = np.random.default_rng(0)
    sizes = [(300, 211), (37, 260), (5, 7)]
    pixels = torch.zeros(3, 2, 300, 260)
    inside = torch.zeros(3, 1, 300, 260, dtype=torch.bool)
    for number, (h, w) in enumerate(sizes):
        pixels[number, :, :h, :w] = torch.from_numpy(generator.normal(mean, deviation, (2, h, w)))
        inside[number, :, :h, :w] = True
    result = normalise(pixels.clone(), inside)
    for number, (h, w) in enumerate(sizes):
        for channel in range(2):
            plane = pixels[number, channel, :h, :w].double().numpy()
            expected = (plane - plane.mean()) / np.sqrt(((plane - plane.mean()) ** 2).mean() + 1e-7)
            assert np.abs(result.pixels[number, channel, :h, :w].numpy() - expected).max() < 2e-5
    assert not result.pixels[~inside.expand(-1, 2, -1, -1)].any()
    assert torch.equal(result.deviation, torch.ones(3, 2, 1, 1)) and not result.mean.any()


def test_an_outlier_in_the_corner_does_not_spoil_the_rest() -> None:
    pixels = 100 + torch.randint(0, 3, (1, 1, 200, 200), generator=torch.Generator().manual_seed(0)).float()
    pixels[..., 0, 0] = 65535
    plane = pixels.double()
    expected = (plane - plane.mean()) / (plane.var(correction=0) + 1e-7).sqrt()
    assert torch.allclose(normalise(pixels, whole(pixels)).pixels.double(), expected, atol=1e-5)


def test_normalisation_is_that_of_instance_norm() -> None:
    pixels = torch.rand(4, 3, 33, 44, generator=torch.Generator().manual_seed(0)) * 255
    expected = torch.nn.functional.instance_norm(pixels.double(), eps=1e-7).float()
    assert torch.allclose(normalise(pixels, whole(pixels)).pixels, expected, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 65535.0, 1e14])
def test_a_constant_plane_gives_zeros_exactly(value: float) -> None:
    pixels = torch.full((1, 1, 33, 47), value)
    planes = normalise(pixels, whole(pixels))
    assert not planes.pixels.any() and not planes.deviation.any()


def test_one_pixel_that_differs_makes_a_plane_vary() -> None:
    pixels = torch.full((1, 1, 300, 300), 65535.0)
    pixels[..., 7, 8] -= 1
    assert not constant_planes(pixels, whole(pixels)).any()
    expected = -1 / (1 / 300**2 + 1e-7) ** 0.5
    assert float(normalise(pixels, whole(pixels)).pixels[0, 0, 7, 8]) == pytest.approx(expected, rel=1e-3)


def test_what_is_measured_are_the_mean_and_biased_deviation_of_what_is_inside() -> None:
    pixels = torch.tensor([[[[2.0, 4.0, 9.0]]]])
    planes = measure(pixels, torch.tensor([[[[True, True, False]]]]))
    assert planes.pixels is pixels
    assert planes.mean.item() == 3 and planes.deviation.item() == 1


def test_bad_pixels_count_in_no_mean_and_leave_constant_planes_constant() -> None:
    pixels = torch.full((1, 1, 31, 31), 0.1)
    pixels[..., 0, 0], pixels[..., 4, 4] = torch.nan, torch.inf
    assert constant_planes(fill_bad_pixels(pixels, whole(pixels)), whole(pixels)).all()
    nothing = torch.full((1, 1, 3, 3), torch.nan)
    assert not fill_bad_pixels(nothing, whole(nothing)).any()
