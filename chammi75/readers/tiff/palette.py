"""Colour maps of TIFF: the lookup table of a grey image's display, or the colours of a picture.

A microscope's software often stores grey values with a map that shows them in a colour (black to green): there the
values are the measurement and the map is decoration. A picture of few colours stores numbers that mean nothing without
their map. A map that only rises, or only falls, in red, green and blue is of the first kind.
"""

from __future__ import annotations

import numpy as np

_LEAST_FOR_MARKS = 16  # maps of this many colours may mark the lowest and the highest value


def shows_intensities(colors: np.ndarray) -> bool:
    """Whether a colour map is the display of grey values.

    Parameters
    ----------
    colors : ndarray of uint16, shape (n, 3)
        Red, green and blue of each value; unused entries at the end are black.

    Examples
    --------
    >>> ramp = np.arange(256, dtype=np.uint16)[:, None] * 257
    >>> shows_intensities(ramp * np.array([0, 1, 0], np.uint16)), shows_intensities(np.roll(ramp, 9) * [1, 1, 1])
    (True, False)
    """
    used = np.flatnonzero(colors.any(axis=1))
    if not used.size:
        return True
    rising = colors[: used[-1] + 1].astype(np.int32)
    falling = colors.astype(np.int32)
    for entries, sign in ((rising, 1), (falling, -1)):
        for part in (entries, entries[1:-1]) if len(entries) >= _LEAST_FOR_MARKS else (entries,):
            if (sign * np.diff(part, axis=0) >= 0).all():
                return True
    return False


def expand_map(colors: np.ndarray) -> np.ndarray:
    """The colours that the values of a picture stand for.

    Parameters
    ----------
    colors : ndarray of uint16, shape (n, 3)

    Returns
    -------
    ndarray of uint8 or uint16, shape (n, 1 or 3)
        One column if all are grey. uint8 if the map has only 8 bits: written twice (v * 257), shifted (v * 256), or as
        they are (as some old software does); else uint16 as the file has it.
    """
    if (colors == colors[:, :1]).all():
        colors = colors[:, :1]
    high, low = colors >> 8, colors & 255
    if not high.any():
        return low.astype(np.uint8)
    if not low.any() or (high == low).all():
        return high.astype(np.uint8)
    return np.ascontiguousarray(colors)
