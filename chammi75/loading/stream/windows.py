"""The shards of a window, and of the next one, in the cache of the node before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError
from chammi75.loading.stream.sources import Source
from chammi75.loading.stream.store_source import StoreSource

if TYPE_CHECKING:
    from chammi75.loading.stream.order import Order, Window
    from chammi75.store.node_cache import NodeCache, RemoteFile


class WindowFiles:
    """The files behind the windows of an order.

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
        self._files: list[list[RemoteFile]] = []
        self._index_bytes = 0
        for source in sources:
            if not isinstance(source, StoreSource):
                raise ChammiError(
                    "shards are kept of stores alone: the published layout is read file by file; take"
                    " shuffle='global', or convert it (chammi75 convert)"
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
        sizes = sorted((self._file(number).size for number in range(len(self._shards))), reverse=True)
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
        self._cache.prefetch([self._file(number) for number in dict.fromkeys(numbers)])

    def _file(self, number: int) -> RemoteFile:
        source, shard = self._shards[number]
        return self._files[source][shard]
