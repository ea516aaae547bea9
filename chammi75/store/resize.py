"""Resize of a window, bilinear and antialiased, as kernels that release the GIL and need no memory but what they get.

An output pixel is the mean of the input around its centre, weighted by a triangle. The triangle is two input pixels
wide, or two output pixels where the window is reduced, so that every pixel counts and fine noise does not turn into
patterns; at an edge it is cut, and the weights left are scaled to a sum of one. Height and width have factors of their
own. This is the filter that torchvision (``antialias=True``), PyTorch and Pillow (``BILINEAR``) define.

The filter is a product of one along columns and one along rows. The first adds up whole input rows, which the
compiler turns into vector instructions by itself. The second needs other input pixels at each step, so eight rows at
a time are brought into lanes beside one another, and one vector instruction works on a pixel of each. A strip of eight
rows is finished while it lies in the cache, before the next is begun. No product and sum are fused and no order of a
sum is left open, so all machines give the same bits.

Method: P. Heckbert, Fundamentals of Texture Mapping and Image Warping, 1989; filter and edges as in Pillow's
``Resample.c``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from chammi75.errors import ChammiError
from chammi75.kernels import intrinsic, kernel

_LANES = 8
_DTYPES = ("uint8", "uint16", "float32")


def resize_plane(plane: NDArray[Any], out: NDArray[Any]) -> None:
    """Resize a plane to the shape of ``out``.

    Parameters
    ----------
    plane : ndarray, shape (h, w), uint8, uint16 or float32
    out : ndarray, shape (H, W), float32, uint8 or uint16
        Where to write. Whole numbers are rounded, a half upwards, and clipped to what the dtype holds.

    Raises
    ------
    ChammiError
        If one of them is not 2-D, is empty, or has another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> out = np.empty((1, 2), np.float32)
    >>> resize_plane(np.array([[0, 14, 28, 42]], np.uint8), out)
    >>> out.round().tolist()  # weights 3/7, 3/7 and 1/7
    [[10.0, 32.0]]
    """
    for name, array in (("plane", plane), ("out", out)):
        if array.ndim != 2 or 0 in array.shape:
            raise ChammiError(f"{name} must have a height and a width of at least 1, not the shape {array.shape}")
        if array.dtype.name not in _DTYPES:
            raise ChammiError(f"{name} must be {', '.join(_DTYPES)}, not {array.dtype}")
    source = np.require(plane, plane.dtype.newbyteorder("="), ["C", "W"])  # the one layout that kernels are made for
    direct = (
        out.flags.c_contiguous and out.flags.aligned and out.dtype.isnative and not np.may_share_memory(source, out)
    )
    target = out if direct else np.empty(out.shape, out.dtype.newbyteorder("="))
    resize_window(source, target, np.empty(room_for(*plane.shape, *out.shape), np.float32))
    if not direct:
        out[...] = target


@kernel
def room_for(height, width, out_height, out_width):  # type: ignore[no-untyped-def]
    """Float32 numbers of room that `resize_window` needs; smaller windows need no more for the same output.

    Examples
    --------
    >>> room_for(256, 256, 224, 224) < 10_000
    True
    """
    taps = _most_taps(height, out_height) * out_height + _most_taps(width, out_width) * out_width
    return taps + 2 * (out_height + out_width) + _LANES * (2 * width + out_width)


@kernel
def resize_window(source, out, room):  # type: ignore[no-untyped-def]
    """Resize ``source`` to the shape of ``out``.

    Parameters
    ----------
    source : ndarray of uint8, uint16 or float32, shape (h, w), C order
    out : ndarray of float32, uint8 or uint16, shape (H, W), C order
        Not the memory of ``source``. Whole numbers are rounded, a half upwards, and clipped; NaN becomes 0 there.
    room : ndarray of float32, 1-D
        Memory to work in, of at least ``room_for(h, w, H, W)`` numbers.
    """
    height, width = source.shape
    out_height, out_width = out.shape
    rows, columns = _most_taps(height, out_height), _most_taps(width, out_width)
    at = _LANES * width
    strip, lanes = room[:at].reshape(_LANES, width), room[at : 2 * at]
    results, at = room[2 * at : 2 * at + _LANES * out_width], 2 * at + _LANES * out_width
    row_spans, at = room[at : at + 2 * out_height].view(np.int32), at + 2 * out_height
    spans, at = room[at : at + 2 * out_width].view(np.int32), at + 2 * out_width
    row_weights, at = room[at : at + rows * out_height], at + rows * out_height
    weights = room[at : at + columns * out_width]
    is_whole, top = out.itemsize < 4, np.float32(255 if out.itemsize == 1 else 65535)
    _weigh(height, out_height, rows, row_spans, row_weights)
    _weigh(width, out_width, columns, spans, weights)
    for y in range(0, out_height, _LANES):
        count = min(_LANES, out_height - y)
        for k in range(y, y + count):
            _add_rows(source, row_spans[2 * k], row_spans[2 * k + 1], row_weights, rows * k, strip[k - y])
        if width == out_width:
            if is_whole:
                _round(room[: width * count], top)
            for k in range(count):
                _take(strip[k], 1, 0, out[y + k])
            continue
        _interleave(strip[0], strip[1], strip[2], strip[3], strip[4], strip[5], strip[6], strip[7], lanes)
        for k in range(out_width):
            _add_lanes(lanes, spans[2 * k], spans[2 * k + 1], weights, columns * k, results, _LANES * k)
        if is_whole:
            _round(results, top)
        if count == _LANES:
            part = out[y : y + count]
            _separate(results, part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7])
        else:  # the last rows: what the other lanes hold is left over from before
            for k in range(count):
                _take(results, _LANES, k, out[y + k])


@kernel
def _most_taps(length, wanted):  # type: ignore[no-untyped-def]
    """The most input pixels that one of ``wanted`` output pixels depends on."""
    return min(length, (2 * max(length, wanted) + wanted - 1) // wanted)


@kernel
def _weigh(length, wanted, taps, spans, weights):  # type: ignore[no-untyped-def]
    """Which input pixels each of ``wanted`` output pixels depends on, and by how much.

    Pixel i of n has its centre at (i + 1/2) / n, and the triangle reaches 1 / min(length, wanted) to either side. Times
    2 length wanted all of this is whole numbers, so no rounding decides which pixels count. The first one of output k
    is that of k = 0 and k times length / wanted, rounded down: a running sum with a remainder spares the divisions.

    Parameters
    ----------
    taps : int
        The most that one depends on: those of output k are ``weights[taps * k :]``.
    spans : ndarray of int32
        Number of the first, and how many, of each.
    """
    reach, step = 2 * max(length, wanted), 2 * wanted
    begin, begin_part = divmod(length - reach - wanted, step)
    end, end_part = divmod(length + reach - wanted - 1, step)
    whole, part = length // wanted, 2 * length - length // wanted * step
    for k in range(wanted):
        first = max(begin + 1, 0)
        count = min(end + 1, length) - first
        spans[2 * k], spans[2 * k + 1] = first, count
        away = (2 * first + 1) * wanted - (2 * k + 1) * length  # of the first pixel's centre from the output's
        total = 0
        for tap in range(count):
            total += reach - abs(away + step * tap)
        scale = 1.0 / total
        for tap in range(count):
            weights[taps * k + tap] = np.float32((reach - abs(away + step * tap)) * scale)
        begin, begin_part = begin + whole, begin_part + part
        if begin_part >= step:
            begin, begin_part = begin + 1, begin_part - step
        end, end_part = end + whole, end_part + part
        if end_part >= step:
            end, end_part = end + 1, end_part - step


@kernel
def _add_rows(source, first, count, weights, at, line):  # type: ignore[no-untyped-def]
    """The weighted sum of ``count`` rows, into ``line``: up to four in one pass over it, since memory is what counts.

    The weights are ``weights[at : at + count]``; there is at least one.
    """
    lead = (count - 1) % 4 + 1
    a, u = source[first], weights[at]
    b, v = source[first + min(1, lead - 1)], weights[at + min(1, lead - 1)]
    c, w = source[first + min(2, lead - 1)], weights[at + min(2, lead - 1)]
    if lead == 1:
        for x in range(line.size):
            line[x] = u * np.float32(a[x])
    elif lead == 2:
        for x in range(line.size):
            line[x] = u * np.float32(a[x]) + v * np.float32(b[x])
    elif lead == 3:
        for x in range(line.size):
            line[x] = u * np.float32(a[x]) + v * np.float32(b[x]) + w * np.float32(c[x])
    else:
        d, z = source[first + 3], weights[at + 3]
        for x in range(line.size):
            line[x] = u * np.float32(a[x]) + v * np.float32(b[x]) + w * np.float32(c[x]) + z * np.float32(d[x])
    for k in range(lead, count, 4):
        a, b, c, d = source[first + k], source[first + k + 1], source[first + k + 2], source[first + k + 3]
        u, v, w, z = weights[at + k], weights[at + k + 1], weights[at + k + 2], weights[at + k + 3]
        for x in range(line.size):
            line[x] += u * np.float32(a[x]) + v * np.float32(b[x]) + w * np.float32(c[x]) + z * np.float32(d[x])


@kernel
def _interleave(a, b, c, d, e, f, g, h, lanes):  # type: ignore[no-untyped-def]
    """Eight rows into lanes: pixel x of row k to place 8 x + k."""
    for x in range(a.size):
        lanes[8 * x] = a[x]
        lanes[8 * x + 1] = b[x]
        lanes[8 * x + 2] = c[x]
        lanes[8 * x + 3] = d[x]
        lanes[8 * x + 4] = e[x]
        lanes[8 * x + 5] = f[x]
        lanes[8 * x + 6] = g[x]
        lanes[8 * x + 7] = h[x]


@kernel
def _separate(lanes, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """The inverse. The rows are arguments of their own: of one array, the compiler takes them to overlap."""
    for x in range(a.size):
        a[x] = lanes[8 * x]
        b[x] = lanes[8 * x + 1]
        c[x] = lanes[8 * x + 2]
        d[x] = lanes[8 * x + 3]
        e[x] = lanes[8 * x + 4]
        f[x] = lanes[8 * x + 5]
        g[x] = lanes[8 * x + 6]
        h[x] = lanes[8 * x + 7]


@kernel
def _take(values, step, first, row):  # type: ignore[no-untyped-def]
    """Every ``step``-th number from ``first`` on, to a row of the output."""
    for x in range(row.size):
        row[x] = values[step * x + first]


@kernel
def _round(values, top):  # type: ignore[no-untyped-def]
    """Numbers to whole ones in [0, top], a half upwards; NaN to 0."""
    for k in range(values.size):
        value = np.float32(values[k] + np.float32(0.5))
        values[k] = np.floor(min(value, top)) if value > 0 else np.float32(0)


@intrinsic
def _add_lanes(typing_context, lanes, first, count, weights, begin, out, at):  # type: ignore[no-untyped-def]
    """``out[at : at + 8]`` = the weighted sum of ``count`` pixels of eight lanes, from pixel ``first`` on.

    The weights are ``weights[begin : begin + count]``; there is at least one. It is written in LLVM's words, since
    numba has none for a vector and turns no loop over eight numbers into one.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pixels, numbers, target = (
            context.make_array(signature.args[k])(context, builder, values[k]).data for k in (0, 3, 5)
        )
        first, count, begin, at = (values[k] for k in (1, 2, 4, 6))
        vector, integer = ir.VectorType(ir.FloatType(), _LANES), ir.IntType(64)
        lanes_of_one = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)

        def place(data: Any, number: Any) -> Any:
            return builder.bitcast(builder.gep(data, [number]), vector.as_pointer())

        def product(tap: Any) -> Any:
            weight = builder.load(builder.gep(numbers, [builder.add(begin, tap)]))
            nothing = ir.Constant(vector, ir.Undefined)
            lone = builder.insert_element(nothing, weight, ir.Constant(ir.IntType(32), 0))
            pixel = builder.mul(builder.add(first, tap), ir.Constant(integer, _LANES))
            row_pixels = builder.load(place(pixels, pixel), align=4)
            return builder.fmul(row_pixels, builder.shuffle_vector(lone, nothing, lanes_of_one))

        total = cgutils.alloca_once_value(builder, product(ir.Constant(integer, 0)))
        with cgutils.for_range(builder, count, start=ir.Constant(integer, 1)) as loop:
            builder.store(builder.fadd(builder.load(total), product(loop.index)), total)
        builder.store(builder.load(total), place(target, at), align=4)
        return context.get_dummy_value()

    number = types.int64
    return types.void(lanes, number, number, weights, number, out, number), generate
