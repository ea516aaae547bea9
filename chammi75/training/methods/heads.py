"""Projection heads: what lies between a backbone's features and a loss, and is thrown away after training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from chammi75.schemas.training import DinoSettings, SimclrSettings

_INIT_STD = 0.02


class WeightNormLinear(nn.Module):  # type: ignore[misc,unused-ignore]
    """A linear map without bias whose weights have a length and a direction (Salimans and Kingma 2016).

    The weight of output i is ``weight_g[i] * weight_v[i] / |weight_v[i]|``. PyTorch has it as a parametrisation, with
    names other than those in DINO's checkpoints.

    Parameters
    ----------
    inputs, outputs : int
    learn_length : bool
        Whether ``weight_g`` is trained; otherwise it stays 1.

    Examples
    --------
    >>> layer = WeightNormLinear(4, 3, learn_length=False)
    >>> [(name, tuple(p.shape), p.requires_grad) for name, p in layer.named_parameters()]
    [('weight_g', (3, 1), False), ('weight_v', (3, 4), True)]
    """

    def __init__(self, inputs: int, outputs: int, learn_length: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=learn_length)
        self.weight_v = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))  # what nn.Linear does

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        return functional.linear(values, self.weight_g * functional.normalize(self.weight_v, dim=1))


class DinoHead(nn.Module):  # type: ignore[misc,unused-ignore]
    """DINO's head: three linear maps with GELU between, L2 normalisation, and a weight-normed last layer.

    Caron et al. 2021, appendix C; no batch norm. Linear maps start from a truncated normal of deviation 0.02.

    Parameters
    ----------
    width : int
        Of the features.
    settings : DinoSettings

    Examples
    --------
    >>> from chammi75.schemas.training import DinoSettings
    >>> DinoHead(64, DinoSettings(out_dim=100))(torch.zeros(2, 64)).shape
    torch.Size([2, 100])
    """

    def __init__(self, width: int, settings: DinoSettings) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, settings.hidden_dim),
            nn.GELU(),
            nn.Linear(settings.hidden_dim, settings.hidden_dim),
            nn.GELU(),
            nn.Linear(settings.hidden_dim, settings.bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(
            settings.bottleneck_dim, settings.out_dim, learn_length=not settings.norm_last_layer
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, width) to scores (N, out_dim)."""
        return self.last_layer(functional.normalize(self.mlp(features), dim=-1))


class SimclrHead(nn.Module):  # type: ignore[misc,unused-ignore]
    """SimCLR's head: two linear maps with ReLU between (Chen et al. 2020, section 2.1).

    Without the batch norm of the authors' code, which the paper does not name: with it, what a sample gives would
    depend on its company.

    Parameters
    ----------
    width : int
        Of the features.
    settings : SimclrSettings

    Examples
    --------
    >>> from chammi75.schemas.training import SimclrSettings
    >>> SimclrHead(64, SimclrSettings())(torch.zeros(2, 64)).shape
    torch.Size([2, 128])
    """

    def __init__(self, width: int, settings: SimclrSettings) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, settings.hidden_dim), nn.ReLU(), nn.Linear(settings.hidden_dim, settings.out_dim)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, width) to projections (N, out_dim)."""
        return self.mlp(features)
