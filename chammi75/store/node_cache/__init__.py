"""The cache of a node: files of remote stores on a local disk, fetched once for all its workers and ranks.

Every process that opens a cache on the same folder shares it; nobody is in charge. A file is fetched under a name of
its own, hashed while it is written, and moved to its place in one step, so that what is in place is whole. Locks keep
two processes of a machine from fetching the same file (``locks``); where there are none, or they do not reach from
node to node, processes watch each other's parts, and may in the worst case both fetch it. A process that is killed
leaves a part behind that the next one removes (``folder``).

A file is checked against its SHA-256 when it is fetched. On reuse its size and its time of change are compared with
those that it was given then (``entries``), and if they differ it is hashed again; to hash every shard in every worker
would cost as much as reading it. What a disk itself garbles is found by the checksums of the planes, and
``NodeCache.check`` then has the file fetched again.
"""

from chammi75.store.node_cache.cache import CacheTraffic, NodeCache, shards_folder
from chammi75.store.node_cache.download import RemoteFile
from chammi75.store.node_cache.folder import CacheError
from chammi75.store.node_cache.store_files import index_file, open_index_cached, shard_files

__all__ = [
    "CacheError",
    "CacheTraffic",
    "NodeCache",
    "RemoteFile",
    "index_file",
    "open_index_cached",
    "shard_files",
    "shards_folder",
]
