"""Pages that tifffile does not decode and libtiff does: old-style JPEG in pieces, and subsampled YCbCr without JPEG.

Old-style JPEG (compression 6) was replaced in 1995. Some files hold whole JPEG streams, which tifffile decodes; others
hold tables and bare coded data in separate places. libtiff is asked for red, green and blue, as every viewer does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chammi75.errors import ReadError

_OLD_JPEG, _JPEG, _YCBCR = 6, (6, 7, 33007, 34892), 6
_START_OF_JPEG = b"\xff\xd8"
_LARGEST_FILE_BYTES = 1 << 30  # libtiff is given the whole file


def is_left_to_libtiff(page: Any) -> bool:
    """Whether a ``tifffile.TiffPage`` or the keyframe of a frame is one of these."""
    keyframe = page.keyframe
    if keyframe.photometric == _YCBCR and keyframe.compression not in _JPEG:
        return keyframe.subsampling not in (None, (1, 1))
    if keyframe.compression != _OLD_JPEG or not page.dataoffsets:
        return False
    file = keyframe.parent.filehandle
    offset = keyframe.jpegheader is None and page.dataoffsets[0]
    if not offset:
        return False
    file.seek(offset)
    return bool(file.read(2) != _START_OF_JPEG)


def decode_by_libtiff(page: Any, path: str, size_bytes: int) -> np.ndarray:
    """Red, green and blue of a page, shape (1, 1, height, width, 3), uint8.

    Raises
    ------
    ReadError
        If the file is too large for that, the page has no place in the chain of pages, or libtiff refuses it.
    """
    import imagecodecs

    keyframe = page.keyframe
    if size_bytes > _LARGEST_FILE_BYTES:
        raise ReadError(path, "it is a TIFF of an old kind (see Compression 6) of more than 1 GiB, which is not read")
    if not isinstance(page.index, int) or keyframe.dtype != np.uint8 or keyframe.samplesperpixel != 3:
        raise ReadError(path, "its old-style JPEG or subsampled YCbCr page is not three samples of 8 bits")
    if keyframe.tags.valueof(274, 1) != 1:
        raise ReadError(path, "its old-style JPEG or subsampled YCbCr page is turned (Orientation), which is not read")
    file = keyframe.parent.filehandle
    file.seek(0)
    try:
        pixels = imagecodecs.tiff_decode(file.read(size_bytes), index=page.index, asrgb=True)
    except imagecodecs.TiffError as error:
        raise ReadError(path, f"libtiff cannot decode it ({' '.join(str(error).split())[:150]})") from error
    expected = (keyframe.imagelength, keyframe.imagewidth)
    if pixels.shape[:2] != expected or pixels.ndim != 3 or pixels.shape[2] < 3:
        raise ReadError(path, f"libtiff decodes it to {pixels.shape}, its page declares {expected}")
    return np.ascontiguousarray(pixels[None, None, :, :, :3])
