"""Encoded planes out of remote shards, of which only what some windows need is fetched.

A crop takes two requests: the head of its plane, which says where the tiles are, and as soon as that is there the rows
of tiles that the window touches. A plane of which that would not save anything is fetched whole. Two ways to do without
the heads were weighed and left: guessing where the tiles are takes more bytes than a head does (a margin of a tile on
either side of a row of three adds two thirds, against 0.7 kB and a request), and remembering heads, some 0.9 kB for
each plane in each process, helps only stores that are so small that the cache of shards holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import StorageOptions
from chammi75.ranges import Follow, Patience, Range, Traffic, fetch_ranges_and_more
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
    rows: list[list[tuple[int, int]]] = [[] for _ in places]

    def follow(number: int, head: Any) -> list[tuple[int, int]]:
        """The rows of tiles of a plane, by where they are in its file."""
        if not is_whole[number]:
            rows[number] = _tile_rows(places[number], head, tuple(windows[number].tolist()))
        return [(places[number].offset + at, length) for at, length in rows[number]]

    if read is None:
        heads, parts = fetch_ranges_and_more(
            first, follow, storage_options, traffic=traffic, patience=patience, failures=failures
        )
    else:
        heads, parts = _read_in_turn(read, first, follow, failures)
    planes: list[Any] = []
    for k, (place, head) in enumerate(zip(places, heads, strict=True)):
        if is_whole[k] and len(head) == place.length:
            planes.append(head)
            continue
        plane = np.zeros(place.length, np.uint8)
        plane[: len(head)] = head
        for (at, length), part in zip(rows[k], parts[k], strict=True):
            if len(part) == length:
                plane[at : at + length] = part
        planes.append(plane)
    return planes


def _read_in_turn(
    read: ReadRanges, first: Sequence[Range], follow: Follow, failures: dict[int, Exception] | None
) -> tuple[list[Any], list[list[Any]]]:
    """As ``fetch_ranges_and_more``, by what reads one list of ranges after another."""
    heads = read(first, failures)
    more = [
        [] if failures and k in failures else [(first[k][0], at, length) for at, length in follow(k, head)]
        for k, head in enumerate(heads)
    ]
    numbers = [k for k, ranges in enumerate(more) for _ in ranges]
    lost: dict[int, Exception] | None = None if failures is None else {}
    found = iter(read([request for ranges in more for request in ranges], lost))
    for number, error in (lost or {}).items():
        assert failures is not None
        failures.setdefault(numbers[number], error)
    return heads, [[next(found) for _ in ranges] for ranges in more]


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
