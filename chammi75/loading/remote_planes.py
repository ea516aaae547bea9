"""Encoded planes out of remote shards, of which only what some windows need is fetched.

A batch of crops takes two rounds of concurrent requests: the heads of all planes, which say where their tiles are, and
then the rows of tiles that the windows touch. A plane of which that would not save anything is fetched whole in the
first round. Two ways to do without the first round were weighed and left: guessing where the tiles are takes more bytes
than a head does (a margin of a tile on either side of a row of three adds two thirds, against 0.7 kB and a request that
is worth 16 kB), and remembering heads, some 0.9 kB for each plane in each process, helps only stores that are so small
that the cache of shards holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import StorageOptions
from chammi75.ranges import Patience, Range, Traffic, fetch_ranges
from chammi75.store.plane import head_bytes, parse_head, tile_ranges, tile_shape
from chammi75.transfer import GAP_BYTES

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

ReadRanges = Callable[[Sequence[Range], "dict[int, Exception] | None"], list[Any]]

_ROUND_BYTES = 512 * 2**10
"""Bytes that a second round trip is worth: 30 ms are 3.7 MB at 1 Gbit/s, and 0.4 MB at 100 Mbit/s."""


@dataclass(frozen=True, slots=True)
class PlanePlace:
    """Where an encoded plane is.

    Attributes
    ----------
    url : str
        The shard.
    offset, length : int
        Its first byte there, and how many there are.
    height, width : int
        Size of the plane in pixels.
    """

    url: str
    offset: int
    length: int
    height: int
    width: int


def fetch_windows(
    places: Sequence[PlanePlace],
    windows: NDArray[np.int64],
    storage_options: StorageOptions | None = None,
    *,
    traffic: Traffic | None = None,
    patience: Patience | None = None,
    failures: dict[int, Exception] | None = None,
    read: ReadRanges | None = None,
) -> list[Buffer]:
    """Encoded planes that hold what ``decode_crops`` needs for a window of each.

    Parameters
    ----------
    places : sequence of PlanePlace
        N planes in shards of one filesystem. Where a plane stands there several times, its bytes are fetched once.
    windows : ndarray of int, shape (N, 4)
        y, x, height, width of each window, in pixels, inside its plane.
    storage_options : mapping, optional
        For the filesystem.
    traffic : Traffic, optional
        Is added to.
    patience : Patience, optional
        How long a server is waited for.
    failures : dict, optional
        Takes the errors of planes that cannot be fetched, by number; without it the first of them is raised.
    read : callable, optional
        What reads the ranges, from a cache perhaps: it gets them, and a dict for errors or None as ``failures``.

    Returns
    -------
    list of bytes-like
        Each as long as its plane; zeros where nothing was fetched, all of it where it failed. Of a plane with a damaged
        head there is only that: who decodes it says what is wrong.

    Raises
    ------
    FetchError, OSError
        As of ``fetch_ranges``.
    ChammiError
        If a window is not inside its plane.
    """
    windows = np.asarray(windows, np.int64).reshape(len(places), 4)
    _check_inside(places, windows)
    is_whole = [_is_whole(place, window, len(places)) for place, window in zip(places, windows.tolist(), strict=True)]
    first: list[Range] = [
        (place.url, place.offset, place.length if whole else min(head_bytes(place.height, place.width), place.length))
        for place, whole in zip(places, is_whole, strict=True)
    ]
    failed: dict[int, Exception] | None = None if failures is None else {}
    ask = read or partial(_ask, storage_options=storage_options, traffic=traffic, patience=patience)
    heads = ask(first, failed)
    planes: list[Any] = []
    rows: list[tuple[int, int, int]] = []  # number of the plane, first byte in it, length
    for k, (place, head, window) in enumerate(zip(places, heads, windows.tolist(), strict=True)):
        if is_whole[k] and not (failed and k in failed):
            planes.append(head)
            continue
        plane = np.zeros(place.length, np.uint8)
        plane[: len(head)] = head
        planes.append(plane)
        if not (failed and k in failed):
            rows += [(k, at, length) for at, length in _tile_rows(place, head, tuple(window))]
    wanted = [(places[k].url, places[k].offset + at, length) for k, at, length in rows]
    lost: dict[int, Exception] | None = None if failures is None else {}
    parts = ask(wanted, lost)
    for (k, at, length), part in zip(rows, parts, strict=True):
        if len(part) == length:
            planes[k][at : at + length] = part
    if failures is not None:
        failures.update(failed or {})
        for number, error in (lost or {}).items():
            failures.setdefault(rows[number][0], error)
    return planes


def _ask(
    requests: Sequence[Range],
    failures: dict[int, Exception] | None,
    *,
    storage_options: StorageOptions | None,
    traffic: Traffic | None,
    patience: Patience | None,
) -> list[Any]:
    return list(fetch_ranges(requests, storage_options, traffic=traffic, patience=patience, failures=failures))


def _check_inside(places: Sequence[PlanePlace], windows: NDArray[np.int64]) -> None:
    sizes = np.array([(place.height, place.width) for place in places], np.int64).reshape(-1, 2)
    outside = ((windows[:, :2] < 0) | (windows[:, 2:] < 1) | (windows[:, 2:] > sizes - windows[:, :2])).any(1)
    if outside.any():
        k = int(outside.argmax())
        y, x, height, width = windows[k].tolist()
        raise ChammiError(
            f"{places[k].url}: the window (y={y}, x={x}, height={height}, width={width}) is not inside the plane of"
            f" {places[k].height} x {places[k].width} pixels"
        )


def _is_whole(place: PlanePlace, window: Sequence[int], count: int) -> bool:
    """Whether a plane is sooner there whole: a request counts as many bytes as ``GAP_BYTES``, a round is shared."""
    y, x, height, width = window
    tile_height, tile_width = tile_shape(place.height, place.width)
    rows = (y + height - 1) // tile_height - y // tile_height + 1
    columns = (x + width - 1) // tile_width - x // tile_width + 1
    tiles = -(-place.height // tile_height) * -(-place.width // tile_width)
    part = place.length * rows * columns / tiles
    return place.length <= part + rows * GAP_BYTES + _ROUND_BYTES / count


def _tile_rows(place: PlanePlace, head: Any, window: Any) -> list[tuple[int, int]]:
    """The rows of tiles that a window touches, (first byte, length); none of a plane that is damaged."""
    try:
        found = parse_head(head)
    except StoreError:
        return []
    if (found.height, found.width) != (place.height, place.width):
        return []
    ranges = tile_ranges(found, window)
    return ranges if all(at + length <= place.length for at, length in ranges) else []
