"""Bare parallel range requests: how fast anything could fetch the bytes that our stream asks for, doing nothing more.

The bench writes what our stream asked the server for in one epoch to ``ranges.json``; here the same ranges are asked
for again, all known beforehand, over many connections at once, by obstore (Rust), and dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from peers.remote import Remote
from peers.task import Task

TITLE = "bare parallel range requests of the same bytes"
PACKAGES = ("obstore",)
VARIANTS: dict[str, str] = {}
_CONNECTIONS = 128


def batches(
    folder: Path, task: Task, *, turn: int, workers: int, remote: Remote | None = None, variant: str = ""
) -> Iterator[Sequence[None]]:
    """Nothing, so that nothing is left untimed, and then as many samples as the ranges were for."""
    assert remote is not None
    wanted = json.loads((folder / "ranges.json").read_text())
    yield ()
    asyncio.run(_fetch(remote.url, wanted["ranges"]))
    yield [None] * wanted["samples"]


async def _fetch(url: str, ranges: Sequence[tuple[str, str]]) -> None:
    from obstore import get_range_async
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(url, client_options={"allow_http": True})
    free = asyncio.Semaphore(_CONNECTIONS)

    async def get(path: str, span: str) -> None:
        first, last = span.removeprefix("bytes=").split("-")
        async with free:
            await get_range_async(store, path, start=int(first), end=int(last) + 1)

    await asyncio.gather(*(get(path, span) for path, span in ranges))
