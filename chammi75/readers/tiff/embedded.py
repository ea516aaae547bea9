"""The size that a compressed strip or tile states itself: JPEG, JPEG 2000, PNG and WebP have headers of their own.

Their decoders allocate what that header says, whatever the page says; so it is compared before.
"""

from __future__ import annotations

import struct

HEAD_BYTES = 4096
"""How much of a strip or tile is looked at; a JPEG's tables stand before its size."""

_JPEG = frozenset({6, 7, 33007, 34892})
_JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
_PNG = frozenset({34933})
_WEBP = frozenset({34927, 50001})
WITH_HEADERS = _JPEG | _JPEG_2000 | _PNG | _WEBP
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})


def stated_size(head: bytes, compression: int) -> tuple[int, int] | None:
    """Width and height in the first bytes of a compressed strip or tile; None if they do not say.

    Examples
    --------
    >>> stated_size(b"\\x89PNG\\r\\n\\x1a\\n\\0\\0\\0\\rIHDR\\0\\0\\x04\\0\\0\\0\\0\\x10", 34933)
    (1024, 16)
    """
    if compression in _PNG and head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    if compression in _JPEG_2000:
        return _jpeg_2000(head)
    if compression in _WEBP and head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head)
    if compression in _JPEG and head.startswith(b"\xff\xd8"):
        return _jpeg(head)
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, position + 5)
            return width, height
        position += 1 if marker == 0xFF else 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return None


def _jpeg_2000(head: bytes) -> tuple[int, int] | None:
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(head) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", head, start + 8)
    return max(0, right - left), max(0, bottom - top)


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
