"""DINO, version 1: a student learns what its own slowly moving average says of other views.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021.

The teacher sees the global views, the student all of them; for every pair of different views the student's distribution
is drawn to the teacher's. The teacher's scores are centred and sharpened, which keeps both from collapsing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from chammi75.training.averaging import update_average
from chammi75.training.methods.collectives import sum_over_ranks
from chammi75.training.methods.heads import DinoHead
from chammi75.training.methods.method import Method, at_least_float32, feature_std
from chammi75.training.methods.multi_crop import MultiCropNetwork
from chammi75.training.schedules import teacher_momenta, teacher_temperature

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone
    from chammi75.training.progress import Progress
    from chammi75.training.views import Views


class Dino(Method):
    """Student, teacher and centre.

    As in the authors' code, both start from the same weights and only the student has stochastic depth: the teacher is
    always in evaluation mode. With hierarchical channel sampling the student's views lose channels, each by its own
    draw, and the teacher sees all that there are, as the authors of ChannelViT drop channels of the student alone; so
    the student also learns what channels that it does not see would say.

    The centre moves once a step, from the raw scores of all accumulated batches of all ranks, after their losses.

    Parameters
    ----------
    recipe, backbone_of, steps_per_epoch, total_steps
        See :class:`Method`.
    """

    def __init__(
        self, recipe: TrainingRecipe, backbone_of: Callable[[], Backbone], steps_per_epoch: int, total_steps: int
    ) -> None:
        super().__init__(recipe, backbone_of, steps_per_epoch, total_steps)
        self.settings = recipe.dino
        self._global_views = recipe.views.global_views.count
        self._momenta = teacher_momenta(self.settings, total_steps)
        self.student, self.teacher = (
            MultiCropNetwork(backbone, DinoHead(backbone.width, self.settings))
            for backbone in (backbone_of(), backbone_of())
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.settings.out_dim))
        self._scores_since_step: list[torch.Tensor] = []
        self.train()

    @property
    def trained(self) -> MultiCropNetwork:
        """The student."""
        return self.student

    @property
    def backbone(self) -> Backbone:
        """The teacher's."""
        return self.teacher.backbone

    def backbones(self) -> dict[str, Backbone]:
        """The teacher's and the student's."""
        return {"teacher": self.teacher.backbone, "student": self.student.backbone}

    def train(self, mode: bool = True) -> Dino:
        """Set the student's mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, views: Views, progress: Progress) -> dict[str, torch.Tensor]:
        """The loss of DINO, and how both networks do.

        ``teacher_entropy`` is that of the teacher's distributions and ``student_teacher_kl`` the divergence of the
        student's from them, both in nats; ``centre_norm`` is the centre's length.
        """
        first = range(self._global_views)
        with torch.no_grad():
            features, scores = self.teacher(
                [views.pixels[view] for view in first], views.channel_ids, [views.present for _ in first]
            )
        pixels, present = zip(*(self.channels_of(views, view) for view in range(len(views.pixels))), strict=True)
        _, student_scores = self.student(list(pixels), views.channel_ids, list(present))
        scores = at_least_float32(scores)
        targets = sharpen(scores, self.centre, teacher_temperature(self.settings, progress.epoch))
        loss = cross_entropy_of_pairs(student_scores, targets, self.settings.student_temperature)
        if self.training:
            self._scores_since_step.append(_sum_and_count(scores))
        entropy = torch.special.entr(targets).sum(dim=-1).mean()
        return {
            "loss": loss,
            "feature_std": feature_std(features[0]),
            "teacher_entropy": entropy,
            "student_teacher_kl": loss.detach() - entropy,
            "centre_norm": torch.linalg.vector_norm(self.centre),
        }

    def after_backward(self, progress: Progress) -> None:
        """In the first epochs, take the last layer's gradients away: the optimiser then passes it over."""
        if progress.epoch < self.settings.freeze_last_layer_epochs:
            for parameter in self.student.head.last_layer.parameters():
                parameter.grad = None

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the student, and the centre towards the teacher's mean scores."""
        update_average(self.teacher, self.student, float(self._momenta[progress.step]))
        if self._scores_since_step:
            with torch.no_grad():
                total = sum_over_ranks(torch.stack(self._scores_since_step).sum(dim=0))
                momentum = self.settings.centre_momentum
                # in place: what wraps the method may hold on to its buffers
                self.centre.mul_(momentum).add_(total[:-1] / total[-1], alpha=1 - momentum)
        self._scores_since_step = []


def sharpen(scores: torch.Tensor, centre: torch.Tensor, temperature: float) -> torch.Tensor:
    """The teacher's distributions: the softmax of its scores less the centre, over a temperature.

    Parameters
    ----------
    scores : Tensor, shape (..., K)
    centre : Tensor, shape (K,)
    temperature : float

    Returns
    -------
    Tensor, shape (..., K)
        Without gradient.

    Examples
    --------
    >>> sharpen(torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 3.0]), 0.04)
    tensor([[0.5000, 0.5000]])
    """
    return functional.softmax((at_least_float32(scores.detach()) - centre) / temperature, dim=-1)


def cross_entropy_of_pairs(scores: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """DINO's loss: the mean cross-entropy over all pairs of a teacher's view and another view of the student.

    With 2 global views of 10 there are 2 x 10 - 2 = 18 pairs. A student's view meets the sum of its teachers at once,
    which spares most of the products.

    Parameters
    ----------
    scores : Tensor, shape (V, N, K)
        The student's, of all views; the global ones first.
    targets : Tensor, shape (G, N, K)
        The teacher's distributions of the global views.
    temperature : float
        The student's.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> scores = torch.zeros(3, 1, 4)
    >>> targets = torch.full((2, 1, 4), 0.25)
    >>> round(cross_entropy_of_pairs(scores, targets, 0.1).item(), 4)  # the logarithm of 4
    1.3863
    """
    predicted = functional.log_softmax(at_least_float32(scores) / temperature, dim=-1)
    teachers, views = len(targets), len(scores)
    # each global view without its own teacher, not as a difference from the sum of all, which would lose digits
    others = [torch.cat((targets[:view], targets[view + 1 :])).sum(dim=0) for view in range(teachers)]
    others += [targets.sum(dim=0)] * (views - teachers)
    crossed = [-(target * logarithms).sum() for target, logarithms in zip(others, predicted, strict=True)]
    pairs = teachers * views - teachers
    return torch.stack(crossed).sum() / (pairs * scores.shape[1])


def _sum_and_count(scores: torch.Tensor) -> torch.Tensor:
    """The sum of the rows of (V, N, K), and behind it how many there are: shape (K + 1,)."""
    rows = scores.flatten(0, -2)
    return torch.cat((rows.sum(dim=0), rows.new_full((1,), len(rows))))
