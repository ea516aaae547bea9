"""Intensity: contrast and brightness that vary from plane to plane, as stains and exposures do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from chammi75.schemas.training import ViewSettings
    from chammi75.training.randomness import Draws
    from chammi75.training.views.normalisation import Planes


def vary_intensity(view: Tensor, planes: Planes, settings: ViewSettings, draws: Draws) -> Tensor:
    """Give each plane its own contrast and brightness.

    A plane's distance from its mean is multiplied by a number from [1 - i, 1 + i], and a number from [-i, i] times its
    deviation is added, where i is the setting ``intensity``; mean and deviation are those of the whole crop. A plane
    that is constant stays as it is.

    Parameters
    ----------
    view : Tensor of float32, shape (N, C, S, S)
    planes : Planes
    settings : ViewSettings
    draws : Draws
    """
    share = settings.intensity
    if share == 0:
        return view
    shape = (*view.shape[:2], 1, 1)
    contrast = 1 + draws.between("contrast", -share, share, view.shape[1]).view(shape)
    brightness = draws.between("brightness", -share, share, view.shape[1]).view(shape) * planes.deviation
    return (view - planes.mean) * contrast + (planes.mean + brightness)
