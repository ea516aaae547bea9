"""What a file says of itself: its images, their axes, sizes, samples, channel names and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chammi75.errors import ChammiError, ReadError


@dataclass(frozen=True)
class Series:
    """One image of a file, of up to (T, Z, C) planes of one size.

    Parameters
    ----------
    index : int
        Its place in the file.
    axes : str
        The axes longer than one, slowest first, as the file orders them: of T, Z, C and I (pages that the file does not
        name), then Y and X. Samples of a pixel (RGB) are part of C.
    sizes : mapping
        Length of ``"T"``, ``"Z"`` and ``"C"``, 1 where there is no such axis.
    height, width : int
        Pixels.
    dtype : str
        numpy's name of the samples as the file stores them; ``"bool"`` for one bit, which is read as uint8 0 and 1.
    significant_bits : int or None
        Bits per sample as the file declares them; None for floats.
    channel_names : tuple of (str or None)
        One per channel; None where the file states no name.
    rgb : bool
        Whether the channels are the red, green and blue of a colour picture.
    pixel_size_um : float or None
        Width of a pixel in micrometres, where the file states a physical unit (printer's dots per inch are none).
    magnification : float or None
        Nominal magnification of the objective, where stated.
    pages : int
        Length of the axis that the file does not name.
    pages_unnamed : bool
        Whether there are several such pages; ``open_image(url, axes="TYX")`` names them.
    notes : tuple of str
        What a reader of the build report may want to know.
    steps : tuple of str
        What reading does to the pixels, beyond decoding.
    """

    index: int
    axes: str
    sizes: Mapping[str, int]
    height: int
    width: int
    dtype: str
    significant_bits: int | None
    channel_names: tuple[str | None, ...]
    rgb: bool = False
    pixel_size_um: float | None = None
    magnification: float | None = None
    pages: int = 1
    pages_unnamed: bool = False
    notes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFile:
    """What one file holds.

    Parameters
    ----------
    path : str
        As the caller wrote it.
    reader, reader_version : str
        The library that decodes it.
    format : str
        ``"png"``, ``"jpeg"``, ``"tiff"``, ``"ome-tiff"``, ``"imagej"``, ``"metaseries"``, ``"stk"``, or the name of a
        vendor's TIFF dialect.
    size_bytes : int
        Length of the file.
    series : tuple of Series
        Its images, one at least.
    companions : tuple of str
        Names of other files of the same folder that hold planes of these images (an OME-TIFF of several files).
    """

    path: str
    reader: str
    reader_version: str
    format: str
    size_bytes: int
    series: tuple[Series, ...]
    companions: tuple[str, ...] = ()


class ImageReader(Protocol):
    """An open file."""

    @property
    def file(self) -> ImageFile:
        """What the file says of itself."""

    def read_plane(self, series: int = 0, *, z: int = 0, t: int = 0, c: int = 0, page: int = 0) -> np.ndarray:
        """One plane: 2-D, C-contiguous, native byte order, the file's own dtype and values (one bit as uint8 0 and 1).

        Raises
        ------
        ReadError
            If there is no such plane, or its bytes are missing or damaged.
        """

    def close(self) -> None:
        """Let go of what the reader itself has opened."""


def choose_series(file: ImageFile, series: int, *, z: int, t: int, c: int, page: int) -> Series:
    """The series numbered ``series``, after a look at whether it has that plane.

    Raises
    ------
    ReadError
        If the file has no such series, or the series no such plane.
    """
    if not 0 <= series < len(file.series):
        raise ReadError(file.path, f"there is no series {series}; the file has {len(file.series)}, counted from 0")
    chosen = file.series[series]
    lengths = {"z": chosen.sizes["Z"], "t": chosen.sizes["T"], "c": chosen.sizes["C"], "page": chosen.pages}
    for axis, index in (("z", z), ("t", t), ("c", c), ("page", page)):
        if not 0 <= index < lengths[axis]:
            raise ReadError(
                file.path, f"series {series} has no plane {axis}={index}; it has {lengths[axis]} along {axis}, from 0"
            )
    return chosen


@contextmanager
def damage_reported(path: str) -> Iterator[None]:
    """Turn whatever a decoder raises on the file ``path`` into a ReadError that names it.

    Decoders answer hostile bytes with nearly every exception there is (ValueError, struct.error, ZeroDivisionError,
    KeyError, MemoryError, their own); this is the one boundary where all of them mean the same.
    """
    try:
        yield
    except (ChammiError, ImportError):  # a package that is not installed is no fault of the file
        raise
    except FileNotFoundError as error:
        raise ReadError(path, "there is no such file") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(path, f"it cannot be read ({type(error).__name__}{': ' if text else ''}{text})") from error
