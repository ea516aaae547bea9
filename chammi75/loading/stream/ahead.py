"""Reading ahead: several batches at once where each waits for a server, one after the other where none does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from chammi75.loading.stream.batches import Batch, BatchReader

Read = tuple[NDArray[np.int64], "Batch"]


def read_ahead(reader: BatchReader, epoch: int, dealt: Iterable[NDArray[np.int64]], together: int) -> Iterator[Read]:
    """The batches of some positions, in their order.

    Parameters
    ----------
    reader : BatchReader
    epoch : int
    dealt : iterable of ndarray of int64
        Positions of each batch.
    together : int
        Batches that are read at the same time, in threads of this process; 1 reads each when it is asked for.

    Yields
    ------
    positions : ndarray of int64
    batch : Batch
    """
    if together == 1:
        for positions in dealt:
            yield positions, reader.read(epoch, positions)
        return
    waiting: deque[tuple[NDArray[np.int64], Future[Batch]]] = deque()
    threads = ThreadPoolExecutor(together, thread_name_prefix="chammi75-ahead")
    try:
        for positions in dealt:
            waiting.append((positions, threads.submit(reader.read, epoch, positions)))
            if len(waiting) >= together:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # an error, or Ctrl-C, does not wait for a server that stalls
