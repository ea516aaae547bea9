"""The methods: one module for each, and what they share.

``dino``, ``mae`` and ``simclr`` are the three; any of them works with either strategy, one channel at a time (boc) or
all channels in one sequence (mca). ``method`` says what a method is, ``multi_crop`` runs a backbone over views of
several sizes, ``heads`` has the projection heads, ``channel_sampling`` draws channels, ``collectives`` speaks to other
ranks. A new method is one module here, a line in the table below and its settings in the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chammi75.training.methods.dino import Dino
from chammi75.training.methods.mae import Mae
from chammi75.training.methods.method import Method
from chammi75.training.methods.simclr import Simclr
from chammi75.training.optimizer import freeze_parameters

if TYPE_CHECKING:
    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.backbones import Backbone

__all__ = ["Method", "build_method"]

_METHODS: dict[str, type[Method]] = {"dino": Dino, "mae": Mae, "simclr": Simclr}


def build_method(
    recipe: TrainingRecipe, backbone_of: Callable[[], Backbone], steps_per_epoch: int, total_steps: int
) -> Method:
    """The method that a recipe names, with networks that are initialised from PyTorch's generator.

    Parameters
    ----------
    recipe : TrainingRecipe
    backbone_of : callable
        Makes a new backbone; DINO calls it twice, for the student and for the teacher.
    steps_per_epoch, total_steps : int
        Steps of the optimiser; what schedules are spread over.

    Returns
    -------
    Method

    Raises
    ------
    RecipeError
        If the settings do not fit together, or ``optimizer.freeze`` names no parameter.
    """
    method = _METHODS[recipe.method](recipe, backbone_of, steps_per_epoch, total_steps)
    freeze_parameters(method.trained, recipe.optimizer.freeze)
    return method
