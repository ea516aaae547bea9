"""Models of timm, which were trained on photographs with three channels, as bags of channels.

A plane is normalised by its own mean and deviation, as photographs are by those of their dataset, and stands in for all
three input channels.
"""

from __future__ import annotations

from difflib import get_close_matches

import timm
import torch
from torch import nn

from chammi75.errors import ChammiError
from chammi75.schemas.model_card import InputSettings, ModelConfig
from chammi75.training.embedder import EmbeddingModel, state_sha256
from chammi75.training.hub import hub_errors
from chammi75.version import __version__

_SHOWN = 5


class TimmBackbone(nn.Module):  # type: ignore[misc,unused-ignore]
    """A model of timm without its classifier; a plane is given to all of its input channels.

    Parameters
    ----------
    network : nn.Module
    inputs : int
        Channels that it takes.
    """

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.network, self._inputs = network, inputs

    def forward(self, pixels: torch.Tensor, channel_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Features of planes (N, 1, H, W)."""
        features: torch.Tensor = self.network(pixels.expand(-1, self._inputs, -1, -1))
        return features


def is_timm_name(name: str) -> bool:
    """Whether timm has such a model; what stands behind a point says which weights.

    Examples
    --------
    >>> is_timm_name("vit_small_patch16_224.dino"), is_timm_name("vit_tiny_patch17")
    (True, False)
    """
    return bool(timm.is_model(name.partition(".")[0]))


def timm_model(name: str) -> EmbeddingModel:
    """A model of timm with its pretrained weights, which are fetched from the hub.

    Parameters
    ----------
    name : str
        As timm has it (``vit_small_patch16_224.dino``).

    Raises
    ------
    FetchError
        If they cannot be fetched.
    ChammiError
        If timm has no such model, or no weights of it.
    """
    if not is_timm_name(name):
        near = get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"nearest are {', '.join(near)}" if near else "timm.list_models() names them"
        raise ChammiError(f"timm has no model {name!r}; {hint}")
    try:
        with hub_errors(f"timm:{name}"):
            network = timm.create_model(name, pretrained=True, num_classes=0)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")[:_SHOWN]) or "none"
        raise ChammiError(f"timm:{name}: {error}; it has pretrained weights of these: {known}") from error
    wanted = timm.data.resolve_model_data_config(network)
    inputs, image_size = int(wanted["input_size"][0]), int(wanted["input_size"][-1])
    patches = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    config = ModelConfig(
        library_version=__version__,
        title=f"timm:{name}",
        origin="timm",
        architecture=name,
        width=int(network.num_features),
        patch_size=int(patches[0]),
        image_size=image_size,
        reference_positions=False,
        input=InputSettings(dtypes=["uint8", "uint16", "float32"]),
    )
    model = EmbeddingModel(TimmBackbone(network, inputs), config, state_sha256(network.state_dict()))
    model.eval()
    return model
