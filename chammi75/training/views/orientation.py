"""Orientation: flips and right-angle turns of views."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.schemas.training import ViewSettings
    from chammi75.training.randomness import Draws


class Orientations(NamedTuple):
    """What is done to each view, in this order: all eight ways to lay a square on itself come out of three steps.

    Attributes
    ----------
    upside_down, left_right : Tensor of bool, shape (N,)
        Flip rows, flip columns.
    transposed : Tensor of bool, shape (N,), or None
        Exchange rows and columns; None: nowhere.
    """

    upside_down: Tensor
    left_right: Tensor
    transposed: Tensor | None


def draw_orientations(settings: ViewSettings, draws: Draws) -> Orientations:
    """Flips by their chances, then turns by 0, 90, 180 or 270 degrees (as ``torch.rot90`` turns) where they are wanted.

    Examples
    --------
    >>> import torch
    >>> from chammi75.schemas.training import ViewSettings
    >>> from chammi75.training.randomness import Draws
    >>> settings = ViewSettings(horizontal_flip=1, vertical_flip=0)
    >>> draw_orientations(settings, Draws(0, 0, torch.tensor([0]), "view"))
    Orientations(upside_down=tensor([False]), left_right=tensor([True]), transposed=None)
    """
    chances = draws.uniforms("flips", 2)
    left_right = chances[:, 0] < settings.horizontal_flip
    upside_down = chances[:, 1] < settings.vertical_flip
    if not settings.right_angle_turns:
        return Orientations(upside_down, left_right, None)
    turn = draws.uniforms("turn", 1)[:, 0] * 4
    quarter, half, three = turn < 1, (turn >= 1) & (turn < 2), (turn >= 2) & (turn < 3)
    # a quarter turn is a flip of the columns and a transposition, three quarters one of the rows and a transposition
    return Orientations(upside_down ^ (half | three), left_right ^ (quarter | half), quarter | three)
