"""Ranged reads from a server that is 30 ms and 1 Gbit/s away: ours against bare requests, s3fs, obstore.

"Bare" opens as many connections as are allowed, sends the same requests, finds the end of each answer and drops it;
ours keeps its connections between calls, which shows where answers are small. The
first three cases are what a loader asks for: the heads of 256 planes and then three rows of tiles of each; whole
planes; a shard. The last is a batch of 256 crops through ``fetch_windows``, against bare requests of the same bytes;
its note says how many requests and bytes a crop takes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from paired import Row, faster, main, time_pairs

from chammi75.loading.remote_planes import PlanePlace, fetch_windows
from chammi75.ranges import Traffic, fetch_ranges
from chammi75.store.plane import encode_plane

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from slow_server import SlowServer, slow_server

_AT_ONCE = 256
_CROPS = 256
_SHARD_BYTES = 100_000_000
_GOAL = 0.8
Part = tuple[int, int, int]
"""Number of the shard, first byte, number of bytes."""


def run(arguments: argparse.Namespace) -> list[Row]:
    """Each case against bare requests, s3fs with as many connections, and obstore where it is installed."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        bucket = Path(folder) / "bucket"
        bucket.mkdir()
        for k in range(4):
            (bucket / f"{k}.arrow").write_bytes(random.bytes(_SHARD_BYTES))
        with slow_server(folder, latency_s=arguments.latency_ms / 1000, bits_per_s=arguments.mbit * 1e6) as server:
            rows = []
            for case, parts in _cases(random).items():
                rows += _compare(case, parts, server, arguments.repeats)
            return [*rows, _crops(bucket, server, arguments.repeats), *_gaps(server, random, arguments.repeats)]


def _cases(random: np.random.Generator) -> dict[str, list[Part]]:
    def drawn(count: int, size: int) -> list[Part]:
        shards, offsets = random.integers(0, 4, count), random.integers(0, _SHARD_BYTES - size, count)
        return [(int(shard), int(offset), size) for shard, offset in zip(shards, offsets, strict=True)]

    return {
        "heads, 256 of 700 B": drawn(_CROPS, 700),
        "rows of tiles, 768 of 20 kB": drawn(3 * _CROPS, 20_000),
        "planes, 128 of 500 kB": drawn(128, 500_000),
        "a shard of 100 MB": [(0, 0, _SHARD_BYTES)],
    }


def _compare(case: str, parts: Sequence[Part], server: SlowServer, repeats: int) -> list[Row]:
    requests = [(f"s3://bucket/{shard}.arrow", offset, size) for shard, offset, size in parts]
    signed = {**server.s3_options, "key": "me", "secret": "word"}
    ways: dict[str, Callable[[], object]] = {
        "anonymous S3": lambda: fetch_ranges(requests, server.s3_options, gap_bytes=0),
        "signed S3": lambda: fetch_ranges(requests, signed, gap_bytes=0),
        "HTTP": lambda: fetch_ranges(
            [(url.replace("s3:/", server.url), offset, size) for url, offset, size in requests], gap_bytes=0
        ),
    }
    mega = sum(size for *_, size in parts) / 1e6
    note = f"{len(parts)} ranges, {mega:.1f} MB"
    bare = _bare(server, [(f"/bucket/{shard}.arrow", offset, size) for shard, offset, size in parts])
    rows = [faster(f"{case}: {way} : bare", time_pairs(ours, bare, repeats), _GOAL, note) for way, ours in ways.items()]
    peers = {"s3fs": _s3fs(server, requests)} | ({"obstore": _obstore(server, parts)} if find_spec("obstore") else {})
    for name, peer in peers.items():
        rows.append(
            faster(f"{case}: anonymous S3 : {name}", time_pairs(ways["anonymous S3"], peer, repeats), 1.0, note)
        )
    return rows


def _crops(bucket: Path, server: SlowServer, repeats: int) -> Row:
    """Crops of 256 px out of planes of 1024 px, against the same bytes in two rounds of bare requests."""
    random = np.random.default_rng(1)
    encoded = [encode_plane(random.poisson(40, (1024, 1024)).astype(np.uint8)) for _ in range(16)]
    places, content = [], bytearray()
    for k in range(_CROPS):
        plane = encoded[k % len(encoded)]
        places.append(PlanePlace("s3://bucket/crops.arrow", len(content), len(plane), 1024, 1024))
        content += plane
    (bucket / "crops.arrow").write_bytes(content)
    windows = np.stack([*random.integers(0, 768, (2, _CROPS)), *np.full((2, _CROPS), 256)], axis=1)
    traffic = Traffic()
    server.reset()
    fetch_windows(places, windows, server.s3_options, traffic=traffic)
    asked = [
        (one.path, int(one.range.removeprefix("bytes=").split("-")[0]), one.range_bytes)
        for one in server.seen()
        if one.range
    ]
    rounds = [_bare(server, asked[:_CROPS]), _bare(server, asked[_CROPS:])]
    note = f"{traffic.requests / _CROPS:.2f} requests and {traffic.bytes / _CROPS / 1000:.1f} kB for a crop"
    times = time_pairs(
        lambda: fetch_windows(places, windows, server.s3_options), lambda: [bare() for bare in rounds], repeats
    )
    return faster("256 crops of 256 px : bare", times, _GOAL, note)


def _gaps(server: SlowServer, random: np.random.Generator, repeats: int) -> list[Row]:
    """Pairs of ranges with a gap, joined against apart: where the ratio passes 1, a gap costs as much as a request."""
    rows = []
    for gap in (16, 64, 256):
        starts = random.integers(0, _SHARD_BYTES - 400_000, 2 * _CROPS).tolist()
        parts = [
            (f"s3://bucket/{k % 4}.arrow", start + shift, 20_000)
            for k, start in enumerate(starts)
            for shift in (0, 20_000 + 1024 * gap)
        ]
        joined = time_pairs(
            lambda parts=parts, gap=gap: fetch_ranges(parts, server.s3_options, gap_bytes=1024 * gap),  # type: ignore[misc]
            lambda parts=parts: fetch_ranges(parts, server.s3_options, gap_bytes=0),  # type: ignore[misc]
            repeats,
        )
        rows.append(faster(f"pairs of 20 kB with a gap of {gap} kB: joined : apart", joined))
    return rows


def _bare(server: SlowServer, parts: Sequence[tuple[str, int, int]]) -> Callable[[], None]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    pieces = [
        (path, at, min(8 * 2**20, offset + size - at))
        for path, offset, size in parts
        for at in range(offset, offset + size, 8 * 2**20)
    ]
    return lambda: asyncio.run(_ask(host, int(port), list(reversed(pieces))))


async def _ask(host: str, port: int, queue: list[tuple[str, int, int]]) -> None:
    loop = asyncio.get_running_loop()
    done: list[asyncio.Future[None]] = []

    def connect() -> _Bare:
        done.append(loop.create_future())
        return _Bare(queue, done[-1])

    opened = [loop.create_connection(connect, host, port) for _ in range(min(_AT_ONCE, len(queue)))]
    await asyncio.gather(*opened)
    await asyncio.gather(*done)


class _Bare(asyncio.Protocol):
    """A connection that asks for parts until there are no more, and drops what it gets."""

    def __init__(self, queue: list[tuple[str, int, int]], done: asyncio.Future[None]) -> None:
        self.queue = queue
        self.done = done

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if not self.queue:
            self.transport.close()
            self.done.set_result(None)
            return
        path, offset, size = self.queue.pop()
        self.head, self.due = b"", 0
        ask = f"GET {path} HTTP/1.1\r\nHost: bare\r\nRange: bytes={offset}-{offset + size - 1}\r\n\r\n"
        self.transport.write(ask.encode())

    def data_received(self, data: bytes) -> None:
        if self.due:
            self.due -= len(data)
        else:
            self.head += data
            head, end, body = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.due = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]) - len(body)
        if not self.due:
            self.ask()


def _s3fs(server: SlowServer, requests: Sequence[tuple[str, int, int]]) -> Callable[[], object]:
    """With a pool as large as ours; its default of 10 connections is a quarter as fast."""
    from chammi75.files import filesystem_of

    filesystem, _ = filesystem_of(requests[0][0], server.s3_options)
    paths = [url.removeprefix("s3://") for url, _, _ in requests]
    starts = [offset for _, offset, _ in requests]
    ends = [offset + size for _, offset, size in requests]
    return lambda: filesystem.cat_ranges(paths, starts, ends, batch_size=_AT_ONCE, on_error="raise")


def _obstore(server: SlowServer, parts: Sequence[Part]) -> Callable[[], object]:
    """Its blocking calls wait without the GIL; threads, since one call is for one file."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "bucket", endpoint=server.url, skip_signature=True, region="us-east-1", client_options={"allow_http": True}
    )
    pool = ThreadPoolExecutor(_AT_ONCE)

    def read(part: Part) -> Any:
        shard, offset, size = part
        return obstore.get_range(store, f"{shard}.arrow", start=offset, length=size)

    return lambda: list(pool.map(read, parts))


if __name__ == "__main__":
    main(
        __doc__,
        run,
        {
            "--latency-ms": {"type": float, "default": 30.0, "help": "of each request (default 30)"},
            "--mbit": {"type": float, "default": 1000.0, "help": "bandwidth per second (default 1000)"},
        },
    )
