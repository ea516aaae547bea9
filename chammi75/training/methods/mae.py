"""Masked autoencoders: from a quarter of the patches, the pixels of the others.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

The encoder sees only the patches that are left; a small decoder, which is thrown away afterwards, gets their codes, a
token for each patch that is missing, and where each is. With strategy mca the patches of all channels of an image are
masked together, as one sequence, and the decoder is told the type of each one's channel too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Block
from torch import nn

from chammi75.errors import RecipeError
from chammi75.training.methods.collectives import sum_over_ranks, world
from chammi75.training.methods.method import Method, at_least_float32, feature_std
from chammi75.training.randomness import uniforms

if TYPE_CHECKING:
    from chammi75.schemas.training import MaeSettings, TrainingRecipe
    from chammi75.training.backbones import Backbone
    from chammi75.training.progress import Progress
    from chammi75.training.views import Views

_NORM_EPS = 1e-6
_MLP_RATIO = 4
_INIT_STD = 0.02


class Mae(Method):
    """An encoder and a decoder.

    Which patches are masked depends on the seed, the epoch and the sample's position alone. Channels that an image
    lacks, or that hierarchical channel sampling has not drawn, are neither masked nor counted, and the encoder never
    sees them (also where ``channels.masked`` is false: there are no such tokens to be left in).

    Parameters
    ----------
    recipe, backbone_of, steps_per_epoch, total_steps
        See :class:`Method`.

    Raises
    ------
    RecipeError
        If the decoder's width does not fit its heads and positions, or a view has a single patch.
    """

    def __init__(
        self, recipe: TrainingRecipe, backbone_of: Callable[[], Backbone], steps_per_epoch: int, total_steps: int
    ) -> None:
        super().__init__(recipe, backbone_of, steps_per_epoch, total_steps)
        self.settings = recipe.mae
        size, patch = recipe.views.global_views.size, recipe.backbone.patch_size
        if size < 2 * patch:
            raise RecipeError(
                f"views.global_views.size: a view of {size} pixels is one patch, of which none can be masked; "
                f"{2 * patch} at least, or smaller patches"
            )
        self.autoencoder = MaskedAutoencoder(backbone_of(), self.settings)

    @property
    def trained(self) -> MaskedAutoencoder:
        """Encoder and decoder."""
        return self.autoencoder

    @property
    def backbone(self) -> Backbone:
        """The encoder."""
        return self.autoencoder.backbone

    def backbones(self) -> dict[str, Backbone]:
        """The encoder."""
        return {"encoder": self.autoencoder.backbone}

    def forward(self, views: Views, progress: Progress) -> dict[str, torch.Tensor]:
        """The loss; features are the CLS tokens of what is left of the images."""
        pixels, present = self.channels_of(views, 0)
        patches = patchify(pixels, self.backbone.patch_size)
        per_channel = patches.shape[1] // present.shape[1]
        scores = uniforms(self.seed, views.epoch, views.positions, "masked patches", patches.shape[1])
        mask = draw_mask(scores, present, per_channel, self.settings.mask_ratio)
        features, predictions = self.autoencoder(pixels, views.channel_ids, present, mask)
        loss = masked_loss(predictions, patches, mask.masked, norm_pixels=self.settings.norm_pixels)
        return {"loss": loss, "feature_std": feature_std(features)}


@dataclass(frozen=True)
class Mask:
    """Which tokens of each sequence the encoder sees.

    Attributes
    ----------
    masked : Tensor of bool, shape (N, L)
        To be predicted; tokens of absent channels are not.
    places : Tensor of int64, shape (N, L)
        Where each token comes in the order in which they are kept: the first are seen.
    order : Tensor of int64, shape (N, K)
        Tokens that are seen, and in samples that keep fewer than K, others.
    seen : Tensor of bool, shape (N, K)
        Which of those are.
    """

    masked: torch.Tensor
    places: torch.Tensor
    order: torch.Tensor
    seen: torch.Tensor


def draw_mask(scores: torch.Tensor, present: torch.Tensor, patches: int, ratio: float) -> Mask:
    """Keep the tokens with the lowest scores: of n tokens ``int(n (1 - ratio))``, but one at least, and never all.

    Parameters
    ----------
    scores : Tensor of floats in [0, 1), shape (N, L)
        L is C times ``patches``, channel by channel.
    present : Tensor of bool, shape (N, C)
        Tokens of other channels do not count.
    patches : int
        Tokens of each channel.
    ratio : float
        The share that is masked.

    Returns
    -------
    Mask

    Examples
    --------
    >>> scores = torch.tensor([[0.5, 0.1, 0.9, 0.3]])
    >>> draw_mask(scores, torch.tensor([[True]]), 4, 0.5).masked
    tensor([[ True, False,  True, False]])
    >>> draw_mask(scores, torch.tensor([[True, False]]), 2, 0.5).masked
    tensor([[ True, False, False, False]])
    """
    channels = present.shape[1]
    kept = [0] + [min(max(1, int(n * patches * (1 - ratio))), n * patches - 1) for n in range(1, channels + 1)]
    valid = present.repeat_interleave(patches, dim=1)
    ranking = scores.masked_fill(~valid, 2).argsort(dim=1, stable=True)
    places = ranking.argsort(dim=1)
    count = torch.tensor(kept, device=scores.device)[present.sum(dim=1)][:, None]
    return Mask(
        masked=valid & (places >= count),
        places=places,
        order=ranking[:, : kept[-1]],
        seen=torch.arange(kept[-1], device=scores.device) < count,
    )


def patchify(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Planes as patches, channel by channel and row by row, in the order of the backbone's tokens.

    Parameters
    ----------
    pixels : Tensor, shape (N, C, H, W)
    size : int
        Edge of a patch, of which H and W are multiples.

    Returns
    -------
    Tensor, shape (N, C * (H / size) * (W / size), size * size)

    Examples
    --------
    >>> patchify(torch.arange(16).reshape(1, 1, 4, 4), 2)[0, 1]
    tensor([2, 3, 6, 7])
    """
    patches = pixels.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return patches.transpose(3, 4).flatten(4).flatten(1, 3)


def masked_loss(
    predictions: torch.Tensor, patches: torch.Tensor, masked: torch.Tensor, *, norm_pixels: bool
) -> torch.Tensor:
    """The mean squared error over the masked patches of all ranks, in float32.

    Parameters
    ----------
    predictions, patches : Tensor, shape (N, L, P)
    masked : Tensor of bool, shape (N, L)
    norm_pixels : bool
        Whether the targets are patches less their mean, over ``sqrt(variance + 1e-6)`` with the unbiased variance.

    Returns
    -------
    Tensor, shape ()
        The mean of the ranks' losses is that of the whole batch, also where they have masked more patches or fewer.

    Examples
    --------
    >>> patches = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    >>> masked_loss(torch.zeros(1, 2, 2), patches, torch.tensor([[True, False]]), norm_pixels=False).item()
    5.0
    """
    targets = at_least_float32(patches.detach())
    if norm_pixels:
        deviation = (targets.var(dim=-1, keepdim=True) + 1e-6).sqrt()
        targets = (targets - targets.mean(dim=-1, keepdim=True)) / deviation
    errors = (at_least_float32(predictions) - targets).square().mean(dim=-1)
    count = sum_over_ranks(masked.sum().to(errors.dtype))
    return (errors * masked).sum() * (world()[1] / count)


class MaskedAutoencoder(nn.Module):  # type: ignore[misc,unused-ignore]
    """A backbone that sees some tokens, and a decoder that predicts the pixels of all.

    Parameters
    ----------
    backbone : Backbone
    settings : MaeSettings
    """

    def __init__(self, backbone: Backbone, settings: MaeSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = Decoder(backbone.width, backbone.patch_size, len(backbone.channels), settings)

    def forward(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor, present: torch.Tensor, mask: Mask
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, and the predicted pixels of every patch.

        Parameters
        ----------
        pixels : Tensor of float32, shape (N, C, H, W)
        channel_ids : Tensor of int64, shape (N, C)
        present : Tensor of bool, shape (N, C)
        mask : Mask

        Returns
        -------
        features : Tensor, shape (N, width)
            CLS tokens.
        predictions : Tensor, shape (N, L, patch_size ** 2)
        """
        alone = not self.backbone.channels  # boc: no token is absent, and none needs to be kept from attention
        tokens, _ = self.backbone.patch_tokens(pixels, channel_ids, present)
        visible = tokens.gather(1, mask.order[:, :, None].expand(-1, -1, tokens.shape[2]))
        codes = self.backbone.encode(visible, None if alone else mask.seen)
        grid = (pixels.shape[2] // self.backbone.patch_size, pixels.shape[3] // self.backbone.patch_size)
        predictions = self.decoder(codes, mask, grid, None if alone else channel_ids, None if alone else present)
        return codes[:, 0], predictions


class Decoder(nn.Module):  # type: ignore[misc,unused-ignore]
    """Blocks over the codes of what was seen and a mask token for each other patch.

    Parameters
    ----------
    width : int
        Of the codes.
    patch_size : int
    channels : int
        Channel types, each with an embedding of its own that is learnt; 0: none.
    settings : MaeSettings

    Raises
    ------
    RecipeError
        If ``decoder_width`` is no multiple of 4, or not of the heads.
    """

    def __init__(self, width: int, patch_size: int, channels: int, settings: MaeSettings) -> None:
        super().__init__()
        inner = settings.decoder_width
        if inner % 4 or inner % settings.decoder_heads:
            raise RecipeError(
                f"mae.decoder_width: {inner} must be a multiple of 4, for sines and cosines of rows and columns, "
                f"and of mae.decoder_heads, {settings.decoder_heads}"
            )
        self.width = inner
        norm = partial(nn.LayerNorm, eps=_NORM_EPS)
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.empty(1, 1, inner))
        self.channel_embed = nn.Embedding(channels, inner) if channels else None
        self.blocks = nn.ModuleList(
            Block(inner, settings.decoder_heads, mlp_ratio=_MLP_RATIO, qkv_bias=True, norm_layer=norm)
            for _ in range(settings.decoder_depth)
        )
        self.norm = norm(inner)
        self.predict = nn.Linear(inner, patch_size**2)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors do."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=_INIT_STD)
        nn.init.normal_(self.mask_token, std=_INIT_STD)

    def forward(
        self,
        codes: torch.Tensor,
        mask: Mask,
        grid: tuple[int, int],
        channel_ids: torch.Tensor | None,
        present: torch.Tensor | None,
    ) -> torch.Tensor:
        """Predict pixels.

        Parameters
        ----------
        codes : Tensor, shape (N, 1 + K, width)
            The encoder's, CLS first.
        mask : Mask
        grid : (int, int)
            Rows and columns of patches.
        channel_ids : Tensor of int64, shape (N, C), or None
            Below 0: the last type.
        present : Tensor of bool, shape (N, C), or None
            Channels that take part; None: all.

        Returns
        -------
        Tensor, shape (N, L, patch_size ** 2)
        """
        codes = self.embed(codes)
        cls, codes = codes[:, :1], codes[:, 1:]
        patches = grid[0] * grid[1]
        places = mask.places.clamp(max=codes.shape[1] - 1)
        everywhere = codes.gather(1, places[:, :, None].expand(-1, -1, self.width))
        # absent channels get any code: nothing attends to them
        everywhere = torch.where(mask.masked[:, :, None], self.mask_token, everywhere)
        positions = sine_positions(self.width, *grid, device=codes.device)
        everywhere = everywhere + positions.repeat(mask.places.shape[1] // patches, 1)
        if self.channel_embed is not None and channel_ids is not None:
            types = torch.where(channel_ids < 0, self.channel_embed.num_embeddings - 1, channel_ids)
            everywhere = everywhere + self.channel_embed(types).repeat_interleave(patches, dim=1)
        attended = None
        if present is not None:
            valid = present.repeat_interleave(patches, dim=1)
            attended = nn.functional.pad(valid, (1, 0), value=True)[:, None, None, :]
        tokens = torch.cat((cls, everywhere), dim=1)
        for block in self.blocks:
            tokens = block(tokens, attended)
        return self.predict(self.norm(tokens))[:, 1:]


def sine_positions(width: int, rows: int, columns: int, *, device: torch.device | str | None = None) -> torch.Tensor:
    """Fixed positions of patches: sines and cosines of the column, then of the row (Vaswani et al. 2017, in two axes).

    Frequency i of the width / 4 of each axis is ``10000 ** (-4 i / width)``.

    Parameters
    ----------
    width : int
        A multiple of 4.
    rows, columns : int
    device : torch.device, optional

    Returns
    -------
    Tensor of float32, shape (rows * columns, width)

    Examples
    --------
    >>> sine_positions(4, 1, 2)[1]  # column 1, row 0
    tensor([0.8415, 0.5403, 0.0000, 1.0000])
    """
    exponents = torch.arange(width // 4, device=device, dtype=torch.float32) / (width / 4)
    frequencies = 10000**-exponents
    parts = []
    for places in (
        torch.arange(columns, device=device).repeat(rows),
        torch.arange(rows, device=device).repeat_interleave(columns),
    ):
        angles = places[:, None] * frequencies
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1)
