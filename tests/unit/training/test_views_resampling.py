"""Where views are cut out of crops, and how they are resized, turned, blurred and varied."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")
torchvision = pytest.importorskip("torchvision", reason="views are compared with torchvision's")

from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as tv  # noqa: E402

from chammi75.schemas.training import CropViews, ViewSettings  # noqa: E402
from chammi75.training.randomness import Draws  # noqa: E402
from chammi75.training.views.bands import Bands, add_up, multiply  # noqa: E402
from chammi75.training.views.blur import blur_some, gaussian_blur  # noqa: E402
from chammi75.training.views.intensity import vary_intensity  # noqa: E402
from chammi75.training.views.normalisation import Planes, measure  # noqa: E402
from chammi75.training.views.orientation import Orientations, draw_orientations  # noqa: E402
from chammi75.training.views.resampling import plan_resampling, resample  # noqa: E402
from chammi75.training.views.windows import Windows, draw_windows  # noqa: E402

WINDOWS = [(0, 0, 50, 90), (11, 7, 20, 33), (60, 80, 1, 1), (3, 40, 64, 2), (29, 0, 48, 48)]
"""Top, left, height and width, in planes of 80 x 100."""


def draws_of(count: int, name: str = "view") -> Draws:
    return Draws(0, 0, torch.arange(count), name)


def pixels_of(count: int, channels: int = 2) -> torch.Tensor:
    return torch.rand(count, channels, 80, 100, generator=torch.Generator().manual_seed(1)) * 3 - 1


def no_turns(count: int) -> Orientations:
    return Orientations(torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool), None)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [8, 48, 160])
def test_windows_are_resized_as_torchvision_does_it(interpolation: Any, size: int) -> None:
    pixels, windows = pixels_of(5), Windows(*torch.tensor(WINDOWS).T)
    plan = plan_resampling(windows, no_turns(5), size, interpolation, (80, 100))
    mode = v2.InterpolationMode(interpolation)
    views = resample(pixels, plan)
    for number, window in enumerate(WINDOWS):
        expected = tv.resized_crop(pixels[number], *window, [size, size], interpolation=mode, antialias=True)
        assert torch.allclose(views[number], expected, atol=1e-4)


def test_the_way_of_a_gpu_gives_the_same_views() -> None:
    pixels, windows = pixels_of(5), Windows(*torch.tensor(WINDOWS).T)
    plan = plan_resampling(windows, no_turns(5), 24, "bicubic", (80, 100))
    by_rows, by_matrices = (way(pixels, plan.vertical, plan.horizontal) for way in (add_up, multiply))
    assert torch.allclose(by_rows, by_matrices, atol=1e-5)


def test_bands_are_the_matrices_that_they_say() -> None:
    bands = Bands(torch.tensor([[1, 2]]), torch.tensor([[[3.0, 4.0], [5.0, 0.0]]]))
    assert bands.matrices(3).tolist() == [[[0.0, 3.0, 4.0], [0.0, 0.0, 5.0]]]


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("left_right", [False, True])
def test_flips_are_exact(upside_down: bool, left_right: bool) -> None:
    pixels, windows = pixels_of(5), Windows(*torch.tensor(WINDOWS).T)
    turned = Orientations(torch.full((5,), upside_down), torch.full((5,), left_right), None)
    plain = resample(pixels, plan_resampling(windows, no_turns(5), 24, "bicubic", (80, 100)))
    flipped = resample(pixels, plan_resampling(windows, turned, 24, "bicubic", (80, 100)))
    axes = [axis for axis, asked in ((-2, upside_down), (-1, left_right)) if asked]
    assert torch.allclose(flipped, plain.flip(axes), atol=1e-5)


def test_turns_are_those_of_rot90_after_the_flips() -> None:
    count = 64
    draws = draws_of(count)
    settings = ViewSettings(right_angle_turns=True)
    pixels = torch.rand(count, 1, 80, 100, generator=torch.Generator().manual_seed(1))
    windows = Windows(*torch.tensor([(5, 6, 40, 60)] * count).T)
    plain = resample(pixels, plan_resampling(windows, no_turns(count), 16, "bilinear", (80, 100)))
    plan = plan_resampling(windows, draw_orientations(settings, draws), 16, "bilinear", (80, 100))
    turned = resample(pixels, plan)
    flips, turns = draws.uniforms("flips", 2), (draws.uniforms("turn", 1)[:, 0] * 4).long()
    seen = set()
    for number in range(count):
        axes = [axis for axis, chance in ((-1, flips[number, 0]), (-2, flips[number, 1])) if chance < 0.5]
        # the quarter that is none is the last one
        expected = torch.rot90(plain[number].flip(axes), (int(turns[number]) + 1) % 4, (-2, -1))
        assert torch.allclose(turned[number], expected, atol=1e-5)
        seen.add((len(axes), int(turns[number])))
    assert {turn for _, turn in seen} == {0, 1, 2, 3}


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_flips_are_as_frequent_as_asked(chance: float) -> None:
    settings = ViewSettings(horizontal_flip=chance, vertical_flip=1 - chance)
    orientations = draw_orientations(settings, draws_of(4000))
    assert float(orientations.left_right.float().mean()) == pytest.approx(chance, abs=0.03)
    assert float(orientations.upside_down.float().mean()) == pytest.approx(1 - chance, abs=0.03)


def kolmogorov_smirnov(first: torch.Tensor, second: torch.Tensor) -> float:
    """The greatest distance of two empirical distributions."""
    values = torch.cat([first, second]).unique()
    ranks = [torch.searchsorted(one.sort().values, values, right=True) / len(one) for one in (first, second)]
    return float((ranks[0] - ranks[1]).abs().max())


@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((200, 200), (0.05, 0.4), (3 / 4, 4 / 3)),
        ((150, 260), (0.4, 1.0), (3 / 4, 4 / 3)),
        ((40, 400), (0.4, 1.0), (3 / 4, 4 / 3)),
        ((300, 90), (0.3, 0.6), (0.2, 3.0)),
    ],
)
def test_windows_are_distributed_as_those_of_torchvision(
    shape: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    count = 3000
    settings = CropViews(count=1, size=8, scale=scale, ratio=ratio)
    windows = draw_windows(torch.tensor([shape]).expand(count, 2), settings, draws_of(count))
    torch.manual_seed(0)
    sampler, plane = v2.RandomResizedCrop(8, scale=scale, ratio=ratio), torch.zeros(1, *shape)
    params = [sampler.make_params([plane]) for _ in range(count)]
    for name in ("top", "left", "height", "width"):
        theirs = torch.tensor([float(drawn[name]) for drawn in params])
        ours = getattr(windows, name).float()
        assert kolmogorov_smirnov(ours, theirs) < 1.95 * math.sqrt(2 / count)  # p = 0.001
    areas, proportions = windows.height * windows.width, windows.width / windows.height
    theirs = torch.tensor([float(drawn["height"] * drawn["width"]) for drawn in params])
    assert kolmogorov_smirnov(areas.float(), theirs) < 1.95 * math.sqrt(2 / count)
    theirs = torch.tensor([drawn["width"] / drawn["height"] for drawn in params])
    assert kolmogorov_smirnov(proportions, theirs) < 1.95 * math.sqrt(2 / count)


@pytest.mark.parametrize("shape", [(10, 400), (400, 10), (30, 40), (1, 1), (1, 50)])
def test_where_no_window_fits_it_is_torchvisions_in_the_middle(shape: tuple[int, int]) -> None:
    settings = CropViews(count=1, size=8, scale=(1.0, 1.0), ratio=(0.9, 1.1))
    ours = draw_windows(torch.tensor([shape]), settings, draws_of(1))
    theirs = v2.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(0.9, 1.1)).make_params([torch.zeros(1, *shape)])
    assert {name: int(value) for name, value in ours._asdict().items()} == theirs


def test_windows_lie_in_their_crops() -> None:
    sizes = torch.randint(1, 60, (3000, 2), generator=torch.Generator().manual_seed(0))
    windows = draw_windows(sizes, CropViews(count=1, size=8, scale=(0.05, 1.0), ratio=(0.2, 5)), draws_of(3000))
    assert (windows.top >= 0).all() and (windows.left >= 0).all()
    assert (windows.height >= 1).all() and (windows.width >= 1).all()
    assert (windows.top + windows.height <= sizes[:, 0]).all() and (windows.left + windows.width <= sizes[:, 1]).all()


def test_each_sample_is_blurred_by_its_own_sigma_as_torchvision_does_it() -> None:
    views = pixels_of(4)[..., :64, :64].contiguous()
    sigmas = torch.tensor([0.3, 1.0, 1.7, 2.0])
    blurred = gaussian_blur(views, sigmas, 8)
    for number, sigma in enumerate(sigmas.tolist()):
        assert torch.allclose(blurred[number], tv.gaussian_blur(views[number], [17, 17], [sigma]), atol=1e-5)


def test_views_that_are_not_blurred_are_not_changed() -> None:
    count = 200
    views = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    planes = measure(views, torch.ones(count, 1, 16, 16, dtype=torch.bool))
    blurred = blur_some(views, planes, ViewSettings(blur=0.3, blur_sigma=(0.5, 2.0)), draws_of(count))
    changed = (blurred != views).flatten(1).any(1)
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.1)
    assert torch.equal(blurred[~changed], views[~changed])
    assert blur_some(views, planes, ViewSettings(), draws_of(count)) is views


def test_views_smaller_than_the_blur_are_blurred_too() -> None:
    assert gaussian_blur(torch.ones(1, 1, 3, 3), torch.tensor([2.0]), 8).allclose(torch.ones(1, 1, 3, 3))


def test_intensity_varies_by_plane_around_the_mean_of_the_whole_crop() -> None:
    count = 2000
    views = torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 40
    planes = Planes(views, torch.full((count, 2, 1, 1), 40.0), torch.full((count, 2, 1, 1), 5.0))
    varied = vary_intensity(views, planes, ViewSettings(intensity=0.2), draws_of(count))
    contrast = (varied.amax((2, 3)) - varied.amin((2, 3))) / (views.amax((2, 3)) - views.amin((2, 3)))
    brightness = ((varied - 40) - (views - 40) * contrast[..., None, None]).mean((2, 3)) / 5
    for drawn, middle in ((contrast, 1.0), (brightness, 0.0)):
        assert float(drawn.min()) == pytest.approx(middle - 0.2, abs=0.005)
        assert float(drawn.max()) == pytest.approx(middle + 0.2, abs=0.005)
        assert float(drawn.mean()) == pytest.approx(middle, abs=0.01)
        assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.1
    assert abs(float(torch.corrcoef(torch.stack([contrast[:, 0], brightness[:, 0]]))[0, 1])) < 0.1
