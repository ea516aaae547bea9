"""A remote store's files as a node cache keeps them."""

from __future__ import annotations

from chammi75.errors import StoreError
from chammi75.files import is_local, join_url
from chammi75.schemas.manifest import FileEntry
from chammi75.store.index import ArrowIndex
from chammi75.store.node_cache.cache import NodeCache
from chammi75.store.node_cache.download import RemoteFile
from chammi75.store.reader import Store, map_file

_TRIES = 3


def shard_files(store: Store) -> list[RemoteFile]:
    """The shards of a store, in the order of its index."""
    return [_remote_file(store, entry) for entry in store.manifest.shards]


def index_file(store: Store) -> RemoteFile:
    """``index.arrow`` of a store.

    Raises
    ------
    StoreError
        If the store has none: it consists of parts.
    """
    return _remote_file(store, store.index_files.arrow, is_index=True)


def open_index_cached(store: Store, cache: NodeCache) -> ArrowIndex:
    """``index.arrow`` of a remote store, fetched through the cache and memory-mapped: a node holds it once.

    ``store.index = open_index_cached(store, cache)`` makes the store use it. The index of a local store is mapped where
    it is.

    A mapped file may be removed on a local disk: who has mapped it keeps it. On NFS another machine's removal takes it
    away from under its readers, and the process dies of SIGBUS; so no cache evicts an index that was used within a
    day, by whichever process on whichever machine, and every process that opened one notes its use each minute while
    it reads or prefetches.

    Raises
    ------
    StoreError
        If it cannot be fetched, or is damaged.
    CacheError
        If the cache cannot be used.
    """
    if is_local(store.url):
        return store.index
    file = index_file(store)
    for attempt in range(_TRIES):
        path = cache.fetch(file)
        try:
            return ArrowIndex.from_buffer(map_file(str(path), file.size))
        except StoreError:  # damaged, or another process found the limit too small since
            if attempt == _TRIES - 1 or (path.exists() and cache.check(file)):
                raise
    raise AssertionError("unreachable")


def _remote_file(store: Store, entry: FileEntry, *, is_index: bool = False) -> RemoteFile:
    return RemoteFile(join_url(store.url, entry.path), entry.sha256, entry.bytes, store.storage_options, is_index)
