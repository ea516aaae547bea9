"""Pictures as PNG: exact, for notebooks and files."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError


def png_bytes(rgb: npt.NDArray[np.uint8]) -> bytes:
    """``rgb`` as a PNG file.

    Parameters
    ----------
    rgb : numpy.ndarray, shape (H, W, 3) or (H, W), uint8

    Raises
    ------
    ChammiError
        If the array is of another shape or dtype, or has no pixel: PNG knows no empty picture.

    Examples
    --------
    >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    return encoded(rgb, "PNG", optimize=False, compress_level=6)


def data_uri(rgb: npt.NDArray[np.uint8]) -> str:
    """``rgb`` as a ``data:`` URI of a PNG, for HTML that needs no other file.

    Examples
    --------
    >>> data_uri(np.zeros((2, 2, 3), np.uint8))[:22]
    'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png_bytes(rgb)).decode("ascii")


def encoded(rgb: npt.NDArray[np.uint8], file_format: str, **options: int | bool) -> bytes:
    """``rgb`` in a file format of Pillow, with its options.

    Raises
    ------
    ChammiError
        As `png_bytes`.
    """
    if rgb.dtype != np.uint8 or rgb.size == 0 or not (rgb.ndim == 2 or (rgb.ndim == 3 and rgb.shape[2] == 3)):
        raise ChammiError(
            f"an array of shape {rgb.shape} and dtype {rgb.dtype} cannot be written as {file_format}: "
            "shape (height, width, 3) or (height, width), at least one pixel, and dtype uint8 are needed"
        )
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, file_format, **options)
    return buffer.getvalue()
