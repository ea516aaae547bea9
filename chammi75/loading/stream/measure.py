"""How quick a stream is on this machine, and where its time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from chammi75.loading.stream.batches import Part
    from chammi75.loading.stream.stream import TrainingStream

_WARM_UP = 2
"""Batches that are not counted: kernels are loaded, files opened and pages brought in meanwhile."""

_PAGE = 4096
"""Bytes that the system brings in at once, at least."""


@dataclass(frozen=True)
class Stages:
    """Where the time of a sample goes, in one process; milliseconds.

    Attributes
    ----------
    choose : float
        Order, records, cells and windows.
    read : float
        Bytes of the tiles that are touched: from the disk, its cache, or the network.
    decode : float
        Decompressing, and undoing the predictor.
    resize : float
    collate : float
        Tensors and lists.
    samples : int
        That were measured.
    bytes : float
        Encoded bytes that a sample takes.
    requests : float
        Requests to a server that a sample takes.
    """

    choose: float
    read: float
    decode: float
    resize: float
    collate: float
    samples: int
    bytes: float
    requests: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.choose + self.read + self.decode + self.resize + self.collate


@dataclass(frozen=True)
class Rate:
    """What a DataLoader reaches.

    Attributes
    ----------
    workers : int
    samples_per_s : float
    samples : int
        That were counted.
    first_s : float
        Until the first batch was there.
    """

    workers: int
    samples_per_s: float
    samples: int
    first_s: float


def measure_stages(stream: TrainingStream, seconds: float = 3.0) -> Stages:
    """Read batches in this process, stage by stage.

    Parameters
    ----------
    stream : TrainingStream
    seconds : float
        About how long.

    Raises
    ------
    ChammiError
        If a sample cannot be read.
    """
    from chammi75.loading.stream.samples import as_batch

    reader, traffic = stream.reader(), stream.traffic
    size = stream.batch_size or 64
    times: list[tuple[float, ...]] = []
    encoded = asked = samples = 0
    end, number, room = None, 0, np.empty(0, np.uint8)
    while end is None or (perf_counter() < end or len(times) < _WARM_UP):
        positions = np.arange(number * size, (number + 1) * size)
        requests = traffic.requests
        marks = [perf_counter()]
        choice = reader.choose(stream.epoch, positions)
        marks.append(perf_counter())
        parts = reader.fetch(choice)
        touched = sum(_touch(content, window) for part in parts for content, window in part.windows())
        marks.append(perf_counter())
        if reader.resizes:
            room = _decode_alone(parts, room)
        marks.append(perf_counter())
        pixels, failures = reader.decode(choice, parts)
        marks.append(perf_counter())
        as_batch(reader.described(choice, pixels, failures), stream.mode, stream.epoch, 0)
        marks.append(perf_counter())
        if failures or choice.failures:
            raise next(iter({**failures, **choice.failures}.values()))
        number += 1
        if end is None and number >= _WARM_UP:
            end = perf_counter() + seconds
        elif end is not None:
            times.append(tuple(later - before for before, later in pairwise(marks)))
            encoded, asked, samples = encoded + touched, asked + traffic.requests - requests, samples + size
    choose, read, alone, both, collate = (1000 * median(column) / size for column in zip(*times, strict=True))
    decode = min(alone, both) if reader.resizes else both
    return Stages(choose, read, decode, both - decode, collate, samples, encoded / samples, asked / samples)


def measure_rate(stream: TrainingStream, workers: int, seconds: float = 3.0) -> Rate:
    """Read batches through a DataLoader.

    Parameters
    ----------
    stream : TrainingStream
        Give it ``samples_per_epoch`` that last long enough: at the end of an epoch workers start anew.
    workers : int
        Processes beside this one; 0 reads here.
    seconds : float
        About how long.
    """
    from torch.utils.data import DataLoader

    start = perf_counter()
    batches = iter(DataLoader(stream, batch_size=None, num_workers=workers))
    next(batches)
    first_s = perf_counter() - start
    for _ in range(_WARM_UP * max(workers, 1) * 2):  # what the workers had ready is not what they reach
        next(batches, None)
    counted, start = 0, perf_counter()
    while perf_counter() - start < seconds and (batch := next(batches, None)) is not None:
        counted += len(batch["position"]) if stream.batch_size else 1
    return Rate(workers, counted / (perf_counter() - start), counted, first_s)


def _decode_alone(parts: Sequence[Part], room: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode windows as they are stored, into memory that is kept from batch to batch: what to resize them adds."""
    for part in parts:
        fetched = part.fetched
        dtype = max(fetched.dtypes, key=lambda kind: kind.itemsize)
        shape = (len(fetched.contents), *fetched.windows[:, 2:].max(axis=0).tolist())
        needed = math.prod(shape) * dtype.itemsize
        room = room if len(room) >= needed else np.zeros(2 * needed, np.uint8)
        part.source.decode(fetched, room[:needed].view(dtype).reshape(shape), resize=False, threads=1)
    return room


def _touch(content: Any, window: NDArray[np.int64]) -> int:
    """Bring in what a window needs of an encoded plane; its bytes."""
    from chammi75.store.plane import head_bytes, parse_head, tile_ranges

    view = memoryview(content).cast("B")
    if bytes(view[:4]) != b"II*\0":
        ranges = [(0, len(view))]
    else:
        head = parse_head(view)
        y, x, height, width = window.tolist()
        ranges = [(0, head_bytes(head.height, head.width)), *tile_ranges(head, (y, x, height, width))]
    for offset, length in ranges:
        np.frombuffer(view[offset : offset + length], np.uint8)[:: _PAGE // 8].max(initial=0)
    return sum(length for _, length in ranges)
