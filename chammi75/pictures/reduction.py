"""Planes in the size in which they are shown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fitted_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width with the same aspect whose longer side is ``longest`` pixels.

    Examples
    --------
    >>> fitted_size(1080, 2160, 320), fitted_size(0, 5, 320)
    ((160, 320), (0, 0))
    """
    if height == 0 or width == 0:
        return 0, 0
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized_plane(plane: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """``plane`` (values from 0 to 1) in another size: averaged where it shrinks, smooth where it grows.

    Examples
    --------
    >>> resized_plane(np.array([[0, 0.5, 0.5, 1]], np.float32), 1, 2).tolist()
    [[0.25, 0.75]]
    """
    if plane.shape == (height, width):
        return plane
    if 0 in plane.shape or height == 0 or width == 0:
        return np.zeros((height, width), np.float32)
    from PIL import Image

    shrinks = height <= plane.shape[0] and width <= plane.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    picture = Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), method)
    return np.clip(np.asarray(picture, dtype=np.float32), 0.0, 1.0)  # bicubic overshoots at edges
