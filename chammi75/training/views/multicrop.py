"""Multi-crop: some large and some small views of each crop, and all that happens to them.

M. Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from chammi75.schemas.training import CropViews, ViewSettings
from chammi75.training.randomness import Draws
from chammi75.training.views.blur import blur_some
from chammi75.training.views.intensity import vary_intensity
from chammi75.training.views.normalisation import Planes, constant_planes, fill_bad_pixels, measure, normalise
from chammi75.training.views.orientation import draw_orientations
from chammi75.training.views.resampling import Resampling, plan_resampling, resample
from chammi75.training.views.saturation import add_saturation_noise
from chammi75.training.views.windows import draw_windows

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.training.crops import Crops

Augmentation = Callable[["Tensor", Planes, ViewSettings, Draws], "Tensor"]

AUGMENTATIONS: tuple[Augmentation, ...] = (blur_some, vary_intensity)
"""What is done to each view, in order.

Functions of the views (N, C, S, S), the planes that they are of, the settings and where random numbers come from, that
give views of the same shape. What the settings do not ask for they leave alone.
"""

_PIXELS_AT_ONCE = {"cpu": 2**20}
_PIXELS_AT_ONCE_ELSEWHERE = 2**24
"""Pixels of the crops that are worked on at the same time: on a CPU they stay in its cache; a GPU needs about 30 bytes
of memory for each."""


class Views(NamedTuple):
    """Views of a batch of samples. (A tuple: what wraps networks for mixed precision goes through their arguments.)

    Attributes
    ----------
    pixels : list of Tensor of float32, shape (N, C, S, S)
        The views, the global ones first.
    channel_ids : Tensor of int64, shape (N, C)
    present : Tensor of bool, shape (N, C)
        Which channels there are; the pixels of others are 0.
    positions : Tensor of int64, shape (N,)
    epoch : int
    constant : Tensor of int64, shape ()
        How many of the planes that are present were empty or had one value everywhere.
    """

    pixels: list[Tensor]
    channel_ids: Tensor
    present: Tensor
    positions: Tensor
    epoch: int
    constant: Tensor


def make_views(crops: Crops, settings: ViewSettings, seed: int) -> Views:
    """The views of a batch of crops, on the crops' device.

    A sample's views depend on its pixels, the seed, the epoch and its position, and on nothing else in the batch. All
    channels of an image are cut out, flipped, turned and blurred alike.

    Parameters
    ----------
    crops : Crops
    settings : ViewSettings
    seed : int

    Examples
    --------
    >>> import torch
    >>> from chammi75.schemas.training import CropViews, ViewSettings
    >>> from chammi75.training.crops import Crops
    >>> batch = {"pixels": torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8), "size": torch.tensor([[8, 8]])}
    >>> batch |= {"saturation": torch.tensor([255.0]), "channel_id": torch.tensor([0]), "position": torch.tensor([3])}
    >>> large, small = CropViews(count=2, size=6, scale=(0.4, 1)), CropViews(count=1, size=4, scale=(0.1, 0.4))
    >>> settings = ViewSettings(global_views=large, local_views=small)
    >>> views = make_views(Crops.from_batch(batch | {"epoch": 0}), settings, seed=0)
    >>> [tuple(view.shape) for view in views.pixels], int(views.constant)
    ([(1, 1, 6, 6), (1, 1, 6, 6), (1, 1, 4, 4)], 0)
    """
    device = crops.pixels.device
    with torch.no_grad(), _full_precision(device):
        planned = list(_planned(crops, settings, seed))
        views = [
            torch.empty(*crops.pixels.shape[:2], size, size, dtype=torch.float32, device=device)
            for _, _, size in planned
        ]
        constant = torch.zeros((), dtype=torch.int64, device=device)
        for samples in _parts(crops):
            part = crops[samples]
            planes, dull = prepare(part, settings, Draws(seed, crops.epoch, part.positions, "crop"))
            constant += (dull & part.present).sum()
            for made, (draws, plan, _) in zip(views, planned, strict=True):
                view = resample(planes.pixels, plan.of(samples))
                for augment in AUGMENTATIONS:
                    view = augment(view, planes, settings, draws.of(samples))
                made[samples] = view
        if crops.present.shape[1] > 1:
            views = [view.mul_(crops.present[:, :, None, None]) for view in views]
    return Views(views, crops.channel_ids, crops.present, crops.positions, crops.epoch, constant)


def prepare(crops: Crops, settings: ViewSettings, draws: Draws) -> tuple[Planes, Tensor]:
    """What happens to whole crops: they become floats, and are cleaned, made noisy and normalised.

    Returns
    -------
    planes : Planes
    constant : Tensor of bool, shape (N, C)
        Which planes had one value everywhere, as they were stored.
    """
    inside = crops.inside()
    pixels = crops.pixels.to(torch.float32, copy=True)
    if crops.pixels.is_floating_point():
        pixels = fill_bad_pixels(pixels, inside)
    constant = constant_planes(pixels, inside)
    if settings.saturation_noise is not None:
        pixels = add_saturation_noise(pixels, inside, crops.saturations, settings.saturation_noise, draws)
    return (normalise if settings.normalise == "plane" else measure)(pixels, inside), constant


def _planned(crops: Crops, settings: ViewSettings, seed: int) -> Iterator[tuple[Draws, Resampling, int]]:
    """Of each view: where its random numbers come from, how it is cut out, and its size."""
    groups: tuple[tuple[str, CropViews], ...] = (("global", settings.global_views), ("local", settings.local_views))
    height, width = crops.pixels.shape[-2:]
    for name, group in groups:
        for number in range(group.count):
            draws = Draws(seed, crops.epoch, crops.positions, f"{name} view {number}")
            windows = draw_windows(crops.sizes, group, draws)
            orientations = draw_orientations(settings, draws)
            plan = plan_resampling(windows, orientations, group.size, settings.interpolation, (height, width))
            yield draws, plan, group.size


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Keeps the matrix products of views in float32 where a trainer has asked for less."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _parts(crops: Crops) -> Iterator[slice]:
    """The batch in parts that memory, or a CPU's cache, has room for."""
    count, *shape = crops.pixels.shape
    budget = _PIXELS_AT_ONCE.get(crops.pixels.device.type, _PIXELS_AT_ONCE_ELSEWHERE)
    step = max(1, budget // max(1, shape[0] * shape[1] * shape[2]))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
