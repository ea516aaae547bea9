"""TIFF predictors over tiles, 2 (horizontal) and 3 (floating-point), as kernels that release the GIL.

Undoing a difference is a running sum along each row of a tile. It is done here on eight bytes at a time: the odd and
even lanes of a 64-bit word are summed by one multiplication each, in lanes of twice their width so that no carry
reaches a neighbour.

Method: Adobe Photoshop TIFF Technical Notes 1 to 3 (predictor 2 and 3); prefix sums by multiplication as in H. S.
Warren, Hacker's Delight, section 5-1.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_JIT = {"nogil": True, "cache": True, "boundscheck": False}
_U8_LANES = np.uint64(0x00FF00FF00FF00FF)
_U8_ONES = np.uint64(0x0001000100010001)
_U16_LANES = np.uint64(0x0000FFFF0000FFFF)
_U16_ONES = np.uint64(0x0000000100000001)
_B8, _B16, _B32, _B48, _B56 = (np.uint64(shift) for shift in (8, 16, 32, 48, 56))


@nb.njit(**_JIT)
def _sum_row_u8(source, words):  # type: ignore[no-untyped-def]
    carry = np.uint64(0)
    for k in range(words.shape[0]):
        word = source[k]
        even = (word & _U8_LANES) * _U8_ONES
        odd = ((word >> _B8) & _U8_LANES) * _U8_ONES
        low = even + (odd << _B16) + carry
        high = even + odd + carry
        words[k] = (low & _U8_LANES) | ((high & _U8_LANES) << _B8)
        carry = ((high >> _B48) & np.uint64(0xFF)) * _U8_ONES


@nb.njit(**_JIT)
def _sum_row_u16(source, words):  # type: ignore[no-untyped-def]
    carry = np.uint64(0)
    for k in range(words.shape[0]):
        word = source[k]
        even = (word & _U16_LANES) * _U16_ONES
        odd = ((word >> _B16) & _U16_LANES) * _U16_ONES
        low = even + (odd << _B32) + carry
        high = even + odd + carry
        words[k] = (low & _U16_LANES) | ((high & _U16_LANES) << _B16)
        carry = ((high >> _B32) & np.uint64(0xFFFF)) * _U16_ONES


@nb.njit(**_JIT)
def sum_rows_u8(source, words, rows):  # type: ignore[no-untyped-def]
    """Undo predictor 2 on the first ``rows`` rows of a uint8 tile.

    ``source`` and ``words`` are (tile height, tile width / 8) uint64: the differences, and where the pixels go.
    """
    for y in range(rows):
        _sum_row_u8(source[y], words[y])


@nb.njit(**_JIT)
def sum_rows_u16(source, words, rows):  # type: ignore[no-untyped-def]
    """Undo predictor 2 on the first ``rows`` rows of a uint16 tile.

    ``source`` and ``words`` are (tile height, tile width / 4) uint64: the differences, and where the pixels go.
    """
    for y in range(rows):
        _sum_row_u16(source[y], words[y])


@nb.njit(**_JIT)
def unsum_float32(source, planes, words, rows, top, left, out, y, x, width):  # type: ignore[no-untyped-def]
    """Undo predictor 3.

    ``source`` and ``words`` are (tile height, tile width / 2) uint64: the differences, and room for their sums, which
    ``planes`` shows as bytes, (tile height, 4 x tile width), the most significant bytes of a row first.

    ``out`` is the target as uint32 words; rows ``top`` to ``rows`` and ``width`` columns from ``left`` are written
    from (y, x) on.
    """
    tile_width = planes.shape[1] // 4
    for row in range(top, rows):
        _sum_row_u8(source[row], words[row])
        for column in range(width):
            at = left + column
            out[y + row - top, x + column] = (
                (np.uint32(planes[row, at]) << np.uint32(24))
                | (np.uint32(planes[row, tile_width + at]) << np.uint32(16))
                | (np.uint32(planes[row, 2 * tile_width + at]) << np.uint32(8))
                | np.uint32(planes[row, 3 * tile_width + at])
            )


@nb.njit(**_JIT)
def difference_tiles(plane, tiles):  # type: ignore[no-untyped-def]
    """Cut ``plane`` (H, W) of unsigned integers into ``tiles`` (n, tile height, tile width) and apply predictor 2.

    Beyond the plane, the last row and column go on, which costs nothing once differences are taken.
    """
    height, width = plane.shape
    count, tile_height, tile_width = tiles.shape
    across = (width + tile_width - 1) // tile_width
    for k in range(count):
        top = (k // across) * tile_height
        left = (k % across) * tile_width
        inside = min(tile_width, width - left)
        for row in range(tile_height):
            y = min(top + row, height - 1)
            tiles[k, row, 0] = plane[y, left]
            for column in range(1, inside):
                tiles[k, row, column] = plane[y, left + column] - plane[y, left + column - 1]
            for column in range(inside, tile_width):
                tiles[k, row, column] = 0


@nb.njit(**_JIT)
def difference_float32_tiles(plane, tiles):  # type: ignore[no-untyped-def]
    """Cut ``plane`` (H, W), float32 seen as uint32, into ``tiles`` (n, tile height, 4 x tile width); predictor 3."""
    height, width = plane.shape
    count, tile_height, row_bytes = tiles.shape
    tile_width = row_bytes // 4
    across = (width + tile_width - 1) // tile_width
    for k in range(count):
        top = (k // across) * tile_height
        left = (k % across) * tile_width
        for row in range(tile_height):
            y = min(top + row, height - 1)
            for column in range(tile_width):
                value = plane[y, min(left + column, width - 1)]
                tiles[k, row, column] = np.uint8(value >> np.uint32(24))
                tiles[k, row, tile_width + column] = np.uint8((value >> np.uint32(16)) & np.uint32(0xFF))
                tiles[k, row, 2 * tile_width + column] = np.uint8((value >> np.uint32(8)) & np.uint32(0xFF))
                tiles[k, row, 3 * tile_width + column] = np.uint8(value & np.uint32(0xFF))
            for at in range(row_bytes - 1, 0, -1):
                tiles[k, row, at] = tiles[k, row, at] - tiles[k, row, at - 1]
