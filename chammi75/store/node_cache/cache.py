"""The cache itself, as its users see it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from chammi75.cache import cache_folder
from chammi75.store.node_cache.disks import is_own_disk
from chammi75.store.node_cache.download import RemoteFile
from chammi75.store.node_cache.folder import CacheError, CacheFolder
from chammi75.store.node_cache.session import Session
from chammi75.terminal import human_bytes


@dataclass(frozen=True)
class CacheTraffic:
    """What a process asked of its cache so far.

    Attributes
    ----------
    hits, misses : int
        Files that were there when they were asked for, or were not; reading on in an open file is neither.
    waited : int
        Misses that another process, or the prefetching thread, was fetching already.
    fetched, fetched_bytes : int
        Files that this process fetched, and their bytes; prefetched ones too.
    refetched_bytes : int
        Of those, the bytes of files that it had had before: they were evicted, or damaged.
    evicted : int
        Files that this process removed for others.
    read_bytes : int
        Bytes read from cached files by ``NodeCache.read``; what is read of views is not known.
    """

    hits: int = 0
    misses: int = 0
    waited: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    refetched_bytes: int = 0
    evicted: int = 0
    read_bytes: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Share of the files that were there when they were asked for; None before the first.

        Examples
        --------
        >>> CacheTraffic(hits=3, misses=1).hit_rate
        0.75
        """
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


def shards_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where a node cache lies unless its user says otherwise: ``shards`` in the cache folder.

    Examples
    --------
    >>> shards_folder("/scratch/me").as_posix()
    '/scratch/me/shards'
    """
    return cache_folder(cache_dir) / "shards"


class NodeCache:
    """A bounded cache of remote files in a folder of this machine, shared by all processes that name the folder.

    It can be pickled and survives a fork: each process opens its files anew, and starts its own thread when it asks
    for prefetching.

    Parameters
    ----------
    folder : str or path
        Its folder: absent, empty, or a cache of chammi75. Nothing else in it is ever touched.
    limit_bytes : int
        What its files may take together. The least recently used ones go when another one needs room.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = Path(folder) / "shard.arrow"
    ...     _ = source.write_bytes(b"0123456789")
    ...     file = RemoteFile(str(source), hashlib.sha256(b"0123456789").hexdigest(), 10)
    ...     cache = NodeCache(Path(folder) / "cache", limit_bytes=1000)
    ...     parts = cache.read(file, [(2, 3), (9, 1)])
    ...     cache.close()
    >>> parts, cache.traffic.misses
    ([b'234', b'9'], 1)
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int) -> None:
        self.folder = Path(os.path.abspath(Path(folder).expanduser()))
        self.limit_bytes = int(limit_bytes)
        self._opened: Session | None = None

    def __repr__(self) -> str:
        return f"NodeCache({str(self.folder)!r}, limit_bytes={self.limit_bytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self.folder), self.limit_bytes))

    def prepare(self) -> None:
        """Make the folder, see that it can be written, and remove what dead processes left.

        The first use does this too; a caller who can do without a cache asks beforehand.

        Raises
        ------
        CacheError
            If the folder cannot be made or written, its disk is full, or it is somebody else's.
        """
        self._mine().folder.prepare()  # anew, where this process has used it before

    def check_room(self, needed_bytes: int, purpose: str) -> None:
        """Refuse work that the cache has no room for, before it begins.

        Parameters
        ----------
        needed_bytes : int
            What must be in the cache at once; for a window of shards: this one, the next one, and the index.
        purpose : str
            What needs it, for the message: "two windows of 64 shards and the index".

        Raises
        ------
        CacheError
            If the limit is lower, or the disk has less room with what the cache could give back.
        """
        if needed_bytes > self.limit_bytes:
            raise CacheError(
                f"{self.folder}: the cache may hold {human_bytes(self.limit_bytes)} ({self.limit_bytes} bytes), and"
                f" {purpose} take {human_bytes(needed_bytes)} ({needed_bytes} bytes): raise its limit to that at least,"
                " take a smaller window, or go without a cache"
            )
        folder = self._mine().folder
        held, free = sum(entry.size for entry in folder.entries()), folder.free_bytes()
        if needed_bytes > held + free:
            raise CacheError(
                f"{self.folder}: the disk has {human_bytes(free)} free and {human_bytes(held)} in this cache, and"
                f" {purpose} take {human_bytes(needed_bytes)}: make room, name a folder on another disk, or take a"
                " smaller window"
            )

    def fetch(self, file: RemoteFile) -> Path:
        """The path of a file in the cache: whole and checked, fetched if need be.

        It may be evicted at any later time; ``read`` sees to that.

        Raises
        ------
        StoreError
            If it cannot be read at its source, or is, twice, not what the manifest says.
        UnreachableError
            If its server gave nothing in time.
        CacheError
            If the cache cannot be written, is full, or too small for it.
        """
        return self._mine().fetch(file)

    def read(self, file: RemoteFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Byte ranges (offset, length) of a file, from the cache; it is fetched if it is not there, or no longer.

        Raises
        ------
        StoreError
            As ``fetch``; and if a range does not lie in the file.
        """
        return self._mine().read(file, ranges)

    @cached_property
    def can_map(self) -> bool:
        """Whether files may be mapped: a mapping that outlives its file is safe on a disk of this machine alone."""
        return is_own_disk(self.folder)

    def view(self, file: RemoteFile) -> memoryview:
        """A whole file, mapped; it is fetched if it is not there, or no longer. Only where ``can_map``.

        The view stays valid when the file is evicted, and takes its room on the disk until it is let go.

        Raises
        ------
        StoreError, CacheError
            As ``fetch``.
        """
        return self._mine().view(file)

    def prefetch(self, files: Iterable[RemoteFile]) -> None:
        """Fetch files ahead, in their order, in a thread of this process; called again, the new files count alone.

        What is there is skipped, and so is what another process fetches meanwhile: those with the same files ahead of
        them share the work. This process does not evict them for others while it can help it, so name those that are
        in use too, first. Files beyond the limit of the cache are left for later. What goes wrong is not said here:
        ``fetch`` and ``read`` try again and say it.
        """
        self._mine().prefetch(files)

    def check(self, file: RemoteFile) -> bool:
        """Hash a cached file whole; one that is damaged is removed, and fetched again when it is next asked for.

        Returns
        -------
        bool
            Whether it is there and right: what is wrong with it is wrong at its source.
        """
        return self._mine().check(file)

    def close(self) -> None:
        """Stop prefetching and close all files. The cache may be used again afterwards."""
        if self._opened is not None:
            self._opened.close()

    @property
    def traffic(self) -> CacheTraffic:
        """What this process asked of this cache so far."""
        mine = self._opened
        return CacheTraffic(**mine.counts()) if mine is not None and mine.process == os.getpid() else CacheTraffic()

    def _mine(self) -> Session:
        """What this process has open; a forked child starts with nothing."""
        mine = self._opened
        if mine is None or mine.process != os.getpid():
            inherited, mine = mine, Session(CacheFolder(self.folder, self.limit_bytes))
            if inherited is not None:
                mine.indexes = dict(inherited.indexes)
                inherited.files.drop_all()
            mine.folder.prepare()
            self._opened = mine
            weakref.finalize(self, mine.close)  # at the end of the interpreter too
        return mine
