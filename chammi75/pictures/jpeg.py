"""Pictures as JPEG: for pages with many of them.

Noise makes microscopy pictures hard to compress without loss: a composite of 480 x 480 pixels is about 400 kB as PNG
and 40 kB as JPEG at quality 85. A gallery of 60 images stays below 8 MB only with JPEG. Colour is not subsampled
(4:4:4), as red and blue channels would blur otherwise.
"""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from chammi75.pictures.png import encoded


def jpeg_bytes(rgb: npt.NDArray[np.uint8], quality: int = 85) -> bytes:
    """``rgb`` as a JPEG file.

    Parameters
    ----------
    rgb : numpy.ndarray, shape (H, W, 3) or (H, W), uint8
    quality : int
        1 to 95.

    Raises
    ------
    ChammiError
        If the array is of another shape or dtype, or has no pixel.

    Examples
    --------
    >>> jpeg_bytes(np.zeros((8, 8, 3), np.uint8))[:3]
    b'\\xff\\xd8\\xff'
    """
    return encoded(rgb, "JPEG", quality=quality, subsampling=0, optimize=True)


def jpeg_data_uri(rgb: npt.NDArray[np.uint8], quality: int = 85) -> str:
    """``rgb`` as a ``data:`` URI of a JPEG.

    Examples
    --------
    >>> jpeg_data_uri(np.zeros((8, 8, 3), np.uint8))[:23]
    'data:image/jpeg;base64,'
    """
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(rgb, quality)).decode("ascii")
