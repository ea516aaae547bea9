"""The one picture that stands for an image in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chammi75.pictures.composite import Planes
from chammi75.pictures.strip import channel_strip


def figure_strip(
    planes: Planes,
    channel_types: Sequence[str | None],
    captions: Sequence[str | None] | None = None,
    pixel_size_um: float | None = None,
    significant_bits: int | None = None,
    *,
    thumb: int = 200,
    columns: int = 6,
) -> npt.NDArray[np.uint8]:
    """An image as a notebook shows it: all channels together with a scale bar, then each channel with its name.

    Parameters
    ----------
    planes : numpy.ndarray, shape (C, H, W), or sequence of (H, W) or None
    channel_types, captions : sequence of str or None
        What each channel shows, and what its source calls it.
    pixel_size_um : float, optional
        The size of a pixel of ``planes`` in micrometres.
    significant_bits : int, optional
        The bits that a colour camera used.
    thumb, columns : int
        The longer side of a tile in pixels, and tiles in a row.

    Returns
    -------
    numpy.ndarray, shape (h, w, 3), uint8

    Raises
    ------
    ChammiError
        As `chammi75.pictures.strip.channel_strip`.

    Examples
    --------
    >>> image = np.arange(2 * 64 * 64, dtype=np.uint16).reshape(2, 64, 64)
    >>> figure_strip(image, ["nucleus", "er"], ["DAPI", "ConA"], pixel_size_um=0.65).shape
    (250, 624, 3)
    """
    return channel_strip(
        planes,
        channel_types,
        captions=captions,
        thumb=thumb,
        columns=columns,
        pixel_size_um=pixel_size_um,
        significant_bits=significant_bits,
    )
