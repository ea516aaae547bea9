"""SimCLR: two views of an image know each other among all views of all other images.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from chammi75.training.methods.collectives import gather_rows, world
from chammi75.training.methods.heads import SimclrHead
from chammi75.training.methods.method import Method, at_least_float32, feature_std
from chammi75.training.methods.multi_crop import MultiCropNetwork

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone
    from chammi75.training.progress import Progress
    from chammi75.training.views import Views


class Simclr(Method):
    """An encoder and its projection head.

    The negatives of a sample are the other samples of all ranks; batches that are accumulated do not see each other.
    With hierarchical channel sampling the two views of a sample have their own draws of channels.

    Parameters
    ----------
    recipe, backbone_of, steps_per_epoch, total_steps
        See :class:`Method`.
    """

    def __init__(
        self, recipe: TrainingRecipe, backbone_of: Callable[[], Backbone], steps_per_epoch: int, total_steps: int
    ) -> None:
        super().__init__(recipe, backbone_of, steps_per_epoch, total_steps)
        self._temperature = recipe.simclr.temperature
        backbone = backbone_of()
        self.encoder = MultiCropNetwork(backbone, SimclrHead(backbone.width, recipe.simclr))

    @property
    def trained(self) -> MultiCropNetwork:
        """The encoder with its head."""
        return self.encoder

    @property
    def backbone(self) -> Backbone:
        """The encoder."""
        return self.encoder.backbone

    def backbones(self) -> dict[str, Backbone]:
        """The encoder."""
        return {"encoder": self.encoder.backbone}

    def forward(self, views: Views, progress: Progress) -> dict[str, torch.Tensor]:
        """The loss, and how often a view's nearest is the other view of its sample."""
        pixels, present = zip(*(self.channels_of(views, view) for view in range(len(views.pixels))), strict=True)
        features, projections = self.encoder(list(pixels), views.channel_ids, list(present))
        loss, accuracy = nt_xent(projections, self._temperature)
        return {"loss": loss, "feature_std": feature_std(features[0]), "positive_accuracy": accuracy}


def nt_xent(projections: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised temperature-scaled cross-entropy (equation 1 of the paper), over the samples of all ranks.

    Each of the 2N views asks which of the other 2N - 1 is its partner, by cosine similarity; N counts the samples of
    all ranks, which have as many each.

    Parameters
    ----------
    projections : Tensor, shape (2, N on this rank, D)
        Of the two views.
    temperature : float

    Returns
    -------
    loss : Tensor of float32, shape ()
        The mean over this rank's views; its gradient flows to the projections of all ranks.
    accuracy : Tensor of float32, shape ()
        The share of this rank's views whose partner is the most similar.

    Examples
    --------
    >>> apart = torch.eye(4).expand(2, 4, 4)
    >>> loss, accuracy = nt_xent(apart, temperature=0.1)
    >>> round(loss.item(), 4), accuracy.item()
    (0.0003, 1.0)
    """
    samples = projections.shape[1]
    with torch.autocast(projections.device.type, enabled=False):
        rows = functional.normalize(at_least_float32(projections).flatten(0, 1), dim=1)
        similarities = rows @ gather_rows(rows).T / temperature
        own = torch.arange(2 * samples, device=rows.device)
        start = world()[0] * 2 * samples
        similarities = similarities.scatter(1, (start + own)[:, None], -torch.inf)
        partners = start + (own + samples) % (2 * samples)
        loss = functional.cross_entropy(similarities, partners)
    accuracy = (similarities.detach().argmax(dim=1) == partners).float().mean()
    return loss, accuracy
