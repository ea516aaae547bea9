"""The shards of a window, and of the next one, in the cache of the node before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError
from chammi75.files import is_local
from chammi75.loading.stream.sources import Source
from chammi75.loading.stream.store_source import StoreSource

if TYPE_CHECKING:
    from chammi75.loading.stream.order import Order, Window
    from chammi75.store.node_cache import NodeCache, RemoteFile


class WindowFiles:
    """The files behind the windows of an order, of those sources that are not local: these are read where they lie.

    Parameters
    ----------
    cache : NodeCache
    sources : sequence of Source
    shards : sequence of (int, int)
        The source and the number of each shard of the order.

    Raises
    ------
    ChammiError
        If a source has no shards that could be kept.
    """

    def __init__(self, cache: NodeCache, sources: Sequence[Source], shards: Sequence[tuple[int, int]]) -> None:
        self._cache, self._shards = cache, list(shards)
        self._files: list[list[RemoteFile] | None] = []
        self._index_bytes = 0
        for source in sources:
            if is_local(source.url):
                self._files.append(None)
                continue
            if not isinstance(source, StoreSource):
                raise ChammiError(
                    f"{source.url}: shards are kept of stores alone: the published layout is read file by file; take"
                    f" shuffle='global', or convert it (chammi75 convert)"
                )
            self._files.append(source.files)
            self._index_bytes += source.index_bytes

    def check_room(self, order: Order) -> None:
        """Refuse a cache that cannot hold two windows and the indexes.

        Raises
        ------
        CacheError
            With the numbers.
        """
        each = order.shuffle.shards or len(self._shards)
        sizes = sorted((file.size for file in self._kept(range(len(self._shards)))), reverse=True)
        needed = sum(sizes[: 2 * each]) + self._index_bytes
        self._cache.check_room(needed, f"two windows of {each} shards and the index")

    def ahead_of(
        self, dealt: Iterable[NDArray[np.int64]], order: Order, epoch: int, start: int
    ) -> Iterator[NDArray[np.int64]]:
        """The same positions; meanwhile the files of their window and of the next one are fetched.

        Parameters
        ----------
        dealt : iterable of ndarray of int64
            Positions of batches, ascending.
        order : Order
        epoch : int
        start : int
            The first position.
        """
        windows = order.windows(epoch, start)
        current, following = next(windows, None), next(windows, None)
        self._prefetch(current, following)
        for positions in dealt:
            moved = False
            while current is not None and following is not None and positions[0] >= current.stop:
                current, following, moved = following, next(windows, None), True
            if moved:
                self._prefetch(current, following)
            yield positions

    def _prefetch(self, *windows: Window | None) -> None:
        numbers = [shard for window in windows if window is not None for shard in window.shards.tolist()]
        self._cache.prefetch(self._kept(dict.fromkeys(numbers)))

    def _kept(self, numbers: Iterable[int]) -> list[RemoteFile]:
        """The files of those shards of the order that are kept."""
        places = [self._shards[number] for number in numbers]
        return [files[shard] for source, shard in places if (files := self._files[source]) is not None]
