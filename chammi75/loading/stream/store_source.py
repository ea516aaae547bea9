"""A store of ours as a source: everything by its byte range."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import StoreError
from chammi75.files import is_local
from chammi75.loading.layouts import StoreLayout
from chammi75.loading.stream.shard_bytes import shard_bytes_of
from chammi75.loading.stream.sources import Described, Failures, Fetched, Rows, saturations_of
from chammi75.store.arrays import check_inside
from chammi75.store.node_cache import RemoteFile, open_index_cached, shard_files

if TYPE_CHECKING:
    from chammi75.ranges import Traffic
    from chammi75.store.arrays import IndexArrays
    from chammi75.store.index import ArrowIndex
    from chammi75.store.node_cache import NodeCache


class StoreSource:
    """A store of ours: everything by its byte range, from a mapped file or over the network."""

    def __init__(
        self,
        layout: StoreLayout,
        cache: NodeCache | None = None,
        keep_shards: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        self._layout, self._cache, self._keep_shards = layout, cache, keep_shards
        self._bytes = shard_bytes_of(layout.store, cache if keep_shards else None, traffic)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._layout, self._cache, self._keep_shards)

    @property
    def url(self) -> str:
        return self._layout.store.url

    @property
    def files(self) -> list[RemoteFile]:
        """Its shards as a cache knows them."""
        return shard_files(self._layout.store)

    @cached_property
    def _index(self) -> ArrowIndex:
        store = self._layout.store
        if is_local(store.url) or self._cache is None:
            return store.index
        return open_index_cached(store, self._cache)

    @property
    def _arrays(self) -> IndexArrays:
        return self._index.arrays

    @cached_property
    def _dtypes(self) -> list[np.dtype[Any]]:
        """The different dtypes, by their codes."""
        return [np.dtype(name) for name in self._arrays.dtype.values]

    @cached_property
    def _urls(self) -> list[str]:
        store = self._layout.store
        return [store.shard_url(shard) for shard in range(len(store.shards))]

    @cached_property
    def _shard_bytes(self) -> NDArray[np.int64]:
        return np.array([shard.bytes for shard in self._layout.store.shards], np.int64)

    @property
    def channel_type_lists(self) -> list[tuple[str | None, ...]]:
        return self._arrays.channel_types.values

    def channel_type_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._arrays.channel_types.at(rows)

    def studies(self) -> list[str]:
        return self._arrays.study.values

    def study_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._arrays.study.at(rows)

    def shards(self, rows: Rows) -> NDArray[np.int64]:
        return self._arrays.shards_of(rows, len(self._shard_bytes))

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        return [self._dtypes[code] for code in np.unique(self._arrays.dtype.known_at(rows))]

    @property
    def index_bytes(self) -> int:
        """Size of the index file."""
        return self._layout.store.index_files.arrow.bytes

    def describe(self, rows: Rows) -> Described:
        arrays = self._arrays
        types = arrays.channel_types
        kinds = arrays.dtype.known_at(rows).tolist()
        studies = [arrays.study.values[code] if code >= 0 else None for code in arrays.study.at(rows).tolist()]
        bits = np.where(arrays.significant_bits.valid(rows), arrays.significant_bits.values[rows], 0)
        return Described(
            image_ids=arrays.image_id.at(rows),
            studies=studies,
            channel_types=[types.values[code] for code in types.known_at(rows).tolist()],
            heights=arrays.height.values[rows].astype(np.int64),
            widths=arrays.width.values[rows].astype(np.int64),
            dtypes=[self._dtypes[code] for code in kinds],
            saturations=saturations_of([self._dtypes[code] for code in kinds], bits),
        )

    def choose_cells(
        self, rows: Rows, channels: NDArray[np.int64] | None, randoms: NDArray[np.float64], *, sizes: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Failures]:
        from chammi75.loading.guided import choose_cells

        counts, first = self._cell_counts(rows, channels)
        chosen = choose_cells(randoms, counts)
        found = np.full((len(rows), 2), np.nan), np.full(len(rows), np.nan)
        there = np.flatnonzero(chosen >= 0)
        if not len(there):
            return *found, {}
        places, arrays = first[there] + chosen[there], self._arrays
        asked = [(there, arrays.centroids_offset.values[rows[there]] + 8 * places, 8)]
        if sizes:
            asked.append((there, arrays.sizes_offset.values[rows[there]] + 4 * places, 4))
        asking = np.concatenate([rows[numbers] for numbers, _, _ in asked])
        shards = self.shards(asking)
        offsets = np.concatenate([offsets for _, offsets, _ in asked])
        lengths = np.concatenate([np.full(len(numbers), length) for numbers, _, length in asked])
        check_inside(asking, offsets, lengths, self._shard_bytes[shards])
        parts, failures = self._bytes.ranges(shards, offsets, lengths)
        failed: Failures = {int(there[number % len(there)]): error for number, error in failures.items()}
        for number, part in enumerate(parts):
            if part is not None:
                target = found[number // len(there)]
                target[there[number % len(there)]] = np.frombuffer(part, "<f4").reshape(target.shape[1:])
        return *found, failed

    def _cell_counts(
        self, rows: Rows, channels: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many cells each image, or its channel, has, and which of the image's cells is the first of them."""
        cells = self._arrays.cells
        starts, ends = self._arrays.cell_spans(rows)
        most = int((ends - starts).max(initial=0))
        slots = starts[:, None] + np.arange(most)
        inside = (slots < ends[:, None]) & cells.valid(rows)[:, None]
        slots = np.where(inside, slots, 0)
        numbers = np.zeros(slots.shape, np.int64)
        if most and len(cells.items.values):
            known = inside & cells.items.valid(slots.ravel()).reshape(slots.shape)
            numbers = np.where(known, cells.items.values[slots], 0).astype(np.int64)
        totals = numbers.sum(axis=1)
        if channels is None or not most:
            return totals, np.zeros(len(rows), np.int64)
        at = np.minimum(channels, most - 1)[:, None]
        own = np.where(channels < most, np.take_along_axis(numbers, at, 1)[:, 0], 0)
        before = np.take_along_axis(np.cumsum(numbers, axis=1) - numbers, at, 1)[:, 0]
        return np.where(own > 0, own, totals), np.where(own > 0, before, 0)

    def fetch(self, rows: Rows, channels: NDArray[np.int64], windows: NDArray[np.int64]) -> Fetched:
        arrays = self._arrays
        shards, offsets, lengths = arrays.plane_places(rows, channels, self._shard_bytes)
        shapes = np.stack([arrays.height.values[rows], arrays.width.values[rows]], axis=1).astype(np.int64)
        planes, failures = self._bytes.planes(shards, offsets, lengths, shapes, windows)
        return Fetched(
            names=[self._urls[shard] for shard in shards.tolist()],
            contents=planes,
            windows=windows,
            shapes=shapes,
            dtypes=[self._dtypes[code] for code in arrays.dtype.known_at(rows).tolist()],
            failures=failures,
            shards=shards,
        )

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        if fetched.shards is None:
            return False
        return self._bytes.renew(np.unique(fetched.shards[list(damaged)]).tolist())

    def decode(self, fetched: Fetched, out: NDArray[Any], *, resize: bool, threads: int) -> Failures:
        from chammi75.store.decode import decode_crops

        good = np.array([number for number, plane in enumerate(fetched.contents) if plane is not None], np.int64)
        damaged = decode_crops(
            [fetched.contents[number] for number in good.tolist()],
            fetched.windows[good],
            out,
            shapes=fetched.shapes[good],
            dtypes=[fetched.dtypes[number] for number in good.tolist()],
            places=good,
            resize="bilinear" if resize else None,
            threads=threads,
        )
        failures = dict(fetched.failures)
        for number, error in damaged.items():
            plane = int(good[number])
            failures[plane] = StoreError(f"{fetched.names[plane]}: {error}")
        return failures
