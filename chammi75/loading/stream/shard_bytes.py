"""Bytes of a store's shards: views of mapped files, ranges over a network, or ranges of the files that a node keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError, UnreachableError
from chammi75.files import explain, is_local, local_path
from chammi75.loading.stream.sources import Failures
from chammi75.store.node_cache import CacheError

if TYPE_CHECKING:
    from chammi75.loading.remote_planes import ReadRanges
    from chammi75.ranges import Range, Traffic
    from chammi75.store.node_cache import NodeCache, RemoteFile
    from chammi75.store.reader import Store

Integers = NDArray[np.int64]
Found = tuple[list[Any], Failures]
"""Bytes, None where they cannot be read, and why not."""


class ShardBytes(Protocol):
    """Where the bytes of shards come from."""

    def ranges(self, shards: Integers, offsets: Integers, lengths: Integers) -> Found:
        """Byte ranges of some shards; arrays of shape (N,)."""

    def planes(
        self, shards: Integers, offsets: Integers, lengths: Integers, shapes: Integers, windows: Integers
    ) -> Found:
        """Encoded planes of sizes ``shapes`` (N, 2), of which at least what the windows (N, 4) need is there."""

    def renew(self, shards: Sequence[int]) -> bool:
        """Whether reading these shards again may help, now that their copies have been looked at."""


def shard_bytes_of(store: Store, cache: NodeCache | None = None, traffic: Traffic | None = None) -> ShardBytes:
    """What reads the shards of a store.

    Parameters
    ----------
    store : Store
    cache : NodeCache, optional
        Keeps whole shards of a remote store.
    traffic : Traffic, optional
        Counts requests and bytes.
    """
    if is_local(store.url):
        return MappedShards(store)
    if cache is not None:
        return CachedShards(store, cache)
    return FetchedShards(store, traffic)


class MappedShards:
    """Shards on a local disk, mapped into memory: nothing is copied."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _paths(self) -> list[str]:
        return [str(local_path(self._store.shard_url(shard))) for shard in range(len(self._store.shards))]

    def ranges(self, shards: Integers, offsets: Integers, lengths: Integers) -> Found:
        from chammi75.store.reader import map_path

        def view(shard: int) -> memoryview:
            return memoryview(map_path(self._paths[shard], self._store.shards[shard].bytes))

        return _cut_out(shards, offsets, lengths, view)

    def planes(
        self, shards: Integers, offsets: Integers, lengths: Integers, shapes: Integers, windows: Integers
    ) -> Found:
        return self.ranges(shards, offsets, lengths)

    def renew(self, shards: Sequence[int]) -> bool:
        return False


def _cut_out(shards: Integers, offsets: Integers, lengths: Integers, view: Callable[[int], memoryview]) -> Found:
    """Ranges of mapped shards; ``view`` maps one."""
    views: dict[int, memoryview] = {}
    broken: dict[int, ChammiError] = {}
    for shard in np.unique(shards).tolist():
        try:
            views[shard] = view(shard)
        except CacheError:
            raise
        except StoreError as error:
            broken[shard] = error
    places = list(zip(shards.tolist(), offsets.tolist(), lengths.tolist(), strict=True))
    parts = [None if shard in broken else views[shard][offset : offset + length] for shard, offset, length in places]
    return parts, {number: broken[shard] for number, (shard, _, _) in enumerate(places) if shard in broken}


class FetchedShards:
    """Shards on a network, of which just what is wanted is asked for."""

    def __init__(self, store: Store, traffic: Traffic | None = None) -> None:
        self._store, self._traffic = store, traffic

    def ranges(self, shards: Integers, offsets: Integers, lengths: Integers) -> Found:
        urls = [self._store.shard_url(shard) for shard in shards.tolist()]
        lost: dict[int, Exception] = {}
        asked = list(zip(urls, offsets.tolist(), lengths.tolist(), strict=True))
        return self._kept(self._read(asked, lost), urls, lost)

    def planes(
        self, shards: Integers, offsets: Integers, lengths: Integers, shapes: Integers, windows: Integers
    ) -> Found:
        return self._windows(shards, offsets, lengths, shapes, windows)

    def _windows(
        self,
        shards: Integers,
        offsets: Integers,
        lengths: Integers,
        shapes: Integers,
        windows: Integers,
        read: ReadRanges | None = None,
    ) -> Found:
        from chammi75.loading.remote_planes import PlanePlace, fetch_windows

        places = [
            PlanePlace(self._store.shard_url(shard), offset, length, height, width)
            for shard, offset, length, (height, width) in zip(
                shards.tolist(), offsets.tolist(), lengths.tolist(), shapes.tolist(), strict=True
            )
        ]
        lost: dict[int, Exception] = {}
        options = self._store.storage_options
        planes = fetch_windows(places, windows, options, traffic=self._traffic, failures=lost, read=read)
        return self._kept(planes, [place.url for place in places], lost)

    def renew(self, shards: Sequence[int]) -> bool:
        return False

    def _read(self, requests: Sequence[Range], failures: dict[int, Exception] | None) -> list[Any]:
        from chammi75.ranges import fetch_ranges

        options = self._store.storage_options
        return list(fetch_ranges(requests, options, traffic=self._traffic, failures=failures))

    def _kept(self, parts: Sequence[Any], urls: Sequence[str], lost: dict[int, Exception]) -> Found:
        kept: list[Any] = list(parts)
        failures: Failures = {}
        for number, error in lost.items():
            if isinstance(error, UnreachableError):  # no fault of this shard: to take another would not help
                raise error
            kept[number] = None
            if isinstance(error, ChammiError):
                failures[number] = error
            else:
                reason = explain(error, urls[number], self._store.storage_options)
                failures[number] = StoreError(f"{urls[number]}: {reason}")
        return kept, failures


class CachedShards(FetchedShards):
    """Shards on a network, of which whole ones are kept by the node: views of the files that it has.

    Where these lie on a disk that cannot be trusted with mapped files, ranges of them are read.
    """

    def __init__(self, store: Store, cache: NodeCache) -> None:
        super().__init__(store)
        self._cache = cache

    @cached_property
    def _files(self) -> dict[str, RemoteFile]:
        from chammi75.store.node_cache import shard_files

        return {file.url: file for file in shard_files(self._store)}

    def ranges(self, shards: Integers, offsets: Integers, lengths: Integers) -> Found:
        if self._cache.can_map:
            return _cut_out(shards, offsets, lengths, self._view)
        return super().ranges(shards, offsets, lengths)

    def planes(
        self, shards: Integers, offsets: Integers, lengths: Integers, shapes: Integers, windows: Integers
    ) -> Found:
        if self._cache.can_map:
            return _cut_out(shards, offsets, lengths, self._view)
        return self._windows(shards, offsets, lengths, shapes, windows, self._read)

    def _view(self, shard: int) -> memoryview:
        return self._cache.view(self._files[self._store.shard_url(shard)])

    def renew(self, shards: Sequence[int]) -> bool:
        for shard in shards:
            self._cache.check(self._files[self._store.shard_url(shard)])
        return True  # always: another thread or process may have mended it just before

    def _read(self, requests: Sequence[Range], failures: dict[int, Exception] | None) -> list[Any]:
        parts: list[Any] = [b""] * len(requests)
        by_url: dict[str, list[int]] = {}
        for number, (url, _, _) in enumerate(requests):
            by_url.setdefault(url, []).append(number)
        for url, numbers in by_url.items():
            try:
                found = self._cache.read(self._files[url], [requests[number][1:] for number in numbers])
            except CacheError:  # no fault of this shard
                raise
            except StoreError as error:
                if failures is None:
                    raise
                failures.update(dict.fromkeys(numbers, error))
                continue
            for number, part in zip(numbers, found, strict=True):
                parts[number] = memoryview(part)
        return parts
