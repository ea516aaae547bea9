"""What both strategies share: the CLS token, the table of positions, the blocks and the last norm.

Dosovitskiy et al. 2021 (An Image is Worth 16x16 Words), initialised as DINO is (Caron et al. 2021). Blocks are timm's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from chammi75.errors import ChammiError
from chammi75.schemas.training import BACKBONES

if TYPE_CHECKING:
    from chammi75.schemas.training import BackboneSettings

_MLP_RATIO = 4
_NORM_EPS = 1e-6
_INIT_STD = 0.02


class Backbone(nn.Module, ABC):  # type: ignore[misc,unused-ignore]
    """A vision transformer; what becomes of planes before the blocks, `patch_tokens`, is the strategy's.

    Parameters
    ----------
    settings : BackboneSettings
    channels : tuple of str
        Names of the channel table; empty where there is none.
    reference_positions : bool
        Interpolate positions the reference's way (see `interpolate_positions`).

    Attributes
    ----------
    settings : BackboneSettings
    width : int
        Numbers of a token, and of a feature.
    patch_size : int
        Edge of a patch in pixels.
    channels : tuple of str
    reference_positions : bool
    """

    def __init__(self, settings: BackboneSettings, channels: tuple[str, ...], *, reference_positions: bool) -> None:
        super().__init__()
        width, depth, heads = BACKBONES[settings.name]
        self.settings = settings
        self.width = width
        self.patch_size = settings.patch_size
        self.channels = channels
        self.reference_positions = reference_positions
        patches = (settings.image_size // settings.patch_size) ** 2
        norm = partial(nn.LayerNorm, eps=_NORM_EPS)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.patch_embed = self._make_patch_embed()
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                mlp_ratio=_MLP_RATIO,
                qkv_bias=True,
                drop_path=settings.drop_path * number / max(depth - 1, 1),
                norm_layer=norm,
            )
            for number in range(depth)
        )
        self.norm = norm(width)
        self._initialise()

    @abstractmethod
    def _make_patch_embed(self) -> nn.Module:
        """The module ``patch_embed``; runs when ``width``, ``patch_size`` and ``channels`` are set."""

    def _initialise(self) -> None:
        """As DINO does; the convolution of the patches keeps PyTorch's own."""
        nn.init.trunc_normal_(self.pos_embed, std=_INIT_STD)
        nn.init.trunc_normal_(self.cls_token, std=_INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_INIT_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    @abstractmethod
    def patch_tokens(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens of the patches, with their positions, before the blocks.

        Parameters
        ----------
        pixels : Tensor of floats, shape (N, C, H, W)
            Height or width that is no multiple of the patch size is filled up with zeros around the image, the odd
            pixel right and below.
        channel_ids : Tensor of int64, shape (N, C), optional
        present : Tensor of bool, shape (N, C), optional

        Returns
        -------
        tokens : Tensor of shape (N, L, width)
            Channel by channel, and within a channel row by row.
        valid : Tensor of bool, shape (N, L), or None
            Which tokens take part; None: all.
        """

    def encode(self, tokens: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """The CLS token in front, all blocks, and the last norm.

        Parameters
        ----------
        tokens : Tensor of shape (N, L, width)
            From `patch_tokens`, all or some of them.
        valid : Tensor of bool, shape (N, L), optional
            Tokens that are not valid are never attended to; what comes out in their own places means nothing.

        Returns
        -------
        Tensor of shape (N, 1 + L, width)
        """
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls.to(tokens.dtype), tokens], dim=1)
        attended = None
        if valid is not None:
            attended = functional.pad(valid, (1, 0), value=True)[:, None, None, :]
        saving = self.settings.activation_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, attended, use_reentrant=False) if saving else block(tokens, attended)
        return self.norm(tokens)

    def forward(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features: the normed CLS token. Parameters as for `patch_tokens`.

        Returns
        -------
        Tensor of shape (N, width)
        """
        tokens, valid = self.patch_tokens(pixels, channel_ids, present)
        return self.encode(tokens, valid)[:, 0]

    def _filled(self, pixels: torch.Tensor) -> torch.Tensor:
        """``pixels``, with zeros around them up to a multiple of the patch size."""
        if pixels.ndim != 4 or not all(pixels.shape[1:]):
            raise ChammiError(
                f"a backbone takes pixels of shape (images, channels, height, width), and these are of shape "
                f"{tuple(pixels.shape)}"
            )
        if not pixels.is_floating_point():
            raise ChammiError(f"a backbone takes normalised pixels as floats, and these are {pixels.dtype}")
        down, across = (-edge % self.patch_size for edge in pixels.shape[2:])
        if not (down or across):
            return pixels
        return functional.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))
