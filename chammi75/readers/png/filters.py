"""Undo the five PNG row filters, compiled.

PNG (ISO/IEC 15948, section 9) subtracts from each byte a guess made from the byte one pixel to the left (``a``), the
byte above (``b``) and the byte above left (``c``). Undoing it is one pass over the rows, modulo 256. Paeth is the
filter of most microscopy and the slow one: each byte waits for the one before it. Four rows are therefore undone at
once, each one pixel behind the row above it, so that four such chains run side by side in one core. The kernels release
the GIL.

Importing this module imports numba; it is imported where a first PNG is decoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chammi75.kernels import inlined, kernel

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
_BYTE = 255


def unfilter(filtered: bytes | bytearray | memoryview, height: int, row_bytes: int, pixel_bytes: int) -> np.ndarray:
    """The bytes of an image, from inflated PNG rows that each begin with the number of their filter.

    Parameters
    ----------
    filtered : bytes-like
        ``height`` rows of one filter byte and ``row_bytes`` bytes.
    height, row_bytes : int
        Rows, and bytes in a row without its filter byte.
    pixel_bytes : int
        Bytes of a whole pixel, 1 to 8; 1 where a pixel is smaller than a byte.

    Returns
    -------
    ndarray of uint8, shape (height, row_bytes)

    Raises
    ------
    ValueError
        If a row names a filter that PNG does not have, or ``filtered`` has another length.

    Examples
    --------
    >>> unfilter(bytes([1, 5, 1, 1, 2, 1, 1, 1]), height=2, row_bytes=3, pixel_bytes=1).tolist()
    [[5, 6, 7], [6, 7, 8]]
    """
    source = np.frombuffer(filtered, np.uint8)
    if source.size != height * (row_bytes + 1):
        raise ValueError(f"{source.size} bytes are not {height} rows of {row_bytes} bytes and a filter byte")
    source = source.reshape(height, row_bytes + 1)
    # A zero row above and a zero pixel to the left spare the kernels every special case of the first row and column.
    rows = np.empty((height + 1, pixel_bytes + row_bytes), np.uint8)
    rows[0] = 0
    rows[:, :pixel_bytes] = 0
    bad_row = _undo_rows(source, rows, pixel_bytes)
    if bad_row >= 0:
        raise ValueError(f"row {bad_row} has filter {source[bad_row, 0]}; PNG has 0 to 4")
    return rows[1:, pixel_bytes:]


@inlined
def _paeth(a: Any, b: Any, c: Any) -> Any:
    # The neighbour nearest to a + b - c, ties in the order a, b, c, written without the three distances:
    # with low <= high the two of a and b, it is low if 3c - a - b >= high, high if 3c - a - b <= low, else c.
    threshold = 3 * c - (a + b)
    low = min(a, b)
    high = max(a, b)
    inner = low if high <= threshold else c
    return high if threshold <= low else inner


@kernel
def _undo_rows(source: Any, rows: Any, step: int) -> int:
    height = source.shape[0]
    y = 0
    while y < height:
        kind = source[y, 0]
        if kind > _PAETH:
            return y
        if kind == _PAETH:
            if (
                y + 3 < height
                and source[y + 1, 0] == _PAETH
                and source[y + 2, 0] == _PAETH
                and source[y + 3, 0] == _PAETH
            ):
                _undo_four_paeth(source, rows, y, step)
                y += 4
                continue
            _undo_paeth(source[y, 1:], rows[y], rows[y + 1], step)
        else:
            _undo_simple(kind, source[y, 1:], rows[y], rows[y + 1], step)
        y += 1
    return -1


@kernel
def _undo_simple(kind: int, line: Any, above: Any, out: Any, step: int) -> None:
    count = line.size
    if kind == _NONE:
        for x in range(count):
            out[x + step] = line[x]
    elif kind == _SUB:
        for phase in range(min(step, count)):
            left = np.int32(0)
            for x in range(phase, count, step):
                left = (left + line[x]) & _BYTE
                out[x + step] = left
    elif kind == _UP:
        for x in range(count):
            out[x + step] = line[x] + above[x + step]
    else:
        for phase in range(min(step, count)):
            left = np.int32(0)
            for x in range(phase, count, step):
                left = (line[x] + ((left + np.int32(above[x + step])) >> 1)) & _BYTE
                out[x + step] = left


@kernel
def _undo_paeth(line: Any, above: Any, out: Any, step: int) -> None:
    count = line.size
    for phase in range(min(step, count)):
        a = np.int32(0)
        c = np.int32(0)
        for x in range(phase, count, step):
            b = np.int32(above[x + step])
            a = (np.int32(line[x]) + _paeth(a, b, c)) & _BYTE
            out[x + step] = a
            c = b


@kernel
def _undo_four_paeth(source: Any, rows: Any, y: int, step: int) -> None:
    count = source.shape[1] - 1
    for phase in range(min(step, count)):
        pixels = (count - phase + step - 1) // step
        a0 = a1 = a2 = a3 = np.int32(0)  # the byte to the left, in each of the four rows
        c0 = c1 = c2 = c3 = np.int32(0)  # the byte above that one
        line = np.uintp(
            phase + 1
        )  # where this pixel's byte is in a row of source; unsigned, or numba tests each for < 0
        out = np.uintp(phase + step)  # and in a row of rows
        stride = np.uintp(step)
        row = np.uintp(y)
        one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
        for tick in range(pixels + 3):
            # The lowest row first: each reads what the row above it has left from the tick before.
            if tick >= 3:
                b = a2
                a3 = (np.int32(source[row + three, line - three * stride]) + _paeth(a3, b, c3)) & _BYTE
                rows[row + four, out - three * stride] = a3
                c3 = b
            if 2 <= tick < pixels + 2:
                b = a1
                a2 = (np.int32(source[row + two, line - two * stride]) + _paeth(a2, b, c2)) & _BYTE
                rows[row + three, out - two * stride] = a2
                c2 = b
            if 1 <= tick < pixels + 1:
                b = a0
                a1 = (np.int32(source[row + one, line - stride]) + _paeth(a1, b, c1)) & _BYTE
                rows[row + two, out - stride] = a1
                c1 = b
            if tick < pixels:
                b = np.int32(rows[row, out])
                a0 = (np.int32(source[row, line]) + _paeth(a0, b, c0)) & _BYTE
                rows[row + one, out] = a0
                c0 = b
            line += stride
            out += stride
