"""Draws the pictures of ``docs/augmentation.md`` from the embedded dataset, with the library's own code.

Run ``python docs/draw_views.py``; it takes as long as ``mini`` takes to build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_pictures import Picture, beside, small_png

from chammi75.files import write_atomically
from chammi75.loading import GuidedCrop, TrainingStream
from chammi75.schemas.training import CropViews, ViewSettings
from chammi75.training.crops import Crops
from chammi75.training.randomness import Draws
from chammi75.training.views import make_views
from chammi75.training.views.multicrop import prepare

FOLDER = Path(__file__).resolve().parent / "images"
TILE = 140
GAP = 6
CROP, LARGE, SMALL = TILE, TILE, 64
SHOWN = "mini0004"
"""The study of which a plane is shown."""


def crops_of(study: str, count: int = 1) -> Crops:
    """Crops of a study's first planes, without the variation of their size, so that pictures are of one size."""
    stream = TrainingStream(
        "mini", {"study": study}, batch_size=count, crop=GuidedCrop(CROP, jitter=0), shuffle="none", split=None
    )
    return Crops.from_batch(next(iter(stream)))


def saturated(crops: Crops) -> Crops:
    """The same crops from a camera that was exposed too long: the brightest twentieth is cut off at 8 bits."""
    pixels = crops.pixels.to(torch.float32)
    limit = torch.quantile(pixels.flatten(1), 0.95, dim=1)
    eight_bits = (pixels / limit[:, None, None, None] * 255).clamp(max=255).round().to(torch.uint8)
    return Crops(
        eight_bits,
        crops.sizes,
        torch.full_like(crops.saturations, 255),
        crops.channel_ids,
        crops.present,
        crops.positions,
        crops.epoch,
    )


def tile(plane: torch.Tensor, limits: tuple[float, float], edge: int = TILE) -> Picture:
    """A plane in grey, each pixel as a square of the size that fits best, in the middle of a white tile."""
    low, high = limits
    grey = ((plane.float().numpy() - low) / max(high - low, 1e-9) * 255).clip(0, 255).astype(np.uint8)
    times = max(1, edge // max(grey.shape))
    grey = grey.repeat(times, 0).repeat(times, 1)[:edge, :edge]
    framed = np.full((edge + GAP, edge + GAP, 3), 255, np.uint8)
    top, left = (edge + GAP - grey.shape[0]) // 2, (edge + GAP - grey.shape[1]) // 2
    framed[top : top + grey.shape[0], left : left + grey.shape[1]] = grey[..., None]
    return framed


def limits_of(plane: torch.Tensor) -> tuple[float, float]:
    """What is shown black and white: nearly all values, and the same ones in pictures that stand side by side."""
    low, high = torch.quantile(plane.float().flatten(), torch.tensor([0.002, 0.998])).tolist()
    return low, high


def views_of(crops: Crops, **changes: Any) -> list[torch.Tensor]:
    """The planes of the first sample's views."""
    plain: dict[str, Any] = {
        "global_views": CropViews(count=1, size=LARGE, scale=(1, 1), ratio=(1, 1)),
        "local_views": CropViews(count=0, size=SMALL, scale=(1, 1)),
        "horizontal_flip": 0,
        "vertical_flip": 0,
    }
    return [view[0, 0] for view in make_views(crops, ViewSettings(**(plain | changes)), seed=1).pixels]


def draw_noise(crops: Crops) -> Picture:
    """Before and after saturation noise."""
    settings = ViewSettings(normalise="none")
    noisy = prepare(crops, settings, Draws(1, 0, crops.positions, "crop"))[0].pixels[0, 0]
    return beside([tile(plane, (60, 255)) for plane in (crops.pixels[0, 0], noisy)])


def draw_normalised(dim: Crops, bright: Crops) -> Picture:
    """Two planes in the same grey values, before and after."""
    before = [crops.pixels[0, 0].float() for crops in (dim, bright)]
    after = [views_of(crops)[0] for crops in (dim, bright)]
    top = float(max(plane.max() for plane in before))
    return beside([*(tile(plane, (0, top)) for plane in before), *(tile(plane, (-1.5, 4)) for plane in after)])


def draw_crops(crops: Crops) -> Picture:
    """The crop, its two large views and four of its small ones."""
    whole = views_of(crops)[0]
    limits = limits_of(whole)
    large = CropViews(count=2, size=LARGE, scale=(0.4, 1.0))
    small = CropViews(count=4, size=SMALL, scale=(0.05, 0.4))
    views = views_of(crops, global_views=large, local_views=small)
    little = [tile(view, limits, SMALL) for view in views[2:]]
    square = np.concatenate([np.concatenate(little[:2], axis=1), np.concatenate(little[2:], axis=1)])
    return beside([tile(view, limits) for view in (whole, *views[:2])] + [square])


def draw_option(crops: Crops, epochs: int = 4, **changes: Any) -> Picture:
    """The crop as it is, and with an option in some epochs."""
    shown = [views_of(crops)[0]]
    for epoch in range(epochs):
        later = Crops(**{**vars(crops), "epoch": epoch})
        shown.append(views_of(later, **changes)[0])
    return beside([tile(view, limits_of(shown[0])) for view in shown])


def main() -> None:
    """Write ``docs/images/views-*.png``."""
    cells = crops_of(SHOWN)
    over = saturated(cells)
    dim = Crops(**{**vars(cells), "pixels": (cells.pixels.float() * 0.2).to(cells.pixels.dtype)})
    pictures = {
        "saturation": draw_noise(over),
        "normalisation": draw_normalised(dim, cells),
        "crops": draw_crops(cells),
        "flips": draw_option(cells, horizontal_flip=0.5, vertical_flip=0.5),
        "turns": draw_option(cells, right_angle_turns=True),
        "blur": draw_option(cells, blur=1.0, blur_sigma=(0.5, 3.0)),
        "intensity": draw_option(cells, intensity=0.5),
    }
    for name, picture in pictures.items():
        write_atomically(FOLDER / f"views-{name}.png", small_png(picture))


if __name__ == "__main__":
    main()
