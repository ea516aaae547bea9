"""What must be true of a TIFF before a pixel of it is decoded.

A TIFF is a chain of page directories, each with the places of its strips or tiles. Whatever lies behind the end of the
file is refused here, because decoders deliver zeros for what they do not find, and so is a declared size that the file
cannot hold.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import IO, Any

from chammi75.errors import ReadError
from chammi75.readers.tiff.embedded import HEAD_BYTES, WITH_HEADERS, stated_size

_SMALLEST_SUSPICIOUS_BYTES = 256 << 20  # below this, a size declared too large costs nothing
_LARGEST_RATIO = 2000  # a plane of one value packs 1000 times; nothing real packs more
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FIRST_PRIVATE_TAG = 32768  # what a vendor's tag holds is no matter of ours
_JPEG = (7, 33007, 34892)
_YCBCR = 6
_LARGEST_BLOCK = 64  # some writers pad a strip or tile to whole coded blocks
_END_OF_JPEG = b"\xff\xd9"
_JPEG_TAIL_BYTES = 256
_LAYOUT_TAGS = frozenset({256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 339})
_SUBFILE_TAG, _NOT_AN_IMAGE = 254, 0b101  # NewSubfileType: a reduced copy, a transparency mask
_BYTE, _SHORT, _LONG = 1, 3, 4


@dataclass(frozen=True)
class PageChain:
    """The chain of page directories.

    Parameters
    ----------
    layouts : tuple of int
        One per page; equal numbers are pages of one size, type and layout, as far as their directories alone say.
    file : binary file object
        The file to read on. It is another one than was given if the chain runs back into itself: there it ends where
        it would have turned back, because tifffile follows a circle for ever.
    """

    layouts: tuple[int, ...]
    file: IO[bytes]

    @property
    def is_uniform(self) -> bool:
        """Whether all pages are alike."""
        return len(set(self.layouts)) == 1


def read_chain(file: IO[bytes], path: str, size_bytes: int) -> PageChain:
    """Follow the chain of page directories to its end.

    Parameters
    ----------
    file : binary file object, seekable
        A TIFF or BigTIFF.

    Returns
    -------
    PageChain

    Raises
    ------
    ReadError
        If a directory or the value of a standard tag lies behind the end of the file, or there is no directory.
    """
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    if len(head) < 8 or (head[2:4] in (b"+\0", b"\0+") and len(head) < 16):
        raise ReadError(path, f"the file is truncated: it has only {size_bytes} bytes")
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_format, entry_bytes, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    count_bytes, next_bytes = struct.calcsize(order + count_format), struct.calcsize(order + next_format)
    offset = struct.unpack_from(order + next_format, head, 8 if big else 4)[0]
    seen: set[int] = set()
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    layouts: list[int] = []
    pointer = 0
    while offset:
        if offset in seen:
            return PageChain(tuple(layouts), _without_circle(file, pointer, next_bytes, path, size_bytes))
        if offset + count_bytes > size_bytes:
            raise ReadError(path, _cut_off(f"the directory of page {len(seen)}", offset, size_bytes))
        file.seek(offset)
        entries = struct.unpack(order + count_format, file.read(count_bytes))[0]
        end = offset + count_bytes + entries * entry_bytes
        if end + next_bytes > size_bytes:
            raise ReadError(path, _cut_off(f"the directory of page {len(seen)}", end + next_bytes, size_bytes))
        table = file.read(entries * entry_bytes)
        layout: list[tuple[int, int]] = []
        for code, kind, count, value in struct.iter_unpack(order + "HH" + 2 * next_format, table):
            length = count * _VALUE_BYTES.get(kind, 0)
            if code < _FIRST_PRIVATE_TAG and length > next_bytes and value + length > size_bytes:
                raise ReadError(path, _cut_off(f"tag {code} of page {len(seen)}", value + length, size_bytes))
            if count == 1 and kind in (_BYTE, _SHORT, _LONG) and (code in _LAYOUT_TAGS or code == _SUBFILE_TAG):
                stated = _inline(value, _VALUE_BYTES[kind], next_bytes, order)
                layout.append((code, stated & _NOT_AN_IMAGE if code == _SUBFILE_TAG else stated))
        layouts.append(numbers.setdefault(tuple(item for item in layout if item != (_SUBFILE_TAG, 0)), len(numbers)))
        seen.add(offset)
        pointer = end
        offset = struct.unpack(order + next_format, file.read(next_bytes))[0]
    if not seen:
        raise ReadError(path, "it has no page")
    return PageChain(tuple(layouts), file)


def _inline(value: int, used_bytes: int, field_bytes: int, order: str) -> int:
    """A number that stands in the first bytes of a directory's value field."""
    return value & ((1 << 8 * used_bytes) - 1) if order == "<" else value >> 8 * (field_bytes - used_bytes)


def _without_circle(file: IO[bytes], pointer: int, width: int, path: str, size_bytes: int) -> IO[bytes]:
    if size_bytes > _SMALLEST_SUSPICIOUS_BYTES:
        raise ReadError(path, "its pages run in a circle")
    file.seek(0)
    content = bytearray(file.read())
    content[pointer : pointer + width] = bytes(width)
    return io.BytesIO(content)


def check_declared_size(page: Any, planes: int, path: str, size_bytes: int) -> None:
    """Refuse a tifffile page whose samples are of no supported kind, or that declares more than the file can hold.

    Parameters
    ----------
    page : tifffile.TiffPage
    planes : int
        How many pages like it the image declares.
    """
    if isinstance(page.bitspersample, tuple):
        raise ReadError(path, f"its samples have different numbers of bits {page.bitspersample}; equal ones are read")
    if page.dtype is None:
        raise ReadError(
            path, f"samples of {page.bitspersample} bits and sample format {page.sampleformat} are not read"
        )
    if page.dtype.kind == "c":
        raise ReadError(path, "its samples are complex numbers; integers and floats are read")
    if not page.shaped or 0 in page.shaped:
        raise ReadError(path, f"it declares an empty page (shape {page.shape})")
    samples = math.prod(page.shaped)
    packed = _packed_bytes(page)
    most = max(_SMALLEST_SUSPICIOUS_BYTES, _LARGEST_RATIO * size_bytes)
    in_memory = samples * page.dtype.itemsize
    if page.is_tiled:
        tile = page.tilewidth * page.tilelength * page.tiledepth * page.samplesperpixel * page.dtype.itemsize
        if tile > most:
            raise ReadError(path, f"it declares tiles of {tile} bytes, the file has {size_bytes}")
    if page.compression == 1 and packed > size_bytes:
        raise ReadError(path, f"it declares {packed} bytes of uncompressed pixels, the file has {size_bytes}")
    if in_memory * planes > most:
        raise ReadError(path, f"it declares {in_memory * planes} bytes of pixels, the file has {size_bytes}")


def _packed_bytes(page: Any) -> int:
    """Bytes of a page's samples without compression; rows that end within a byte are counted without their padding."""
    if page.photometric == _YCBCR and page.subsampling not in (None, (1, 1)) and page.compression not in _JPEG:
        across, down = page.subsampling
        return int(-(-page.imagewidth // across) * -(-page.imagelength // down) * (across * down + 2))
    return int(math.prod(page.shaped)) * int(page.bitspersample) // 8


def check_segments(page: Any, file: Any, path: str, size_bytes: int) -> None:
    """Refuse a tifffile page of which a strip or tile is missing, cut off or too short.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
    file : tifffile.FileHandle
        Of the file of that page.
    """
    keyframe = page.keyframe
    kind = "tile" if keyframe.is_tiled else "strip"
    expected = math.prod(keyframe.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    for number in range(expected):
        if number >= len(offsets) or number >= len(counts) or offsets[number] == 0 or counts[number] == 0:
            raise ReadError(path, f"{kind} {number} of {expected} is missing")
        if offsets[number] + counts[number] > size_bytes:
            raise ReadError(
                path, _cut_off(f"{kind} {number} of {expected}", offsets[number] + counts[number], size_bytes)
            )
        if keyframe.compression in WITH_HEADERS:
            file.seek(offsets[number])
            size = stated_size(file.read(min(counts[number], HEAD_BYTES)), int(keyframe.compression))
            if size is not None and math.prod(size) > _most_pixels(keyframe):
                raise ReadError(path, f"{kind} {number} of {expected} states {size[0]} x {size[1]} pixels, too many")
        if keyframe.compression in _JPEG:
            tail = min(counts[number], _JPEG_TAIL_BYTES)
            file.seek(offsets[number] + counts[number] - tail)
            if _END_OF_JPEG not in file.read(tail):  # libjpeg only warns, and fills in grey
                raise ReadError(path, f"the JPEG data of {kind} {number} of {expected} is cut off")
    if keyframe.compression == 1:
        needed, stored = _packed_bytes(keyframe), sum(counts[:expected])
        if stored < needed:
            raise ReadError(path, f"its {kind}s hold {stored} bytes, {needed} are needed")


def _most_pixels(page: Any) -> int:
    """Pixels of a tile or strip, in whole coded blocks."""
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.imagelength)
    return (int(width) + _LARGEST_BLOCK) * (int(height) + _LARGEST_BLOCK)


def _cut_off(what: str, end: int, size_bytes: int) -> str:
    return f"the file is truncated or damaged: {what} reaches to byte {end}, the file has {size_bytes}"
