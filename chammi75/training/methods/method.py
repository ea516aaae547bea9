"""What a method of self-supervised training is to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from chammi75.training.methods.channel_sampling import sample_channels

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone
    from chammi75.training.progress import Progress
    from chammi75.training.views import Views


class Method(nn.Module, ABC):  # type: ignore[misc,unused-ignore]
    """Networks, and the loss that some of them learn from.

    For each accumulated batch of a step the trainer calls :meth:`forward` and the loss's ``backward()``; then it clips
    the gradients, and calls :meth:`after_backward`, the optimiser's ``step()`` and :meth:`after_step`, in this order.
    Where there are several ranks, each calls it with its own part of the batch, and gradients are averaged.

    Parameters
    ----------
    recipe : TrainingRecipe
    backbone_of : callable
        Makes a new backbone.
    steps_per_epoch, total_steps : int
        Steps of the optimiser.
    """

    def __init__(
        self, recipe: TrainingRecipe, backbone_of: Callable[[], Backbone], steps_per_epoch: int, total_steps: int
    ) -> None:
        super().__init__()
        self.seed = recipe.seed
        self._samples_channels = recipe.strategy == "mca" and recipe.channels.sampling

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network whose parameters the optimiser gets; its backbone's names start with ``backbone.``."""

    @property
    @abstractmethod
    def backbone(self) -> Backbone:
        """The backbone that features are taken from."""

    @abstractmethod
    def backbones(self) -> dict[str, Backbone]:
        """All backbones by name: teacher and student, or encoder."""

    @abstractmethod
    def forward(self, views: Views, progress: Progress) -> dict[str, torch.Tensor]:
        """The loss of a batch, and numbers that tell how the training goes.

        Parameters
        ----------
        views : Views
        progress : Progress

        Returns
        -------
        dict of str to Tensor, each of shape ()
            ``loss``, to be differentiated: the mean over the ranks is the loss of the whole batch. The others are
            detached and of this rank's samples; ``feature_std`` is always among them (see :func:`feature_std`).
        """

    def after_backward(self, progress: Progress) -> None:
        """Change gradients, after they were clipped and before the optimiser sees them."""

    def after_step(self, progress: Progress) -> None:
        """Follow the optimiser, for the step that was just taken (not the next one)."""

    def compile_networks(self, **options: Any) -> None:
        """Compile the networks in place with ``torch.compile``, which leaves the names of their parameters alone.

        Losses and all that ranks tell each other stay as they are.

        Parameters
        ----------
        options
            For ``torch.compile``.
        """
        for network in self.children():
            network.compile(**options)

    def channels_of(self, views: Views, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One view, and the channels of it that are used: all, or with hierarchical channel sampling some.

        Each view of each sample is drawn by itself. To the backbone, channels that were not drawn are like those that
        the image lacks.

        Parameters
        ----------
        views : Views
        view : int
            Which of them.

        Returns
        -------
        pixels : Tensor of float32, shape (N, C, S, S)
        present : Tensor of bool, shape (N, C)
        """
        pixels = views.pixels[view]
        if not self._samples_channels:
            return pixels, views.present
        purpose = f"channels of view {view}"
        return pixels, sample_channels(views.present, self.seed, views.epoch, views.positions, purpose)


def feature_std(features: torch.Tensor) -> torch.Tensor:
    """How widely features are spread: the mean over the dimensions of the deviation of L2-normalised features.

    About ``1 / sqrt(D)`` where they fill the sphere, and near 0 where they have collapsed to a point (Chen and He 2021,
    SimSiam).

    Parameters
    ----------
    features : Tensor, shape (N, D)

    Returns
    -------
    Tensor of float32, shape ()
        Detached; NaN for a batch of one, which has no spread.

    Examples
    --------
    >>> feature_std(torch.ones(4, 16)).item()
    0.0
    >>> round(feature_std(torch.eye(16)).item(), 3)
    0.242
    """
    features = features.detach().float()
    if len(features) < 2:
        return features.new_full((), torch.nan)
    return functional.normalize(features, dim=1).std(dim=0, correction=0).mean()


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The same numbers in float32, or as they are where they are wider: losses are not taken in half precision.

    Examples
    --------
    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
