"""A backbone and a head over views of several sizes (multi-crop; Caron et al. 2020, SwAV)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from chammi75.training.backbones import Backbone


class MultiCropNetwork(nn.Module):  # type: ignore[misc,unused-ignore]
    """One pass of the backbone for each run of views of one size, and one pass of the head for all.

    Parameters
    ----------
    backbone : Backbone
    head : nn.Module
        From (rows, width) to (rows, outputs).
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, pixels: Sequence[torch.Tensor], channel_ids: torch.Tensor, present: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and the head's outputs of all views.

        Parameters
        ----------
        pixels : sequence of V Tensors of float32, shape (N, C, S, S)
            S may differ from view to view.
        channel_ids : Tensor of int64, shape (N, C)
        present : sequence of V Tensors of bool, shape (N, C)
            Channels that each view has.

        Returns
        -------
        features : Tensor, shape (V, N, width)
        outputs : Tensor, shape (V, N, outputs)
        """
        features = []
        for _, run in groupby(range(len(pixels)), key=lambda view: pixels[view].shape[-1]):
            views = list(run)
            batch = torch.cat([pixels[view] for view in views])
            there = torch.cat([present[view] for view in views])
            features.append(self.backbone(batch, channel_ids.repeat(len(views), 1), there))
        rows = torch.cat(features)
        outputs = self.head(rows)
        return rows.unflatten(0, (len(pixels), -1)), outputs.unflatten(0, (len(pixels), -1))
