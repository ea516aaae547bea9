"""The markers of a JPEG (ITU-T T.81): its size before a pixel is decoded, and whether all of it is there.

libjpeg fills what is missing with grey and only warns. So the end marker and the restart markers are looked for here,
and `with_filler` gives a second file to decode: its coded data are followed by bytes that a whole picture never reads.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import IO

from chammi75.errors import ReadError

_SOI, _EOI, _SOS, _DRI, _DNL, _TEM = 0xD8, 0xD9, 0xDA, 0xDD, 0xDC, 0x01
_APP1, _APP14 = 0xE1, 0xEE
_FRAMES = {
    0xC0: "baseline",
    0xC1: "sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC9: "sequential, arithmetic coding",
    0xCA: "progressive, arithmetic coding",
}
_REFUSED_FRAMES = {
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xCB: "lossless with arithmetic coding",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
    0xF7: "JPEG-LS",
}
_WITHOUT_LENGTH = {_SOI, _EOI, _TEM, *range(0xD0, 0xD8)}
_MOST_SEGMENTS = 10_000
_MOST_SCANS = 200  # a progressive picture has about ten; each costs a pass over the whole picture
_LARGEST_HEADER_SEGMENT = 1 << 16
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# libjpeg goes on with zero bits: so these begin with ones. 0xff would begin a marker.
_FILLER = bytes((37 * k * k + 91 * k + 254) % 255 for k in range(48))
_MOST_FILLERS = 100_000


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the pixels of a JPEG.

    Parameters
    ----------
    width, height : int
        Pixels.
    bits : int
        Per sample: 8, or up to 16 in the rare sequential 12-bit and lossless ones.
    sampling : tuple of (int, int)
        Horizontal and vertical sampling factors, one pair per component.
    components : bytes
        The components' identifiers.
    process : str
        ``"baseline"``, ``"progressive"``, ``"lossless"`` …
    restart_interval : int
        Coded units between restart markers; 0 if there are none.
    jfif : bool
        Whether a JFIF marker says that the colours are YCbCr.
    adobe_transform : int or None
        What an Adobe marker says of the colours: 0 as they are, 1 YCbCr, 2 YCCK.
    orientation : int
        What Exif asks viewers to do; 1 is nothing.
    """

    width: int
    height: int
    bits: int
    sampling: tuple[tuple[int, int], ...]
    components: bytes
    process: str
    restart_interval: int
    jfif: bool
    adobe_transform: int | None
    orientation: int

    @property
    def channels(self) -> int:
        """Components per pixel."""
        return len(self.components)

    @property
    def lossless(self) -> bool:
        """Whether the stored values are the original ones."""
        return self.process == "lossless"

    @property
    def coded_as_rgb(self) -> bool:
        """Whether three components are red, green and blue themselves (libjpeg's rule)."""
        if self.jfif or self.channels != 3:
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        return self.components == b"RGB" or (self.lossless and self.components == b"\1\2\3")

    @property
    def units(self) -> int:
        """Coded units (MCU) of a scan of all components."""
        across, down = (max(pair[axis] for pair in self.sampling) for axis in (0, 1))
        step = 1 if self.lossless else 8
        if self.channels == 1:
            across = down = 1
        return -(-self.width // (step * across)) * -(-self.height // (step * down))


def read_header(file: IO[bytes], path: str, size_bytes: int) -> JpegHeader:
    """The header of an open JPEG; what it does not need is skipped, the pixels are not touched.

    Raises
    ------
    ReadError
        If the file is no JPEG, ends before its pixels, or is of a kind that is not read.
    """
    file.seek(0)
    if file.read(2) != b"\xff\xd8":
        raise ReadError(path, "it does not begin as a JPEG does")
    frame: tuple[int, bytes] | None = None
    interval, jfif, adobe, orientation = 0, False, None, 1
    for _ in range(_MOST_SEGMENTS):
        marker, length = _next_segment(file, path)
        if marker in _REFUSED_FRAMES:
            raise ReadError(
                path, f"it is a {_REFUSED_FRAMES[marker]} JPEG; baseline, progressive and lossless ones are read"
            )
        wanted = marker in _FRAMES or marker in (_DRI, 0xE0, _APP1, _APP14)
        if file.tell() + length > size_bytes:
            raise ReadError(path, "the file is truncated: it ends before its pixels")
        if not wanted and marker != _SOS:
            file.seek(length, os.SEEK_CUR)
            continue
        body = file.read(length)
        if marker in _FRAMES:
            if frame is not None:
                raise ReadError(path, "it declares more than one frame, which only hierarchical JPEG has")
            frame = marker, body
        elif marker == _DRI and length >= 2:
            interval = struct.unpack_from(">H", body)[0]
        elif marker == 0xE0:
            jfif = jfif or body.startswith(b"JFIF\0")
        elif marker == _APP14 and body.startswith(b"Adobe") and length >= 12:
            adobe = body[11]
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
        elif marker == _SOS:
            if frame is None:
                raise ReadError(path, "its pixels stand before its size (no frame header)")
            return _header(frame, interval, jfif, adobe, orientation, path)
    raise ReadError(path, f"it has more than {_MOST_SEGMENTS} segments before its pixels")


@dataclass(frozen=True)
class CodedData:
    """Where the coded data of a whole JPEG are.

    Parameters
    ----------
    ends : tuple of int
        Where each scan, and each part of it between restart markers, ends.
    """

    ends: tuple[int, ...]


def check_whole(data: bytes, header: JpegHeader, path: str) -> CodedData:
    """Refuse a JPEG of which the end or a part between restart markers is missing.

    Raises
    ------
    ReadError
        If its end is not there, it has far too many scans, or a restart marker is missing.
    """
    position, scans, interval = 2, 0, header.restart_interval
    ends: list[int] = []
    while True:
        start = data.find(b"\xff", position)
        while start >= 0 and data[start : start + 1] == b"\xff":
            start += 1
        if start < 0 or start >= len(data):
            raise ReadError(path, "the file is truncated: its end marker is missing")
        marker = data[start]
        position = start + 1
        if marker == _EOI:
            break
        if marker in _WITHOUT_LENGTH or marker == 0:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise ReadError(path, f"the file is truncated or damaged: the segment at byte {start - 1} is cut off")
        if marker == _DRI:
            interval = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _DNL:
            raise ReadError(path, "it states its height behind its pixels (DNL), which is not read")
        position += length
        if marker != _SOS:
            continue
        scans += 1
        if scans > _MOST_SCANS:
            raise ReadError(path, f"it has more than {_MOST_SCANS} scans; no camera writes such")
        of_all = data[position - length + 2] == header.channels
        parts = _scan_ends(data, position, path)
        position = parts[-1]
        ends += parts
        if interval and of_all and not header.lossless:
            expected = -(-header.units // interval) - 1
            if len(parts) - 1 < expected:
                raise ReadError(
                    path, f"its pixels are incomplete: {len(parts) - 1} of {expected} restart markers are there"
                )
    if not scans:
        raise ReadError(path, "it has no pixels (no scan)")
    return CodedData(tuple(ends))


def with_filler(data: bytes, coded: CodedData, header: JpegHeader) -> bytes | None:
    """The same picture with bytes behind its coded data, which no decoder reads if the data are whole.

    Returns
    -------
    bytes or None
        None for arithmetic coding, where a whole picture may end early.
    """
    if "arithmetic" in header.process:
        return None
    pieces, start = [], 0
    for end in coded.ends if len(coded.ends) <= _MOST_FILLERS else coded.ends[-1:]:
        pieces += [data[start:end], _FILLER]
        start = end
    return b"".join([*pieces, data[start:]])


def _scan_ends(data: bytes, position: int, path: str) -> list[int]:
    """Where coded data end: at each restart marker, and last at the marker behind them."""
    ends: list[int] = []
    for found in _MARKER_IN_SCAN.finditer(data, position):
        ends.append(found.start())
        if not 0xD0 <= found.group(1)[0] <= 0xD7:
            return ends
    raise ReadError(path, "the file is truncated: its end marker is missing")


def _next_segment(file: IO[bytes], path: str) -> tuple[int, int]:
    """The next marker that has a length, and the bytes of its body, at which ``file`` then stands."""
    byte = file.read(1)
    while True:
        while byte and byte != b"\xff":
            raise ReadError(path, f"it is damaged: no marker where one is needed, at byte {file.tell() - 1}")
        while byte == b"\xff":
            byte = file.read(1)
        if not byte:
            raise ReadError(path, "the file is truncated: it ends before its pixels")
        marker = byte[0]
        if marker == _EOI:
            raise ReadError(path, "it ends before any pixels")
        if marker not in _WITHOUT_LENGTH and marker != 0:
            break
        byte = file.read(1)
    stated = file.read(2)
    if len(stated) < 2:
        raise ReadError(path, "the file is truncated: it ends before its pixels")
    length = int.from_bytes(stated, "big")
    if length < 2:
        raise ReadError(path, f"the segment {marker:#x} declares {length} bytes, it needs 2 at least")
    return marker, length - 2


def _header(
    frame: tuple[int, bytes], interval: int, jfif: bool, adobe: int | None, orientation: int, path: str
) -> JpegHeader:
    marker, body = frame
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise ReadError(path, "its frame header is cut off")
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if height == 0:
        raise ReadError(path, "it states its height behind its pixels (DNL), which is not read")
    if width == 0 or count not in (1, 3, 4):
        raise ReadError(path, f"it declares {width} x {height} pixels of {count} components; 1, 3 or 4 are read")
    factors = tuple((body[7 + 3 * k] >> 4, body[7 + 3 * k] & 15) for k in range(count))
    if any(not 1 <= factor <= 4 for pair in factors for factor in pair):
        raise ReadError(path, "its sampling factors are none that JPEG has")
    process = _FRAMES[marker]
    depths = range(2, 17) if process == "lossless" else (8, 12)
    if bits not in depths:
        raise ReadError(path, f"it declares {bits} bits per sample in a {process} JPEG, which is not read")
    return JpegHeader(
        width=width,
        height=height,
        bits=bits,
        sampling=factors,
        components=bytes(body[6 + 3 * k] for k in range(count)),
        process=process,
        restart_interval=interval,
        jfif=jfif,
        adobe_transform=adobe,
        orientation=orientation,
    )


def _exif_orientation(block: bytes) -> int:
    """Orientation (1 to 8) in a block of Exif, which is a small TIFF; 1 where it does not say so in order."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    start = struct.unpack_from(order + "I", block, 4)[0]
    if start + 2 > len(block):
        return 1
    count = struct.unpack_from(order + "H", block, start)[0]
    for entry in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        code, kind, _, value = struct.unpack_from(order + "HHIH", block, entry)
        if code == 274 and kind == 3 and 1 <= value <= 8:
            return int(value)
    return 1
