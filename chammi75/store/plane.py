"""A plane on disk: a standard TIFF, tiled, with a predictor, compressed without loss.

Little-endian classic TIFF of one page; tiles of 128 x 128 in row-major order (smaller ones, in steps of 16, for
smaller planes); predictor 2 for integers and 3 for floats; Zstandard (50000) or deflate (8). Its head has a fixed
layout, so that a reader knows from height and width alone how long it is. Any TIFF library reads such a plane; the
functions here read only the tiles that a crop touches.

The Zstandard settings are restricted to Huffman-coded literals for 8 bits, and level 3 for 16 and 32 bits, with a
checksum in every frame: see the documentation of the store format for the measurements behind them.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

Codec = Literal["zstd", "deflate"]
Plane = NDArray[Any]

TILE = 128
STORED_DTYPES = ("uint8", "uint16", "float32")
_COMPRESSION: dict[str, int] = {"zstd": 50000, "deflate": 8}
_CODECS = {number: name for name, number in _COMPRESSION.items()}
_HEAD_BYTES = 160  # header 8, count 2, 12 entries of 12, next directory 4, padded to 16
_ENTRIES = (256, 257, 258, 259, 262, 277, 317, 322, 323, 324, 325, 339)
_LONG, _SHORT = 4, 3
_DIRECTORY = struct.Struct("<2sHIH" + "HHII" * len(_ENTRIES) + "6x")  # entries of (tag, type, count, value)
_MAX_BYTES = 2**31 - 2**20  # a plane is one value of an Arrow binary column
_local = threading.local()


@dataclass(frozen=True, slots=True)
class PlaneHead:
    """What the head of an encoded plane says.

    Attributes
    ----------
    height, width : int
        Size of the plane, in pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32, little-endian.
    codec : {"zstd", "deflate"}
    tile_height, tile_width : int
    offsets, counts : ndarray of uint32, shape (tiles,)
        Where each tile's bytes begin in the file, and how many there are.
    """

    height: int
    width: int
    dtype: np.dtype[Any]
    codec: str
    tile_height: int
    tile_width: int
    offsets: NDArray[np.uint32]
    counts: NDArray[np.uint32]

    @property
    def tiles_across(self) -> int:
        """Tiles in a row of tiles."""
        return -(-self.width // self.tile_width)


def tile_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of the tiles of a plane.

    Examples
    --------
    >>> tile_shape(1080, 1080), tile_shape(70, 1000)
    ((128, 128), (80, 128))
    """
    return min(TILE, -(-height // 16) * 16), min(TILE, -(-width // 16) * 16)


def head_bytes(height: int, width: int) -> int:
    """Length of the head of an encoded plane of this size, tile table included.

    Examples
    --------
    >>> head_bytes(1024, 1024)
    672
    """
    tile_height, tile_width = tile_shape(height, width)
    return _HEAD_BYTES + 8 * (-(-height // tile_height) * -(-width // tile_width))


def encode_plane(plane: Plane, codec: Codec = "zstd") -> bytes:
    """Encode a plane as a tiled TIFF.

    Parameters
    ----------
    plane : ndarray, shape (H, W), uint8, uint16 or float32
    codec : {"zstd", "deflate"}

    Returns
    -------
    bytes
        A TIFF file.

    Raises
    ------
    ChammiError
        If the plane is empty, not 2-D, of another dtype, or too large for one value of a shard (2 GiB encoded).

    Examples
    --------
    >>> import numpy as np
    >>> plane = np.arange(12, dtype=np.uint16).reshape(3, 4)
    >>> bool((decode_plane(encode_plane(plane)) == plane).all())
    True
    """
    from chammi75.store import predictor

    if plane.ndim != 2 or 0 in plane.shape:
        raise ChammiError(f"a plane has a height and a width of at least 1, this one has the shape {plane.shape}")
    if plane.dtype.name not in STORED_DTYPES:
        raise ChammiError(f"a plane is stored as {', '.join(STORED_DTYPES)}, not as {plane.dtype.name}")
    if codec not in _COMPRESSION:
        raise ChammiError(f"the codec is zstd or deflate, not {codec!r}")
    plane = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<"))
    height, width = plane.shape
    tile_height, tile_width = tile_shape(height, width)
    count = -(-height // tile_height) * -(-width // tile_width)
    if plane.dtype.kind == "f":
        tiles = np.empty((count, tile_height, 4 * tile_width), np.uint8)
        predictor.difference_float32_tiles(plane.view(np.uint32), tiles)
    else:
        tiles = np.empty((count, tile_height, tile_width), plane.dtype)
        predictor.difference_tiles(plane, tiles)
    compress = _compressor(codec, plane.dtype.itemsize)
    parts = [compress(tile) for tile in tiles]
    counts = np.fromiter((len(part) for part in parts), np.int64, count)
    start = _HEAD_BYTES + 8 * count
    if start + int(counts.sum()) > _MAX_BYTES:
        raise ChammiError(f"a plane of {height} x {width} pixels takes more than 2 GiB, a shard cannot hold it")
    offsets = start + np.concatenate(([0], np.cumsum(counts)[:-1]))
    head = _directory(height, width, plane.dtype, codec, int(counts[0]))
    return b"".join([head, offsets.astype("<u4").tobytes(), counts.astype("<u4").tobytes(), *parts])


def blank_plane(dtype: np.dtype[Any], codec: Codec = "zstd") -> bytes:
    """A plane of 16 x 16 zeros, encoded without a kernel: something to try decoding with.

    Examples
    --------
    >>> import numpy as np
    >>> blank_plane(np.dtype(np.uint8)) == encode_plane(np.zeros((16, 16), np.uint8))
    True
    """
    tile = _compressor(codec, dtype.itemsize)(np.zeros((16, 16), dtype))  # differences of zeros are zeros
    head = _directory(16, 16, dtype, codec, len(tile))
    return head + struct.pack("<II", _HEAD_BYTES + 8, len(tile)) + bytes(tile)


def _directory(height: int, width: int, dtype: np.dtype[Any], codec: str, first_count: int) -> bytes:
    """The head of a plane, up to its table of tiles; ``first_count`` stands in it where there is only one tile."""
    tile_height, tile_width = tile_shape(height, width)
    tiles = -(-height // tile_height) * -(-width // tile_width)
    is_float = dtype.kind == "f"
    table = _HEAD_BYTES, _HEAD_BYTES + 4 * tiles
    offset, count = table if tiles > 1 else (_HEAD_BYTES + 8, first_count)  # a single value stands in the entry itself
    entries = (
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, 1, 8 * dtype.itemsize),
        (259, _SHORT, 1, _COMPRESSION[codec]),
        (262, _SHORT, 1, 1),  # black is zero
        (277, _SHORT, 1, 1),
        (317, _SHORT, 1, 3 if is_float else 2),
        (322, _SHORT, 1, tile_width),
        (323, _SHORT, 1, tile_height),
        (324, _LONG, tiles, offset),
        (325, _LONG, tiles, count),
        (339, _SHORT, 1, 3 if is_float else 1),
    )
    return _DIRECTORY.pack(b"II", 42, 8, len(entries), *chain.from_iterable(entries))


def parse_head(data: Buffer) -> PlaneHead:
    """Read the head of an encoded plane.

    Parameters
    ----------
    data : bytes-like
        The plane, or at least its first ``head_bytes(height, width)`` bytes.

    Raises
    ------
    StoreError
        If it is no plane of a store, or is cut short.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD_BYTES or bytes(view[:8]) != b"II*\0\x08\0\0\0":
        raise StoreError("the plane is damaged: it does not begin as a TIFF of a store")
    fields = _DIRECTORY.unpack_from(view)
    entries = dict(zip(fields[4::4], fields[7::4], strict=True))
    if tuple(entries) != _ENTRIES:
        raise StoreError("the plane is damaged: its TIFF directory is not that of a store")
    height, width = entries[257], entries[256]
    dtype = {(8, 1): "<u1", (16, 1): "<u2", (32, 3): "<f4"}.get((entries[258], entries[339]))
    codec = _CODECS.get(entries[259])
    if dtype is None or codec is None or not width or not height:
        raise StoreError("the plane is damaged: its TIFF directory states what a store never writes")
    tile_height, tile_width = tile_shape(height, width)
    tiles = -(-height // tile_height) * -(-width // tile_width)
    start = _HEAD_BYTES + 8 * tiles
    if len(view) < start:
        raise StoreError("the plane is damaged: its table of tiles is cut short")
    table = np.frombuffer(view, "<u4", 2 * tiles, _HEAD_BYTES)
    offsets, counts = table[:tiles], table[tiles:]
    stated = _directory(height, width, np.dtype(dtype), codec, int(counts[0]))
    if stated != view[:_HEAD_BYTES]:  # every bit of it: other TIFF readers go by all that it says
        raise StoreError("the plane is damaged: its TIFF directory states what a store never writes")
    ends = offsets.astype(np.int64) + counts  # wider than they are: a sum that wraps around is none
    if offsets[0] != start or not np.array_equal(offsets[1:], ends[:-1]):
        raise StoreError("the plane is damaged: its tiles do not follow one another")
    return PlaneHead(height, width, np.dtype(dtype), codec, tile_height, tile_width, offsets, counts)


def decode_plane(
    data: Buffer,
    window: tuple[int, int, int, int] | None = None,
    out: Plane | None = None,
    head: PlaneHead | None = None,
) -> Plane:
    """Decode a plane, or only a window of it: no tile beside the window is touched.

    Parameters
    ----------
    data : bytes-like
        The encoded plane.
    window : (y, x, height, width), optional
        The part wanted, in pixels, inside the plane. The whole plane by default.
    out : ndarray, shape (height, width), of the plane's dtype, optional
        Where to write. A new array by default.
    head : PlaneHead, optional
        What ``parse_head`` gave for it before; a plane that says otherwise is damaged.

    Returns
    -------
    ndarray, shape (height, width), uint8, uint16 or float32

    Raises
    ------
    StoreError
        If the plane is damaged.
    ChammiError
        If the window is empty or reaches beyond the plane, or ``out`` has another shape or dtype.
    """
    from chammi75.store.decode import decode_one

    return decode_one(data, window, out, head)


def tile_ranges(head: PlaneHead, window: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """Where in an encoded plane the tiles are that a window (y, x, height, width) touches: (offset, length), in bytes.

    Tiles of one row of tiles lie one behind the other, so each row is one range.

    Examples
    --------
    >>> import numpy as np
    >>> head = parse_head(encode_plane(np.zeros((400, 400), np.uint8)))
    >>> len(tile_ranges(head, (100, 100, 200, 200)))
    3
    """
    y, x, height, width = window
    ranges = []
    for row in range(y // head.tile_height, (y + height - 1) // head.tile_height + 1):
        first = row * head.tiles_across + x // head.tile_width
        last = row * head.tiles_across + (x + width - 1) // head.tile_width
        start = int(head.offsets[first])
        ranges.append((start, int(head.offsets[last]) + int(head.counts[last]) - start))
    return ranges


def transcode_plane(data: Buffer, codec: Codec) -> bytes:
    """The same plane with another codec; the bytes themselves if it has that codec already.

    Raises
    ------
    StoreError
        If the plane is damaged.
    """
    if parse_head(data).codec == codec:
        return bytes(data)
    return encode_plane(decode_plane(data), codec)


def _compressor(codec: Codec, itemsize: int) -> Any:
    """A function from a tile to its compressed bytes; one compressor per thread, since they are not to be shared."""
    if codec == "deflate":
        import imagecodecs

        return lambda tile: imagecodecs.deflate_encode(tile, level=6)
    name = "huffman" if itemsize == 1 else "level_3"
    compressor = getattr(_local, name, None)
    if compressor is None:
        import zstandard

        if itemsize == 1:  # no time is lost on matches that the noise of a microscope does not have
            parameters = zstandard.ZstdCompressionParameters(
                window_log=14,
                hash_log=6,
                chain_log=6,
                search_log=1,
                min_match=7,
                target_length=0,
                strategy=zstandard.STRATEGY_FAST,
                write_checksum=True,
            )
        else:
            parameters = zstandard.ZstdCompressionParameters.from_level(3, write_checksum=True)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        setattr(_local, name, compressor)
    return compressor.compress
