"""The vision transformer of one plane (bag of channels): each channel goes through it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timm.layers import PatchEmbed

from chammi75.errors import ChammiError
from chammi75.training.backbones.backbone import Backbone
from chammi75.training.backbones.positions import interpolate_positions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from chammi75.schemas.training import BackboneSettings


class VisionTransformer(Backbone):
    """A vision transformer whose input has one channel.

    The features of an image are those of its planes, one after another in the order of its channels.

    Parameters
    ----------
    settings : BackboneSettings
    reference_positions : bool
        Interpolate positions the reference's way (see `interpolate_positions`).

    Examples
    --------
    >>> import torch
    >>> from chammi75.schemas.training import BackboneSettings
    >>> backbone = VisionTransformer(BackboneSettings(name="tiny", image_size=64))
    >>> image = torch.zeros(5, 96, 80)  # five channels
    >>> backbone(image[:, None]).flatten().shape
    torch.Size([320])
    """

    def __init__(self, settings: BackboneSettings, *, reference_positions: bool = True) -> None:
        super().__init__(settings, (), reference_positions=reference_positions)

    def _make_patch_embed(self) -> nn.Module:
        return PatchEmbed(img_size=None, patch_size=self.patch_size, in_chans=1, embed_dim=self.width)

    def patch_tokens(
        self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens of planes of shape (N, 1, H, W); see `Backbone.patch_tokens`. Of which channel does not matter."""
        pixels = self._filled(pixels)
        if pixels.shape[1] != 1:
            raise ChammiError(
                f"a bag of channels takes planes one by one, of shape (planes, 1, height, width), and these are of "
                f"shape {tuple(pixels.shape)}; make them so with pixels.flatten(0, 1)[:, None]"
            )
        height, width = (edge // self.patch_size for edge in pixels.shape[2:])
        positions = interpolate_positions(self.pos_embed[:, 1:], height, width, reference=self.reference_positions)
        return self.patch_embed(pixels) + positions, None
