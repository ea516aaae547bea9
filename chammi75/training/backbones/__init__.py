"""Backbones: the vision transformers that turn planes into features.

``positions`` fits the table of positions to an input's size, ``backbone`` is what both strategies share, ``vit`` takes
each plane alone (bag of channels) and ``channelvit`` all channels of an image in one sequence (multi-channel
attention). Both are made of timm's blocks, and their parameters have the names of the reference's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from chammi75.errors import MissingDependencyError, RecipeError
from chammi75.schemas.training import BackboneSettings

try:
    from chammi75.training.backbones.backbone import Backbone
    from chammi75.training.backbones.channelvit import OTHER, ChannelVisionTransformer
    from chammi75.training.backbones.vit import VisionTransformer
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"torch", "timm"}:
        raise
    raise MissingDependencyError(
        f'backbones need PyTorch and timm, and {error.name} is missing: pip install "chammi75[train]"'
    ) from error

__all__ = ["OTHER", "Backbone", "ChannelVisionTransformer", "VisionTransformer", "build_backbone"]


def build_backbone(
    settings: BackboneSettings,
    strategy: Literal["boc", "mca"],
    *,
    channels: Sequence[str] = (),
    masked: bool = True,
    reference_positions: bool = True,
    other: bool = True,
) -> Backbone:
    """A vision transformer with fresh weights, drawn from PyTorch's global generator.

    Parameters
    ----------
    settings : BackboneSettings
        Name, patch size, input size of the table of positions, drop path, activation checkpointing.
    strategy : {"boc", "mca"}
        ``boc``: one plane in, each alone. ``mca``: all channels of an image in one sequence (ChannelViT).
    channels : sequence of str
        mca: the channel types that have tokens of their own; boc has none and takes no heed.
    masked : bool
        mca: channels that an image lacks do not take part. False: they do, as in the reference.
    reference_positions : bool
        Interpolate positions the reference's way (see `interpolate_positions`), which released weights need.
    other : bool
        mca: add a last channel type ``other`` for any that is not in ``channels``, unless it ends with that already.
        False: the table is ``channels`` as they are, as in the reference's checkpoints.

    Returns
    -------
    Backbone
        In training mode, on PyTorch's default device.

    Raises
    ------
    RecipeError
        If the strategy is unknown, or mca has no channels or one of them twice.
    MissingDependencyError
        On import of this package, where PyTorch or timm is not installed.

    Examples
    --------
    >>> import torch
    >>> backbone = build_backbone(BackboneSettings(name="tiny", image_size=64), "mca", channels=["nucleus", "actin"])
    >>> backbone.width, backbone.patch_size, backbone.channels
    (64, 16, ('nucleus', 'actin', 'other'))
    >>> backbone(torch.zeros(5, 2, 96, 80), torch.tensor([[0, 1]] * 5)).shape
    torch.Size([5, 64])
    """
    if strategy == "boc":
        return VisionTransformer(settings, reference_positions=reference_positions)
    if strategy != "mca":
        raise RecipeError(
            f"strategy: there is no {strategy!r}; there are boc (each plane alone) and mca (all together)"
        )
    table = tuple(channels)
    if other and table[-1:] != (OTHER,):
        table += (OTHER,)
    if not table or table == (OTHER,):
        raise RecipeError("channels: mca needs the names of the channel types that have tokens of their own")
    twice = sorted({name for name in table if table.count(name) > 1})
    if twice:
        raise RecipeError(f"channels: {', '.join(twice)}: more than once; each channel type has one token")
    return ChannelVisionTransformer(settings, table, masked=masked, reference_positions=reference_positions)
