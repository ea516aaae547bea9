"""Windows of many planes, decoded at once: only the tiles that they touch, without the GIL, straight to where they go.

The work is done by the kernels of ``tiles``, which call libzstd and libdeflate themselves. What they leave undone,
because a plane is damaged or no such library was found, is decoded again tile by tile through Python packages, which
either succeed or say what is wrong. So pixels and errors are the same on both ways.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.store.decompress import decompressor
from chammi75.store.plane import STORED_DTYPES, PlaneHead, parse_head

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

Plane = NDArray[Any]
Jobs = NDArray[np.int64]

_LIST = ", ".join(STORED_DTYPES)
_KINDS = {np.dtype(name): kind for kind, name in enumerate(STORED_DTYPES)}
_DTYPES_BY_BITS: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}
_STATED = struct.Struct("<18xI8xI8xH")  # width, height and bits, in the first entries of a directory
_CHUNKS_PER_THREAD = 4  # windows differ in size
_MOST_KEPT = 64 * 2**20  # bytes of memory to work in that a thread keeps for its next call
_NO_TILES = np.empty(0, np.uint64)
_local = threading.local()


def decode_crops(
    planes: Sequence[Buffer],
    windows: NDArray[np.int64],
    out: Plane,
    *,
    shapes: NDArray[np.int64],
    dtypes: Sequence[np.dtype[Any]],
    places: NDArray[np.int64] | None = None,
    resize: str | None = None,
    threads: int = 1,
) -> dict[int, StoreError]:
    """Decode a window of each of many planes into an array.

    Parameters
    ----------
    planes : sequence of bytes-like
        N encoded planes. Only the head, and the tiles that its window touches, need to hold what they should.
    windows : ndarray of int, shape (N, 4)
        y, x, height, width of each window, in pixels, inside its plane.
    out : ndarray, shape (N, H, W), uint8, uint16 or float32
        Window n goes to ``out[n, :height, :width]``, the rest of ``out[n]`` is left alone. Its dtype may be wider than
        a plane's (uint8 to uint16 to float32). Of a plane that is damaged there may be a part.
    shapes : ndarray of int, shape (N, 2)
        Height and width of each plane, as the index states them.
    dtypes : sequence of numpy.dtype
        The dtype of each plane, as the index states it.
    places : ndarray of int, shape (N,), optional
        Window n goes to ``out[places[n]]`` instead, each to another; ``out`` may have more entries then.
    resize : "bilinear", optional
        Resize each window to all of ``out[n]``, antialiased where it shrinks (see ``chammi75.store.resize``), in any of
        the three dtypes; rounded for integers.
    threads : int
        How many decode at once.

    Returns
    -------
    dict of int to StoreError
        What is wrong with the planes that are damaged, by their numbers; all others are done.

    Raises
    ------
    ChammiError
        If the arguments do not fit each other, or a window is not inside its plane.

    Examples
    --------
    >>> import numpy as np
    >>> from chammi75.store.plane import encode_plane
    >>> planes = [np.full((40, 50), value, np.uint8) for value in (3, 7)]
    >>> out = np.zeros((2, 8, 8), np.uint8)
    >>> encoded = [encode_plane(plane) for plane in planes]
    >>> shapes, dtypes = np.array([[40, 50], [40, 50]]), [plane.dtype for plane in planes]
    >>> decode_crops(encoded, np.array([[0, 0, 8, 8], [30, 40, 8, 8]]), out, shapes=shapes, dtypes=dtypes)
    {}
    >>> out[:, 0, 0].tolist()
    [3, 7]
    """
    if not len(planes):
        return {}
    windows = np.asarray(windows, np.int64)
    shapes = np.asarray(shapes, np.int64)
    places = np.arange(len(planes)) if places is None else np.asarray(places, np.int64)
    if len(planes) != len(dtypes):
        raise ChammiError(f"there are {len(planes)} planes and {len(dtypes)} dtypes: each plane needs its own")
    _check(windows, out, shapes, dtypes, places, resize)
    if not isinstance(threads, int | np.integer) or threads < 1:
        raise ChammiError(f"threads are a whole number of at least 1, not {threads!r}")
    import pyarrow as pa

    buffers = [pa.py_buffer(plane) for plane in planes]
    direct = out
    if not _is_plain(out, resize is not None):
        direct = np.empty(out.shape, out.dtype)
    count = len(planes)
    jobs = np.zeros((count, 14), np.int64)  # of the numbers that are named in ``tiles``
    jobs[:, 0] = np.fromiter((buffer.address for buffer in buffers), np.int64, count)
    jobs[:, 1] = np.fromiter((buffer.size for buffer in buffers), np.int64, count)
    jobs[:, 2:4] = shapes
    jobs[:, 4] = np.fromiter((_KINDS[dtype] for dtype in dtypes), np.int64, count)
    jobs[:, 5:9] = windows
    jobs[:, 9] = direct.ctypes.data + places * direct.strides[0]
    jobs[:, 10:12] = direct.strides[1], _KINDS[direct.dtype]
    jobs[:, 12] = places
    failures = _run(jobs, buffers, direct, resize is not None, threads)
    if direct is not out:
        for n, (_, _, height, width) in enumerate(windows.tolist()):
            part = np.s_[places[n]] if resize else np.s_[places[n], :height, :width]
            if n not in failures:
                out[part] = direct[part]
    return failures


def decode_one(
    data: Buffer, window: tuple[int, int, int, int] | None, out: Plane | None, head: PlaneHead | None
) -> Plane:
    """What ``chammi75.store.plane.decode_plane`` does; see there."""
    import pyarrow as pa

    buffer = pa.py_buffer(data)
    plane_height, plane_width, dtype = _stated(buffer) if head is None else (head.height, head.width, head.dtype)
    y, x, height, width = window or (0, 0, plane_height, plane_width)
    if y < 0 or x < 0 or height < 1 or width < 1 or y + height > plane_height or x + width > plane_width:
        raise ChammiError(
            f"the window (y={y}, x={x}, height={height}, width={width}) is not inside the plane of"
            f" {plane_height} x {plane_width} pixels"
        )
    if out is None:
        out = np.empty((height, width), dtype)
    elif out.shape != (height, width) or out.dtype != dtype:
        raise ChammiError(f"out must have the shape {(height, width)} and dtype {dtype}, not {out.shape}, {out.dtype}")
    direct = out if _is_plain(out[None], False) else np.empty((height, width), dtype)
    kind = _KINDS[dtype]
    known = [buffer.address, buffer.size, plane_height, plane_width, kind, y, x, height, width]
    target = [direct.ctypes.data, direct.strides[0], kind, 0, 0]
    failures = _run(np.array([known + target], np.int64), [buffer], direct[None], False, 1)
    if failures:
        raise failures[0]
    if direct is not out:
        out[:] = direct
    return out


def _stated(buffer: Any) -> tuple[int, int, np.dtype[Any]]:
    """Height, width and dtype that the head of a plane states; its every bit is checked, since memory is asked for by
    what it says."""
    from chammi75.store import tiles

    if buffer.size >= _STATED.size:
        width, height, bits = _STATED.unpack_from(buffer)
        dtype: np.dtype[Any] | None = _DTYPES_BY_BITS.get(bits)
        if dtype and tiles.codec_of(buffer.address, buffer.size, height, width, _KINDS[dtype]):
            return height, width, dtype
    head = parse_head(memoryview(buffer))  # says what is wrong
    return head.height, head.width, head.dtype


def _check(
    windows: Jobs, out: Plane, shapes: Jobs, dtypes: Sequence[np.dtype[Any]], places: Jobs, resize: str | None
) -> None:
    count = len(dtypes)
    if resize not in (None, "bilinear"):
        raise ChammiError(f'resize is "bilinear" or None, not {resize!r}')
    if windows.shape != (count, 4) or shapes.shape != (count, 2) or places.shape != (count,):
        raise ChammiError(
            f"{count} planes need windows of shape {(count, 4)}, shapes of {(count, 2)} and places of {(count,)}, not"
            f" {windows.shape}, {shapes.shape} and {places.shape}"
        )
    if out.ndim != 3 or out.dtype not in _KINDS:
        raise ChammiError(f"out must have the shape (N, H, W) and be {_LIST}, not {out.shape}, {out.dtype}")
    if ((places < 0) | (places >= len(out))).any() or len(np.unique(places)) != count:
        raise ChammiError(f"{count} windows need places of their own in out, of {len(out)} entries")
    if not out.flags.writeable:
        raise ChammiError("out cannot be written to: it is read-only")
    for dtype in set(dtypes):
        if dtype not in _KINDS or (resize is None and _KINDS[dtype] > _KINDS[out.dtype]):
            raise ChammiError(f"out of {out.dtype} cannot hold the pixels of a plane of {dtype}")
    left = shapes - windows[:, :2]  # no sum of numbers from outside, which could wrap around
    outside = ((windows[:, :2] < 0) | (windows[:, 2:] < 1) | (windows[:, 2:] > left)).any(axis=1)
    if outside.any():
        n = int(outside.argmax())
        y, x, height, width = windows[n].tolist()
        raise ChammiError(
            f"the window (y={y}, x={x}, height={height}, width={width}) is not inside plane {n} of"
            f" {shapes[n, 0]} x {shapes[n, 1]} pixels"
        )
    if resize is None and (windows[:, 2:] > out.shape[1:]).any():
        n = int((windows[:, 2:] > out.shape[1:]).any(axis=1).argmax())
        raise ChammiError(
            f"the window of {windows[n, 2]} x {windows[n, 3]} pixels of plane {n} does not fit into out[{n}] of"
            f" {out.shape[1]} x {out.shape[2]}"
        )
    if resize and 0 in out.shape[1:]:
        raise ChammiError(f"windows cannot be resized to {out.shape[1]} x {out.shape[2]} pixels")


def _is_plain(out: Plane, resize: bool) -> bool:
    """Whether kernels can write to ``out`` (N, H, W): pixels of a row side by side; without any gap, to resize."""
    if resize:
        return out.flags.c_contiguous and out.flags.aligned
    return out.flags.aligned and (out.strides[2] == out.itemsize or out.shape[2] == 1)


def _run(jobs: Jobs, buffers: Sequence[Any], out: Plane, resize: bool, threads: int) -> dict[int, StoreError]:
    """Do all jobs, and give what is wrong with those that cannot be done.

    The jobs have addresses in ``buffers`` and ``out``, which each thread holds until it is through.
    """
    if threads == 1 or len(jobs) == 1:
        return _run_part(jobs, buffers, out, resize, 0, len(jobs))
    from concurrent.futures import ThreadPoolExecutor

    edges = np.linspace(0, len(jobs), min(len(jobs), _CHUNKS_PER_THREAD * threads) + 1).astype(int).tolist()
    failures: dict[int, StoreError] = {}
    with ThreadPoolExecutor(threads) as pool:  # for this call only: threads do not survive a fork
        for part in pool.map(
            lambda first, end: _run_part(jobs, buffers, out, resize, first, end), edges[:-1], edges[1:]
        ):
            failures.update(part)
    return failures


def _run_part(
    jobs: Jobs, buffers: Sequence[Any], out: Plane, resize: bool, first: int, end: int
) -> dict[int, StoreError]:
    """The same for the jobs from ``first`` to ``end``, in this thread."""
    run = _resizing(jobs, out, first, end) if resize else _decoding()
    if not run(jobs, first, end, _NO_TILES):
        return {}
    failures = {}
    for n in (np.flatnonzero(jobs[first:end, -1] == 0) + first).tolist():
        try:
            tiles = _touched_tiles(buffers[n], *jobs[n, 2:9].tolist())
        except StoreError as error:
            failures[n] = error
        else:
            if run(jobs, n, n + 1, tiles):
                failures[n] = StoreError("the plane changed while it was decoded, or is far too large to be resized")
    return failures


def _decoding() -> Callable[[Jobs, int, int, NDArray[np.uint64]], int]:
    """The kernel that decodes windows, with what it needs of this thread."""
    from chammi75.store import native, tiles

    tools, room = native.tools(), _room("tile", tiles.ROOM_WORDS, np.uint64)
    return lambda jobs, first, end, raw: tiles.decode_windows(jobs, first, end, tools, raw, room)


def _resizing(jobs: Jobs, out: Plane, first: int, end: int) -> Callable[[Jobs, int, int, NDArray[np.uint64]], int]:
    """The kernel that decodes and resizes windows, with what it needs of this thread."""
    from chammi75.store import fused, native, tiles

    tools, room = native.tools(), _room("tile", tiles.ROOM_WORDS, np.uint64)
    window_bytes, size = fused.rooms_needed(jobs, first, end, *out.shape[1:])
    window, floats = _room("window", window_bytes // 4 + 1, np.uint32), _room("resize", size, np.float32)

    def run(jobs: Jobs, first: int, end: int, raw: NDArray[np.uint64]) -> int:
        undone = 0
        for kind in np.unique(jobs[first:end, 4]).tolist():
            pixels = window.view(STORED_DTYPES[kind])
            undone += fused.resize_windows(jobs, first, end, kind, tools, raw, room, pixels, floats, out)
        return undone

    return run


def _room(name: str, size: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Memory of this thread to work in, kept for its next call unless it is very much; never smaller than asked for."""
    room: NDArray[Any] | None = getattr(_local, name, None)
    if room is None or room.size < size:
        room = np.empty(size, dtype)
        if room.nbytes <= _MOST_KEPT:
            setattr(_local, name, room)
    return room


def _touched_tiles(
    buffer: Any, plane_height: int, plane_width: int, kind: int, y: int, x: int, height: int, width: int
) -> NDArray[np.uint64]:
    """The tiles that a window touches, decompressed by Python packages, one after another."""
    dtype = np.dtype(STORED_DTYPES[kind])
    view = memoryview(buffer).cast("B")  # Arrow shows signed bytes
    head = parse_head(view)
    if (head.height, head.width, head.dtype) != (plane_height, plane_width, dtype):
        raise StoreError(
            f"the plane is damaged: it states {head.height} x {head.width} pixels of {head.dtype}, the index"
            f" {plane_height} x {plane_width} of {dtype}"
        )
    size = head.tile_height * head.tile_width * dtype.itemsize
    decompress = decompressor(head.codec)
    parts = []
    for row in range(y // head.tile_height, (y + height - 1) // head.tile_height + 1):
        for column in range(x // head.tile_width, (x + width - 1) // head.tile_width + 1):
            tile = row * head.tiles_across + column
            start = int(head.offsets[tile])
            stop = start + int(head.counts[tile])
            if stop > len(view):
                raise StoreError("the plane is damaged: a tile reaches beyond its end")
            parts.append(decompress(view[start:stop], size))
    return np.frombuffer(b"".join(parts), np.uint64)
