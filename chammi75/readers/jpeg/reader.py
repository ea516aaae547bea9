"""JPEG (ITU-T T.81), decoded by libjpeg-turbo through imagecodecs with its exact integer transform and its smooth
chroma upsampling: the same values as Pillow and OpenCV give.

JPEG is defined up to rounding, so the decoder is part of the provenance. The size is known from the header alone;
cut-off files are refused (`markers`), because libjpeg fills them with grey.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from chammi75.errors import ReadError
from chammi75.files import StorageOptions
from chammi75.readers.image_file import ImageFile, Series, choose_series, damage_reported
from chammi75.readers.jpeg.markers import JpegHeader, check_whole, read_header, with_filler

READER_VERSION = "1"  # of this reader: raise it when the pixels or the facts that it gives change

_SMALLEST_SUSPICIOUS_BYTES = 64 << 20  # below this, a size declared too large costs nothing
_LARGEST_RATIO = 1200  # six blocks for 16 x 16 colour pixels, one bit each


class JpegReader:
    """An open JPEG; ``file`` says what it holds."""

    def __init__(self, file: IO[bytes], path: str, size_bytes: int) -> None:
        import imagecodecs

        self._stream = file
        self._header = read_header(file, path, size_bytes)
        _check_declared_size(self._header, path, size_bytes)
        self._channels: np.ndarray | None = None
        version = f"{READER_VERSION} ({' '.join(imagecodecs.jpeg8_version().split('/')[0].split('_'))})"
        self.file = ImageFile(path, "chammi75.jpeg", version, "jpeg", size_bytes, (_series(self._header),))

    def read_plane(self, series: int = 0, *, z: int = 0, t: int = 0, c: int = 0, page: int = 0) -> np.ndarray:
        """One channel, shape (height, width), uint8; uint16 where the file has more bits."""
        chosen = choose_series(self.file, series, z=z, t=t, c=c, page=page)
        if self._channels is None:
            with damage_reported(self.file.path):
                self._stream.seek(0)
                channels = decode(self._stream.read(), self.file.path)
            if chosen.sizes["C"] == 1:
                return np.ascontiguousarray(channels[:, :, 0])
            self._channels = channels
        return self._channels[:, :, c].copy()

    def close(self) -> None:
        """Forget the decoded picture."""
        self._channels = None


def open_file(
    file: IO[bytes], path: str, size_bytes: int, axes: str | None, storage_options: StorageOptions | None
) -> JpegReader:
    """Open a JPEG from a seekable file object; a JPEG has one page, so ``axes`` has nothing to name."""
    return JpegReader(file, path, size_bytes)


def decode(data: bytes, path: str = "<bytes>") -> np.ndarray:
    """The channels of a JPEG: grey; red, green and blue; or the amounts of four inks.

    Parameters
    ----------
    data : bytes
        The whole file.
    path : str
        What to call it in errors.

    Returns
    -------
    ndarray, shape (height, width, 1, 3 or 4)
        uint8, or uint16 for more than 8 bits; turned or mirrored by nothing.

    Raises
    ------
    ReadError
        If a part of the file is missing or damaged, or it is of a kind that is not read.
    """
    from io import BytesIO

    import imagecodecs

    header = read_header(BytesIO(data), path, len(data))
    _check_declared_size(header, path, len(data))
    again = with_filler(data, check_whole(data, header, path), header)
    with damage_reported(path):
        pixels = imagecodecs.jpeg8_decode(data)
        if again is not None and not np.array_equal(pixels, imagecodecs.jpeg8_decode(again)):
            raise ReadError(path, "its coded pixels end too early: the file is damaged, or was cut and closed again")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape != (header.height, header.width, header.channels):
        raise ReadError(path, f"it decodes to {pixels.shape}, its header declares otherwise: the file is damaged")
    if _is_inverted(header):
        pixels = np.invert(pixels)
    return np.ascontiguousarray(pixels)


def _check_declared_size(header: JpegHeader, path: str, size_bytes: int) -> None:
    declared = header.width * header.height * header.channels * (1 if header.bits <= 8 else 2)
    if declared > max(_SMALLEST_SUSPICIOUS_BYTES, _LARGEST_RATIO * size_bytes):
        raise ReadError(path, f"it declares {declared} bytes of pixels, the file has {size_bytes}")


def _is_inverted(header: JpegHeader) -> bool:
    """Whether four inks are stored as Adobe writes them: 255 for none."""
    return header.channels == 4 and header.adobe_transform is not None


def _series(header: JpegHeader) -> Series:
    names: tuple[str | None, ...] = {1: (None,), 3: ("r", "g", "b"), 4: ("c", "m", "y", "k")}[header.channels]
    steps, notes = [], []
    if header.channels == 3 and not header.coded_as_rgb:
        steps.append("JPEG YCbCr -> RGB")
    if header.channels == 4:
        notes.append("its colours are c-m-y-k, as amounts of ink; pictures from a microscope are grey or r-g-b")
        if header.adobe_transform == 2:
            steps.append("JPEG YCCK -> CMYK")
        if _is_inverted(header):
            steps.append("inverted CMYK -> amounts of ink")
    if header.bits not in (8, 16):
        steps.append(f"bits {header.bits} -> {'uint8' if header.bits < 8 else 'uint16'}")
    if not header.lossless:
        notes.append("compressed with loss (JPEG)")
    if header.orientation != 1:
        notes.append(
            f"the file asks to be shown turned or mirrored (Orientation {header.orientation}); it is read as stored"
        )
    return Series(
        index=0,
        axes="YX" if len(names) == 1 else "CYX",
        sizes={"T": 1, "Z": 1, "C": len(names)},
        height=header.height,
        width=header.width,
        dtype="uint8" if header.bits <= 8 else "uint16",
        significant_bits=header.bits,
        channel_names=names,
        rgb=len(names) == 3,
        notes=tuple(notes),
        steps=tuple(steps),
    )
