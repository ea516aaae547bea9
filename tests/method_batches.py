"""Recipes, networks and views that the tests of the methods share: small, and drawn anew from a seed."""

from __future__ import annotations

from typing import Any

import torch

from chammi75.schemas.training import TrainingRecipe
from chammi75.training.backbones import Backbone, build_backbone
from chammi75.training.methods import Method, build_method
from chammi75.training.views import Views

CHANNELS = ("nucleus", "actin", "membrane", "mitochondria")
PATCH, GLOBAL_SIZE, LOCAL_SIZE = 8, 32, 16


def small_recipe(method: str, strategy: str = "boc", **changed: Any) -> TrainingRecipe:
    """A recipe of the smallest backbone; sections in ``changed`` are laid over its own."""
    count = {"dino": (2, 3), "mae": (1, 0), "simclr": (2, 0)}[method]
    given: dict[str, Any] = {
        "title": "a test",
        "store": "none",
        "out": "none",
        "method": method,
        "strategy": strategy,
        "seed": 3,
        "epochs": 4,
        "backbone": {"name": "tiny", "patch_size": PATCH, "image_size": GLOBAL_SIZE, "drop_path": 0.0},
        "views": {
            "global_views": {"count": count[0], "size": GLOBAL_SIZE, "scale": (0.4, 1)},
            "local_views": {"count": count[1], "size": LOCAL_SIZE, "scale": (0.05, 0.4)},
        },
        "dino": {"out_dim": 48, "hidden_dim": 32, "bottleneck_dim": 16},
        "mae": {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 2},
        "simclr": {"hidden_dim": 32, "out_dim": 16},
    }
    for name, section in changed.items():
        given[name] = given.get(name, {}) | section if isinstance(section, dict) else section
    return TrainingRecipe.model_validate(given)


def small_backbone(recipe: TrainingRecipe) -> Backbone:
    """The backbone of a recipe, two blocks deep."""
    backbone = build_backbone(recipe.backbone, recipe.strategy, channels=CHANNELS, masked=recipe.channels.masked)
    backbone.blocks = backbone.blocks[:2]
    return backbone


def small_method(recipe: TrainingRecipe, steps_per_epoch: int = 3, total_steps: int = 12) -> Method:
    """The method of a recipe, with the same weights every time."""
    torch.manual_seed(11)
    return build_method(recipe, lambda: small_backbone(recipe), steps_per_epoch, total_steps)


def random_views(recipe: TrainingRecipe, samples: int = 6, step: int = 0, epoch: int = 0) -> Views:
    """Views of noise. With mca, sample i has i modulo 4 plus 1 channels, of as many as the fullest has."""
    generator = torch.Generator().manual_seed(1000 + step)
    channels = 1 if recipe.strategy == "boc" else min(samples, len(CHANNELS))
    settings = recipe.views
    sizes = [settings.global_views.size] * settings.global_views.count
    sizes += [settings.local_views.size] * settings.local_views.count
    present = torch.arange(channels) <= torch.arange(samples)[:, None] % len(CHANNELS)
    if recipe.strategy == "boc":
        present = torch.ones(samples, 1, dtype=torch.bool)
    orders = torch.rand(samples, len(CHANNELS), generator=generator).argsort(dim=1)[:, :channels]
    pixels = [torch.randn(samples, channels, size, size, generator=generator) for size in sizes]
    return Views(
        pixels=[planes * present[:, :, None, None] for planes in pixels],
        channel_ids=torch.where(present, orders, -1),
        present=present,
        positions=torch.arange(samples) * 7 + 100 * step,
        epoch=epoch,
        constant=torch.zeros((), dtype=torch.int64),
    )


def some_of(views: Views, samples: slice) -> Views:
    """The views of some samples of a batch."""
    return Views(
        pixels=[planes[samples] for planes in views.pixels],
        channel_ids=views.channel_ids[samples],
        present=views.present[samples],
        positions=views.positions[samples],
        epoch=views.epoch,
        constant=views.constant,
    )
