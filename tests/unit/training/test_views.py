from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from chammi75.schemas.training import CropViews, ViewSettings  # noqa: E402
from chammi75.training.crops import Crops  # noqa: E402
from chammi75.training.views import make_views, multicrop  # noqa: E402

GLOBAL = CropViews(count=2, size=32, scale=(0.4, 1.0))
LOCAL = CropViews(count=3, size=16, scale=(0.05, 0.4))


def settings_of(**changes: Any) -> ViewSettings:
    return ViewSettings(**{"global_views": GLOBAL, "local_views": LOCAL} | changes)


def everything() -> ViewSettings:
    return settings_of(right_angle_turns=True, blur=0.5, intensity=0.3)


def crops_of(
    sizes: list[tuple[int, int]],
    channels: int = 1,
    dtype: torch.dtype = torch.uint8,
    greatest: int = 255,
    padded: tuple[int, int] = (0, 0),
) -> Crops:
    """Crops of noise, with some saturated pixels; sample n is the same whatever stands beside it."""
    height = max(h for h, _ in sizes) + padded[0]
    width = max(w for _, w in sizes) + padded[1]
    pixels = torch.zeros(len(sizes), channels, height, width)
    for number, (h, w) in enumerate(sizes):
        generator = torch.Generator().manual_seed(number)
        drawn = torch.randint(0, greatest + 1, (channels, h, w), generator=generator).float()
        drawn[:, : h // 4, : w // 4] = greatest
        pixels[number, :, :h, :w] = drawn
    return Crops(
        pixels=pixels.to(dtype),
        sizes=torch.tensor(sizes),
        saturations=torch.full((len(sizes),), float(greatest)),
        channel_ids=torch.zeros(len(sizes), channels, dtype=torch.int64),
        present=torch.ones(len(sizes), channels, dtype=torch.bool),
        positions=torch.arange(len(sizes)) + 100,
        epoch=2,
    )


SIZES = [(40, 40), (33, 61), (70, 28), (52, 47)]


def reordered(crops: Crops, order: list[int]) -> Crops:
    chosen = torch.tensor(order)
    return replace(
        crops,
        pixels=crops.pixels[chosen],
        sizes=crops.sizes[chosen],
        saturations=crops.saturations[chosen],
        channel_ids=crops.channel_ids[chosen],
        present=crops.present[chosen],
        positions=crops.positions[chosen],
    )


def test_global_views_come_first_and_all_are_finite_floats() -> None:
    views = make_views(crops_of(SIZES, channels=2), settings_of(), 0)
    assert [tuple(view.shape) for view in views.pixels] == [(4, 2, 32, 32)] * 2 + [(4, 2, 16, 16)] * 3
    assert all(view.dtype == torch.float32 and view.isfinite().all() and view.is_contiguous() for view in views.pixels)
    assert views.epoch == 2 and views.positions.tolist() == [100, 101, 102, 103]
    assert views.constant.dtype == torch.int64 and views.constant.shape == () and views.constant == 0


def test_the_same_seed_epoch_and_positions_give_the_same_bits() -> None:
    first, second = (make_views(crops_of(SIZES), everything(), 5) for _ in range(2))
    assert all(map(torch.equal, first.pixels, second.pixels))


@pytest.mark.parametrize("change", ["seed", "epoch", "positions"])
def test_another_seed_epoch_or_position_gives_other_views(change: str) -> None:
    crops, seed = crops_of(SIZES), 5
    other = replace(crops, **{"epoch": {"epoch": 3}, "positions": {"positions": crops.positions + 9}}.get(change, {}))
    first = make_views(crops, settings_of(), seed)
    second = make_views(other, settings_of(), seed + (change == "seed"))
    for one, two in zip(first.pixels, second.pixels, strict=True):
        assert ((one - two).abs().amax((1, 2, 3)) > 0.1).all()


def test_views_of_one_sample_differ() -> None:
    views = make_views(crops_of(SIZES), settings_of(), 0).pixels
    assert (views[0] - views[1]).abs().amax((1, 2, 3)).min() > 0.1
    assert (views[2] - views[3]).abs().amax((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize("alone", [True, False])
def test_views_do_not_depend_on_what_else_is_in_the_batch(alone: bool) -> None:
    crops = crops_of(SIZES, channels=2)
    whole = make_views(crops, everything(), 1).pixels
    for order in [[n] for n in range(4)] if alone else [[3, 1], [2, 0, 1, 3]]:
        for view, expected in zip(make_views(reordered(crops, order), everything(), 1).pixels, whole, strict=True):
            assert torch.allclose(view, expected[torch.tensor(order)], atol=2e-5)


@pytest.mark.parametrize("padded", [(1, 0), (30, 77)])
def test_views_do_not_depend_on_padding(padded: tuple[int, int]) -> None:
    views = make_views(crops_of(SIZES, 2), everything(), 1).pixels
    wide = make_views(crops_of(SIZES, 2, padded=padded), everything(), 1).pixels
    assert all(torch.allclose(one, two, atol=2e-5) for one, two in zip(views, wide, strict=True))


def test_views_do_not_depend_on_how_many_crops_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = crops_of(SIZES, 2)
    at_once = make_views(crops, everything(), 1)
    monkeypatch.setitem(multicrop._PIXELS_AT_ONCE, "cpu", 1)
    one_by_one = make_views(crops, everything(), 1)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(at_once.pixels, one_by_one.pixels, strict=True))
    assert at_once.constant == one_by_one.constant


def test_channels_of_an_image_are_cut_turned_and_blurred_alike() -> None:
    crops = crops_of(SIZES, 2)
    same = replace(crops, pixels=crops.pixels[:, :1].expand(-1, 2, -1, -1).contiguous())
    settings = settings_of(right_angle_turns=True, blur=1.0, saturation_noise=None)
    for view in make_views(same, settings, 0).pixels:
        assert torch.equal(view[:, 0], view[:, 1])


def test_absent_channels_stay_zero_whatever_is_done() -> None:
    crops = crops_of(SIZES, 3)
    present = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [False, True, True]])
    settings = settings_of(intensity=0.5, blur=1.0, right_angle_turns=True)
    views = make_views(replace(crops, present=present), settings, 0)
    for view in views.pixels:
        assert not view[~present].any()
        assert view[present].flatten(1).std(1).min() > 0.01


@pytest.mark.parametrize("normalise", ["plane", "none"])
@pytest.mark.parametrize("value", [0.0, 1.0, 4095.0, 0.1, 65535.0])
def test_constant_planes_are_counted_and_give_no_nan(normalise: str, value: float) -> None:
    crops = crops_of(SIZES, 2, dtype=torch.float32)
    crops.pixels[1, 0] = value * crops.inside()[1, 0]
    crops.pixels[2] = value * crops.inside()[2]
    crops = replace(crops, present=torch.tensor([[True, True], [True, True], [True, False], [True, True]]))
    settings = settings_of(normalise=normalise, intensity=0.4, saturation_noise=None)
    views = make_views(crops, settings, 0)
    assert views.constant == 2
    for view in views.pixels:
        assert view.isfinite().all()
        expected = 0.0 if normalise == "plane" else value
        for plane in (view[1, 0], view[2, 0]):
            assert torch.allclose(plane, torch.tensor(expected), rtol=1e-5, atol=0)


def test_a_plane_that_is_all_saturated_is_counted_though_it_becomes_noise() -> None:
    crops = crops_of(SIZES)
    crops.pixels[0] = 255 * crops.inside()[0]
    views = make_views(crops, settings_of(), 0)
    assert views.constant == 1
    assert all(view.isfinite().all() for view in views.pixels)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_pixels_that_are_not_finite_do_not_spread(bad: float) -> None:
    clean, crops = (crops_of(SIZES, 2, dtype=torch.float32) for _ in range(2))
    crops.pixels[0, 0, 20:24, 20:24] = bad
    crops.pixels[3, 1] = bad
    views, expected = (make_views(c, settings_of(), 0) for c in (crops, clean))
    assert views.constant == 1
    for view, other in zip(views.pixels, expected.pixels, strict=True):
        assert view.isfinite().all()
        assert not view[3, 1].any()
        assert torch.equal(view[1:3], other[1:3]) and torch.equal(view[0, 1], other[0, 1])


def test_tiny_crops_are_enlarged() -> None:
    views = make_views(crops_of([(1, 1), (2, 3), (1, 9)]), everything(), 0)
    assert all(view.isfinite().all() for view in views.pixels)
    assert views.constant >= 1


def test_sixteen_bits_are_as_good_as_floats() -> None:
    crops = crops_of(SIZES, 2, dtype=torch.uint16, greatest=4095)
    floats = replace(crops, pixels=crops.pixels.to(torch.float32))
    views, same = (make_views(c, everything(), 0) for c in (crops, floats))
    assert all(map(torch.equal, views.pixels, same.pixels))


def test_the_crops_are_left_as_they_are() -> None:
    crops = crops_of(SIZES, dtype=torch.float32)
    before = crops.pixels.clone()
    make_views(crops, everything(), 0)
    assert torch.equal(crops.pixels, before)


def test_nothing_is_drawn_from_a_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    make_views(crops_of(SIZES), everything(), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_views_are_float32_under_autocast() -> None:
    plain = make_views(crops_of(SIZES), everything(), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = make_views(crops_of(SIZES), everything(), 0)
    assert all(map(torch.equal, plain.pixels, cast.pixels))


def test_an_augmentation_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_views(crops_of(SIZES), settings_of(), 0)
    negative = (*multicrop.AUGMENTATIONS, lambda view, planes, settings, draws: -view)
    monkeypatch.setattr(multicrop, "AUGMENTATIONS", negative)
    views = make_views(crops_of(SIZES), settings_of(), 0)
    assert all(torch.equal(one, -two) for one, two in zip(views.pixels, plain.pixels, strict=True))


def test_no_local_views_are_no_views() -> None:
    assert (
        len(make_views(crops_of(SIZES), settings_of(local_views=LOCAL.model_copy(update={"count": 0})), 0).pixels) == 2
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_the_values_on_a_device_are_never_waited_for(dtype: torch.dtype) -> None:
    """Tensors without values refuse whatever would need one on the host."""
    views = make_views(crops_of(SIZES, 2, dtype=dtype).to("meta"), everything(), 0)
    assert [tuple(view.shape) for view in views.pixels] == [(4, 2, 32, 32)] * 2 + [(4, 2, 16, 16)] * 3
