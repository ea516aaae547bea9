"""ChannelViT (Bao et al. 2024, arXiv:2309.16108): the patches of all channels of an image in one sequence.

All channels share one convolution; a token for the type of the channel is added, and the position of the patch, which
is the same in every channel. Features do not grow with the number of channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from chammi75.errors import ChammiError
from chammi75.training.backbones.backbone import Backbone
from chammi75.training.backbones.positions import interpolate_positions

if TYPE_CHECKING:
    from chammi75.schemas.training import BackboneSettings

OTHER = "other"
"""Last name of a channel table: any type that is not in it."""


class ChannelPatchEmbed(nn.Module):  # type: ignore[misc,unused-ignore]
    """Patches of each channel through one convolution, and the tokens of the channel types.

    Parameters
    ----------
    patch_size : int
        Edge of a patch in pixels.
    width : int
        Numbers of a token.
    channels : int
        How many channel types there are.
    """

    def __init__(self, patch_size: int, width: int, channels: int) -> None:
        super().__init__()
        kernel = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(1, width, kernel_size=kernel, stride=kernel)
        tokens = nn.init.orthogonal_(torch.empty(width, channels))
        self.channel_tokens = nn.Parameter(tokens.reshape(1, width, channels, 1, 1))

    def forward(self, pixels: torch.Tensor, channel_ids: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Tokens without positions, of shape (N, C, patches, width); absent channels have no token of their type."""
        images, channels = pixels.shape[:2]
        # the kernel is one channel deep: as a convolution in two dimensions it is the same, and faster
        patches = functional.conv2d(
            pixels.flatten(0, 1)[:, None], self.proj.weight[:, :, 0], self.proj.bias, stride=self.proj.stride[1:]
        )
        patches = patches.flatten(2).transpose(1, 2).unflatten(0, (images, channels))
        types = functional.embedding(channel_ids, self.channel_tokens[0, :, :, 0, 0].t())
        if present is not None:
            types = torch.where(present[:, :, None], types, 0)
        return patches + types[:, :, None]


class ChannelVisionTransformer(Backbone):
    """A vision transformer of images with any number of channels, of the types in a table.

    Parameters
    ----------
    settings : BackboneSettings
    channels : tuple of str
        Names of the channel table. Ids below 0 mean its last name if that is ``other``.
    masked : bool
        Channels that an image lacks do not take part: its features are those that it has alone, whatever it is
        batched with. False: they take part as planes of zeros without a channel token, as in the reference, whose
        masks do nothing.
    reference_positions : bool
        Interpolate positions the reference's way: also at native size, unless the image has one channel only.

    Notes
    -----
    The reference takes the table of positions as it is whenever patches of *all channels* are as many as the table has
    and the input is square: with one channel at native size, but by accident with four at half of it too, which then
    share one grid of positions between them. That happens here with ``masked=False`` and ``reference_positions`` only.
    """

    def __init__(
        self,
        settings: BackboneSettings,
        channels: tuple[str, ...],
        *,
        masked: bool = True,
        reference_positions: bool = True,
    ) -> None:
        super().__init__(settings, channels, reference_positions=reference_positions)
        self.masked = masked

    def _make_patch_embed(self) -> nn.Module:
        return ChannelPatchEmbed(self.patch_size, self.width, len(self.channels))

    def patch_tokens(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens of images of shape (N, C, H, W), channel by channel; see `Backbone.patch_tokens`.

        Parameters
        ----------
        pixels : Tensor of floats, shape (N, C, H, W)
            What channels hold that are not present does not matter.
        channel_ids : Tensor of int64, shape (N, C), optional
            Numbers of the channel types in ``channels``; below 0: ``other``. None: channel i of each image is i.
        present : Tensor of bool, shape (N, C), optional
            False where an image has no such channel. None: all are there.

        Raises
        ------
        ChammiError
            If shapes do not fit each other, or, on the CPU, an id is none of the table's. (Elsewhere PyTorch itself
            stops: looking at the ids would make the device wait.)
        """
        pixels = self._filled(pixels)
        channel_ids = self._checked_ids(pixels, channel_ids, present)
        if present is not None:
            pixels = torch.where(present[:, :, None, None], pixels, 0)
            channel_ids = torch.where(present, channel_ids, 0)
        tokens = self.patch_embed(pixels, channel_ids, present)
        height, width = (edge // self.patch_size for edge in pixels.shape[2:])
        tokens = tokens + self._positions(pixels.shape[1], height, width, present)
        valid = None
        if self.masked and present is not None:
            valid = present[:, :, None].expand(-1, -1, height * width).flatten(1)
        return tokens.flatten(1, 2), valid

    def _checked_ids(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor | None, present: torch.Tensor | None
    ) -> torch.Tensor:
        """Ids that the table has."""
        shape = tuple(pixels.shape[:2])
        for name, given in (("channel_ids", channel_ids), ("present", present)):
            if given is not None and tuple(given.shape) != shape:
                raise ChammiError(
                    f"{name}: of shape {tuple(given.shape)}, and the pixels are of {shape[0]} images with {shape[1]} "
                    f"channels; give one for each channel of each image"
                )
        count = len(self.channels)
        has_other = self.channels[-1] == OTHER
        if channel_ids is None:
            if shape[1] not in {count, count - has_other}:
                raise ChammiError(
                    f"images of {shape[1]} channels need channel_ids: the table has {count}: {', '.join(self.channels)}"
                )
            return torch.arange(shape[1], device=pixels.device).expand(shape)
        if has_other:
            channel_ids = torch.where(channel_ids < 0, count - 1, channel_ids)
        if channel_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = (channel_ids < 0) | (channel_ids >= count)
            if present is not None:
                wrong = wrong & present
            if wrong.any():
                raise ChammiError(
                    f"channel_ids: {int(channel_ids[wrong][0])} is none of the {count} channel types of the table "
                    f"({', '.join(self.channels)})"
                )
        return channel_ids

    def _positions(self, channels: int, height: int, width: int, present: torch.Tensor | None) -> torch.Tensor:
        """Positions that broadcast to (N, channels, height * width, D)."""
        table = self.pos_embed[:, 1:]
        if not self.reference_positions:
            return interpolate_positions(table, height, width, reference=False)[:, None]
        if not self.masked and height == width and channels * height * width == table.shape[1]:  # see the class's notes
            return table.unflatten(1, (channels, height * width))
        fitted = interpolate_positions(table, height, width, at_native=channels > 1)[:, None]
        native = height == width and height * width == table.shape[1]
        if native and self.masked and present is not None and channels > 1:
            # an image of one channel gets what it gets alone, whatever it is batched with
            single = present.sum(1) == 1
            fitted = torch.where(single[:, None, None, None], table[:, None], fitted)
        return fitted
