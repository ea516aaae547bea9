"""TIFF predictors over tiles, 2 (horizontal) and 3 (floating-point), as kernels that release the GIL.

Undoing a difference is a running sum along each row of a tile. It is done here on eight bytes at a time: first within
each 64-bit word, its even and odd lanes in lanes of twice their width so that no carry reaches a neighbour (a loop
without dependencies, which the compiler turns into vector instructions), then from word to word.

Method: Adobe Photoshop TIFF Technical Notes 1 to 3 (predictor 2 and 3); sums in the lanes of a word as in H. S.
Warren, Hacker's Delight, section 2-18.
"""

from __future__ import annotations

import numpy as np

from chammi75.kernels import kernel

_EVEN_U8, _EVEN_U16 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_LAST_U8, _LAST_U16 = np.uint64(0xFF), np.uint64(0xFFFF)
_TOPS_U8, _TOPS_U16 = np.uint64(0x8080808080808080), np.uint64(0x8000800080008000)
_B8, _B16, _B32, _B48, _B56 = (np.uint64(shift) for shift in (8, 16, 32, 48, 56))


@kernel
def unsum_u8(words, before, across, first, end):  # type: ignore[no-untyped-def]
    """Turn bytes into running sums along each row, from row ``first`` to ``end``, in place.

    Parameters
    ----------
    words : ndarray of uint64, 1-D
        The rows, eight bytes in a word.
    before : ndarray of uint64, 1-D, at least as long
        Room to work in.
    across : int
        Words in a row.
    """
    flat, sums = words[first * across : end * across], before[first * across : end * across]
    for k in range(flat.size):
        even = flat[k] & _EVEN_U8
        pairs = even + ((flat[k] >> _B8) & _EVEN_U8)
        pairs += pairs << _B16
        pairs += pairs << _B32
        flat[k] = ((even + (pairs << _B16)) & _EVEN_U8) | ((pairs & _EVEN_U8) << _B8)
    _sum_before(flat, sums, across, _B56)
    for k in range(flat.size):
        carry = sums[k] & _LAST_U8
        carry |= carry << _B8
        carry |= carry << _B16
        carry |= carry << _B32
        flat[k] = ((flat[k] & ~_TOPS_U8) + (carry & ~_TOPS_U8)) ^ ((flat[k] ^ carry) & _TOPS_U8)


@kernel
def unsum_u16(words, before, across, first, end):  # type: ignore[no-untyped-def]
    """The same for numbers of 16 bits, four in a word."""
    flat, sums = words[first * across : end * across], before[first * across : end * across]
    for k in range(flat.size):
        even = flat[k] & _EVEN_U16
        pairs = even + ((flat[k] >> _B16) & _EVEN_U16)
        pairs += pairs << _B32
        flat[k] = ((even + (pairs << _B32)) & _EVEN_U16) | ((pairs & _EVEN_U16) << _B16)
    _sum_before(flat, sums, across, _B48)
    for k in range(flat.size):
        carry = sums[k] & _LAST_U16
        carry |= carry << _B16
        carry |= carry << _B32
        flat[k] = ((flat[k] & ~_TOPS_U16) + (carry & ~_TOPS_U16)) ^ ((flat[k] ^ carry) & _TOPS_U16)


@kernel
def _sum_before(words, before, across, last):  # type: ignore[no-untyped-def]
    """Sum of the last lane (from bit ``last`` on) of all words before each word of a row."""
    for start in range(0, words.size, across):
        line, sums = words[start : start + across], before[start : start + across]
        total = np.uint64(0)
        for k in range(across):
            sums[k] = total
            total += line[k] >> last


@kernel
def difference_tiles(plane, tiles):  # type: ignore[no-untyped-def]
    """Cut ``plane`` (H, W) of unsigned integers into ``tiles`` (n, tile height, tile width) and apply predictor 2.

    Beyond the plane all differences are zero, which costs next to nothing to store and to read.
    """
    height, width = plane.shape
    count, tile_height, tile_width = tiles.shape
    across = (width + tile_width - 1) // tile_width
    for k in range(count):
        top = (k // across) * tile_height
        left = (k % across) * tile_width
        rows, columns = min(tile_height, height - top), min(tile_width, width - left)
        tiles[k, rows:, :] = 0
        tiles[k, :rows, columns:] = 0
        for row in range(rows):
            line, target = plane[top + row, left : left + columns], tiles[k, row]
            target[0] = line[0]
            for column in range(1, columns):
                target[column] = line[column] - line[column - 1]


@kernel
def difference_float32_tiles(plane, tiles):  # type: ignore[no-untyped-def]
    """Cut ``plane`` (H, W), float32 seen as uint32, into ``tiles`` (n, tile height, 4 x tile width); predictor 3.

    Beyond the plane the last column goes on, and rows are zero.
    """
    height, width = plane.shape
    count, tile_height, row_bytes = tiles.shape
    tile_width = row_bytes // 4
    across = (width + tile_width - 1) // tile_width
    for k in range(count):
        top = (k // across) * tile_height
        left = (k % across) * tile_width
        rows = min(tile_height, height - top)
        tiles[k, rows:, :] = 0
        for row in range(rows):
            for column in range(tile_width):
                value = plane[top + row, min(left + column, width - 1)]
                tiles[k, row, column] = np.uint8(value >> np.uint32(24))
                tiles[k, row, tile_width + column] = np.uint8((value >> np.uint32(16)) & np.uint32(0xFF))
                tiles[k, row, 2 * tile_width + column] = np.uint8((value >> np.uint32(8)) & np.uint32(0xFF))
                tiles[k, row, 3 * tile_width + column] = np.uint8(value & np.uint32(0xFF))
            for at in range(row_bytes - 1, 0, -1):
                tiles[k, row, at] = tiles[k, row, at] - tiles[k, row, at - 1]
