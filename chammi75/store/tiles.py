"""Kernels from encoded planes to the pixels of windows: head, tiles, predictor, all without the GIL.

A job is a row of int64 numbers: which plane, what is known of it, which window, and where it goes (named below). What a
plane says of itself is believed only after it was compared with what is known: every bit of its directory, its table of
tiles, the ends of each tile, the size that each tile states. A tile is decompressed into a room of its own, whose size
the C function is told. A plane with which anything is wrong is left undone; saying what is wrong is not for kernels.
"""

from __future__ import annotations

import numpy as np

from chammi75.kernels import inlined, kernel
from chammi75.store.native import (
    DEFLATE_CONTEXT,
    DEFLATE_DECOMPRESS,
    ZSTD_CONTENT_SIZE,
    ZSTD_CONTEXT,
    ZSTD_DECOMPRESS,
    ZSTD_FRAME_SIZE,
)
from chammi75.store.pointers import bytes_at, call_int, call_size_t, float32_at, uint16_at, uint32_at
from chammi75.store.predictor import unsum_u8, unsum_u16

# The numbers of a job:
PLANE, LENGTH = 0, 1  # address and number of the plane's bytes
HEIGHT, WIDTH, KIND = 2, 3, 4  # what is known of the plane: pixels, and 0, 1, 2 for uint8, uint16, float32
Y, X, ROWS, COLUMNS = 5, 6, 7, 8  # the window, inside the plane
OUT, STRIDE, OUT_KIND = 9, 10, 11  # address of its first pixel, bytes from row to row, dtype: of KIND, or a higher one
PLACE = 12  # number of the output that it is resized to
DONE = 13  # whether it could be done
JOB_NUMBERS = 14

TILE_WORDS = 128 * 128 * 4 // 8
"""Words of 8 bytes in the largest tile."""

ROOM_WORDS = 2 * TILE_WORDS + 1
"""Words that a thread needs to work in: a tile, its sums, and one for what a C function answers."""

_TILE = 128
_U8, _U16, _FLOAT = 0, 1, 2
_ZSTD, _DEFLATE = 50000, 8
_HEAD_BYTES = 160
_SHORT, _LONG = 3, 4
_ZSTD_MAGIC = 0xFD2FB528


@inlined
def _uint16(data, at):  # type: ignore[no-untyped-def]
    return np.int64(data[at]) | np.int64(data[at + 1]) << 8


@inlined
def _uint32(data, at):  # type: ignore[no-untyped-def]
    return (
        np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    )


@inlined
def _tile_edge(edge):  # type: ignore[no-untyped-def]
    return min(_TILE, (edge + 15) // 16 * 16)


@inlined
def _is_entry(data, number, tag, kind, count, value):  # type: ignore[no-untyped-def]
    at = 10 + 12 * number
    return (
        _uint16(data, at) == tag
        and _uint16(data, at + 2) == kind
        and _uint32(data, at + 4) == count
        and _uint32(data, at + 8) == value
    )


@kernel
def codec_of(address, length, height, width, kind):  # type: ignore[no-untyped-def]
    """The TIFF number of the codec of a plane, or 0 if its head is not the one that such a plane has.

    Parameters
    ----------
    address, length : int
        Its bytes.
    height, width, kind : int
        Size in pixels, and the number of the dtype, that it must have.
    """
    if length < _HEAD_BYTES or height < 1 or width < 1 or height >= 2**32 or width >= 2**32:
        return 0
    data = bytes_at(address, length)
    tile_height, tile_width = _tile_edge(height), _tile_edge(width)
    tiles = ((height + tile_height - 1) // tile_height) * ((width + tile_width - 1) // tile_width)
    start = _HEAD_BYTES + 8 * tiles
    if length < start:
        return 0
    codec = _uint32(data, 10 + 12 * 3 + 8)
    if codec != _ZSTD and codec != _DEFLATE:
        return 0
    is_float = kind == _FLOAT
    table, counts = (_HEAD_BYTES, _HEAD_BYTES + 4 * tiles) if tiles > 1 else (start, _uint32(data, _HEAD_BYTES + 4))
    good = (
        _uint32(data, 0) == 0x002A4949
        and _uint32(data, 4) == 8
        and _uint16(data, 8) == 12
        and _is_entry(data, 0, 256, _LONG, 1, width)
        and _is_entry(data, 1, 257, _LONG, 1, height)
        and _is_entry(data, 2, 258, _SHORT, 1, 8 << kind)
        and _is_entry(data, 3, 259, _SHORT, 1, codec)
        and _is_entry(data, 4, 262, _SHORT, 1, 1)
        and _is_entry(data, 5, 277, _SHORT, 1, 1)
        and _is_entry(data, 6, 317, _SHORT, 1, 3 if is_float else 2)
        and _is_entry(data, 7, 322, _SHORT, 1, tile_width)
        and _is_entry(data, 8, 323, _SHORT, 1, tile_height)
        and _is_entry(data, 9, 324, _LONG, tiles, table)
        and _is_entry(data, 10, 325, _LONG, tiles, counts)
        and _is_entry(data, 11, 339, _SHORT, 1, 3 if is_float else 1)
        and _uint16(data, 154) == 0
        and _uint32(data, 156) == 0
    )
    at = start
    for tile in range(tiles):
        good &= _uint32(data, _HEAD_BYTES + 4 * tile) == at
        at += _uint32(data, _HEAD_BYTES + 4 * (tiles + tile))
    return codec if good else 0


@kernel
def _decompress(source, count, codec, target, size, answer, tools):  # type: ignore[no-untyped-def]
    """Whether the ``count`` bytes at ``source`` became the ``size`` bytes at ``target``, no more and no fewer."""
    if codec == _ZSTD:
        if count < 4 or tools[ZSTD_CONTEXT] == 0 or _uint32(bytes_at(source, count), 0) != _ZSTD_MAGIC:
            return False  # libzstd may know frames of versions before 1, whose decoders nobody looks after
        if call_size_t(tools[ZSTD_CONTENT_SIZE], (source, count)) != size:
            return False
        if call_size_t(tools[ZSTD_FRAME_SIZE], (source, count)) != count:
            return False
        return call_size_t(tools[ZSTD_DECOMPRESS], (tools[ZSTD_CONTEXT], target, size, source, count)) == size
    if tools[DEFLATE_CONTEXT] == 0:
        return False
    arguments = (tools[DEFLATE_CONTEXT], source, count, target, size, answer.ctypes.data, 0)
    return call_int(tools[DEFLATE_DECOMPRESS], arguments) == 0 and answer[0] == count


@inlined
def _copy(source, target):  # type: ignore[no-untyped-def]
    for k in range(target.size):
        target[k] = source[k]


@kernel
def _write(pixels, row, tile_width, left, columns, kind, address, out_kind):  # type: ignore[no-untyped-def]
    """Write a part of a row of a tile, ``columns`` pixels from ``left`` on, to ``address``."""
    if kind == _U8:
        part = pixels[row * tile_width + left : row * tile_width + left + columns]
        if out_kind == _U8:
            _copy(part, bytes_at(address, columns))
        elif out_kind == _U16:
            _copy(part, uint16_at(address, columns))
        else:
            _copy(part, float32_at(address, columns))
    elif kind == _U16:
        numbers = pixels.view(np.uint16)[row * tile_width + left : row * tile_width + left + columns]
        if out_kind == _U16:
            _copy(numbers, uint16_at(address, columns))
        else:
            _copy(numbers, float32_at(address, columns))
    else:  # the most significant bytes of all pixels of a row come first
        start = 4 * row * tile_width + left
        a, b = pixels[start : start + columns], pixels[start + tile_width : start + tile_width + columns]
        start += 2 * tile_width
        c, d = pixels[start : start + columns], pixels[start + tile_width : start + tile_width + columns]
        words = uint32_at(address, columns)
        for k in range(columns):
            words[k] = np.uint32(a[k]) << 24 | np.uint32(b[k]) << 16 | np.uint32(c[k]) << 8 | np.uint32(d[k])


@kernel
def decode_window(job, out, stride, out_kind, tools, raw, room):  # type: ignore[no-untyped-def]
    """Whether the window of ``job`` was decoded to the address ``out``.

    ``raw`` holds its tiles, one after another, where they are already decompressed; the plane is not looked at then.
    """
    kind, width = job[KIND], job[WIDTH]
    codec = _ZSTD if raw.size else codec_of(job[PLANE], job[LENGTH], job[HEIGHT], width, kind)
    if codec == 0:
        return False
    tile_height, tile_width = _tile_edge(job[HEIGHT]), _tile_edge(width)
    across = (width + tile_width - 1) // tile_width
    tiles = across * ((job[HEIGHT] + tile_height - 1) // tile_height)
    size = (tile_height * tile_width) << kind
    words, sums, answer = room[: size // 8], room[TILE_WORDS : 2 * TILE_WORDS], room[2 * TILE_WORDS :]
    pixels, address = words.view(np.uint8), words.ctypes.data
    words_across = words.size // tile_height
    data = bytes_at(job[PLANE], job[LENGTH])
    y, x, y_end, x_end = job[Y], job[X], job[Y] + job[ROWS], job[X] + job[COLUMNS]
    done = 0
    for tile_row in range(y // tile_height, (y_end - 1) // tile_height + 1):
        top, bottom = max(y - tile_row * tile_height, 0), min(y_end - tile_row * tile_height, tile_height)
        for tile_column in range(x // tile_width, (x_end - 1) // tile_width + 1):
            if raw.size:
                _copy(raw[done * size // 8 :], words)
                done += 1
            else:
                entry = _HEAD_BYTES + 4 * (tile_row * across + tile_column)
                start, count = _uint32(data, entry), _uint32(data, entry + 4 * tiles)
                if start + count > data.size:
                    return False
                if not _decompress(job[PLANE] + start, count, codec, address, size, answer, tools):
                    return False
            if kind == _U16:
                unsum_u16(words, sums, words_across, top, bottom)
            else:
                unsum_u8(words, sums, words_across, top, bottom)
            left, right = max(x - tile_column * tile_width, 0), min(x_end - tile_column * tile_width, tile_width)
            to = out + ((tile_column * tile_width + left - x) << out_kind)
            for row in range(top, bottom):
                at = to + (tile_row * tile_height + row - y) * stride
                _write(pixels, row, tile_width, left, right - left, kind, at, out_kind)
    return True


@kernel
def decode_windows(jobs, first, end, tools, raw, room):  # type: ignore[no-untyped-def]
    """Decode the windows of some jobs, mark those that were, and give the number of those that were not.

    Parameters
    ----------
    jobs : ndarray of int64, shape (N, 14)
    first, end : int
        Those from ``first`` to ``end``.
    tools : ndarray of int64
        What ``native.tools`` gives, of this thread.
    raw : ndarray of uint64, 1-D
        For one job, the tiles that its window touches, decompressed; else empty.
    room : ndarray of uint64, shape (ROOM_WORDS,)
        Of this thread.
    """
    undone = 0
    for n in range(first, end):
        job = jobs[n]
        job[DONE] = decode_window(job, job[OUT], job[STRIDE], job[OUT_KIND], tools, raw, room)
        undone += 1 - job[DONE]
    return undone
