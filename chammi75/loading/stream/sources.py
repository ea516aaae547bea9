"""Where a stream's pixels come from: a store's shards by byte ranges, or the files of the published layout.

Both answer the same questions for some rows at a time, in numbers: what is known of the images, where a cell is, and
what is to be seen through a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.files import explain, is_local, join_url, read_files, reading_errors
from chammi75.loading.layouts import Layout, PublishedLayout, StoreLayout
from chammi75.store.arrays import IndexArrays
from chammi75.store.node_cache import RemoteFile, open_index_cached

if TYPE_CHECKING:
    import pyarrow as pa

    from chammi75.ranges import Traffic
    from chammi75.store.index import ArrowIndex
    from chammi75.store.node_cache import NodeCache

Rows = NDArray[np.int64]
Failures = dict[int, ChammiError]
"""What could not be read, by its number among what was asked for."""

_ROWS_OF_A_PART = 1024
"""Images of a published layout that are taken for one shard when a window of shards is shuffled."""


@dataclass(frozen=True)
class Described:
    """What is known of some images without reading them; one entry each.

    Attributes
    ----------
    image_ids : list of str
    studies : list of str or None
    channel_types : list of tuple
        Types of all stored channels.
    heights, widths : ndarray of int64
    dtypes : list of numpy.dtype
    saturations : ndarray of float32
        The greatest value that the camera could give; NaN for floats.
    """

    image_ids: list[str]
    studies: list[str | None]
    channel_types: list[tuple[str | None, ...]]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    dtypes: list[np.dtype[Any]]
    saturations: NDArray[np.float32]


@dataclass(frozen=True)
class Fetched:
    """Planes as they are stored, and what is to be seen of them; one entry each.

    Attributes
    ----------
    names : list of str
        For messages.
    contents : list of bytes-like or None
        None where it cannot be read.
    windows : ndarray of int64, shape (P, 4)
        y, x, height and width.
    shapes : ndarray of int64, shape (P, 2)
    dtypes : list of numpy.dtype
    failures : dict
        Why what cannot be read cannot.
    shards : ndarray of int64, shape (P,), or None
        Number of each one's shard; None where there are none.
    """

    names: list[str]
    contents: list[Any]
    windows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    dtypes: list[np.dtype[Any]]
    failures: Failures
    shards: NDArray[np.int64] | None = None


class Source(Protocol):
    """Images of one layout. It can be pickled, and opens its files anew in each process."""

    @property
    def channel_type_lists(self) -> list[tuple[str | None, ...]]:
        """The different lists of channel types."""

    def channel_type_codes(self, rows: Rows) -> NDArray[np.int32]:
        """Which of them each image has."""

    def studies(self) -> list[str]:
        """The different studies."""

    def study_codes(self, rows: Rows) -> NDArray[np.int32]:
        """Which of them each image belongs to; -1 if it is unknown."""

    def shards(self, rows: Rows) -> NDArray[np.int64]:
        """Number of the part of the layout that each image lies in."""

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        """The different pixel types of some images."""

    def describe(self, rows: Rows) -> Described:
        """What is known of some images."""

    def choose_cells(
        self, rows: Rows, channels: NDArray[np.int64] | None, randoms: NDArray[np.float64], *, sizes: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Failures]:
        """A cell of each image.

        Parameters
        ----------
        rows : ndarray of int64, shape (N,)
        channels : ndarray of int64, shape (N,), optional
            The channel whose cells are meant; those of all channels where it has none, or none is given.
        randoms : ndarray of float64, shape (N,)
            In [0, 1): which cell.
        sizes : bool
            Whether sizes are wanted.

        Returns
        -------
        centroids : ndarray of float64, shape (N, 2)
            As (x, y); NaN where there is no cell.
        sizes : ndarray of float64, shape (N,)
            NaN where it is not known.
        failures : dict
        """

    def fetch(self, rows: Rows, channels: NDArray[np.int64], windows: NDArray[np.int64]) -> Fetched:
        """Some planes as they are stored; of each at least what its window (y, x, height, width) needs."""

    def decode(self, fetched: Fetched, out: NDArray[Any], *, resize: bool, threads: int) -> Failures:
        """What is seen through the windows, into ``out`` (P, H, W): in its upper left corner, or resized to all."""

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        """Whether reading again may help: what is damaged is a copy, which is fetched again if it is not as its origin."""


def source_of(
    layout: Layout, cache: NodeCache | None = None, *, keep_shards: bool = False, traffic: Traffic | None = None
) -> Source:
    """The source of a layout's pixels.

    Parameters
    ----------
    layout : Layout
    cache : NodeCache, optional
        Where the index of a remote store is kept, so that the workers share it.
    keep_shards : bool
        Whether its shards are kept there too; else only the bytes that are wanted are asked for.
    traffic : Traffic, optional
        Counts requests and bytes.
    """
    if isinstance(layout, StoreLayout):
        return StoreSource(layout, cache, keep_shards, traffic)
    if isinstance(layout, PublishedLayout):
        return PublishedSource(layout)
    raise ChammiError(f"{layout.url}: a stream reads stores and the published layout, not {type(layout).__name__}")


class StoreSource:
    """A store of ours: everything by its byte range, from a mapped file or over the network."""

    def __init__(
        self,
        layout: StoreLayout,
        cache: NodeCache | None = None,
        keep_shards: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        self._layout, self._cache, self._traffic = layout, cache, traffic
        self._shard_cache = cache if keep_shards else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._layout, self._cache, self._shard_cache is not None)

    @cached_property
    def _index(self) -> ArrowIndex:
        store = self._layout.store
        if is_local(store.url) or self._cache is None:
            return store.index
        return open_index_cached(store, self._cache)

    @cached_property
    def _arrays(self) -> IndexArrays:
        return IndexArrays.of(self._index.table)

    @cached_property
    def _ids(self) -> pa.Array:
        return self._index.table.column("image_id").chunk(0)

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
        return self._arrays.shard.values[rows].astype(np.int64)

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        words = self._arrays.dtype
        return [np.dtype(words.values[code]) for code in np.unique(words.at(rows))]

    def file_of(self, shard: int) -> RemoteFile:
        """A shard as a cache knows it."""
        store = self._layout.store
        entry = store.shards[shard]
        return RemoteFile(store.shard_url(shard), entry.sha256, entry.bytes, store.storage_options)

    @property
    def index_bytes(self) -> int:
        """Size of the index file."""
        return self._layout.store.index_files.arrow.bytes

    def describe(self, rows: Rows) -> Described:
        arrays = self._arrays
        types = arrays.channel_types
        names = [arrays.dtype.values[code] for code in arrays.dtype.at(rows).tolist()]
        studies = [arrays.study.values[code] if code >= 0 else None for code in arrays.study.at(rows).tolist()]
        bits = np.where(arrays.significant_bits.valid(rows), arrays.significant_bits.values[rows], 0)
        return Described(
            image_ids=[self._ids[row].as_py() for row in rows.tolist()],
            studies=studies,
            channel_types=[types.values[code] for code in types.at(rows).tolist()],
            heights=arrays.height.values[rows].astype(np.int64),
            widths=arrays.width.values[rows].astype(np.int64),
            dtypes=[np.dtype(name) for name in names],
            saturations=_saturations(names, bits),
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
        shards = np.concatenate([self.shards(rows[numbers]) for numbers, _, _ in asked])
        offsets = np.concatenate([offsets for _, offsets, _ in asked])
        lengths = np.concatenate([np.full(len(numbers), length) for numbers, _, length in asked])
        parts, failures = self._stored(shards, offsets, lengths)
        failed: Failures = {int(there[number % len(there)]): error for number, error in failures.items()}
        for number, part in enumerate(parts):
            if part is not None:
                target = found[number // len(there)]
                target[there[number % len(there)]] = np.frombuffer(part, "<f4")
        return *found, failed

    def _cell_counts(
        self, rows: Rows, channels: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many cells each image, or its channel, has, and which of the image's cells is the first of them."""
        cells = self._arrays.cells
        starts, ends = cells.starts[rows].astype(np.int64), cells.starts[rows + 1].astype(np.int64)
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
        arrays, store = self._arrays, self._layout.store
        at = arrays.plane_offsets.starts[rows] + channels
        offsets, lengths = arrays.plane_offsets.items.values[at], arrays.plane_lengths.items.values[at]
        shapes = np.stack([arrays.height.values[rows], arrays.width.values[rows]], axis=1).astype(np.int64)
        shards = self.shards(rows)
        planes, failures = self._planes(shards, offsets, lengths, shapes, windows)
        return Fetched(
            names=[store.shard_url(shard) for shard in shards.tolist()],
            contents=planes,
            windows=windows,
            shapes=shapes,
            dtypes=[np.dtype(arrays.dtype.values[code]) for code in arrays.dtype.at(rows).tolist()],
            failures=failures,
            shards=shards,
        )

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        if self._shard_cache is None or fetched.shards is None:
            return False
        for shard in np.unique(fetched.shards[list(damaged)]).tolist():
            self._shard_cache.check(self.file_of(shard))  # another thread or process may have mended it just before
        return True

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

    def _planes(
        self,
        shards: NDArray[np.int64],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        shapes: NDArray[np.int64],
        windows: NDArray[np.int64],
    ) -> tuple[list[Any], Failures]:
        """Encoded planes, of which at least what the windows need is there."""
        store = self._layout.store
        if is_local(store.url) or self._shard_cache is not None:
            return self._stored(shards, offsets, lengths)
        from chammi75.loading.remote_planes import PlanePlace, fetch_windows

        places = [
            PlanePlace(store.shard_url(shard), offset, length, height, width)
            for shard, offset, length, (height, width) in zip(
                shards.tolist(), offsets.tolist(), lengths.tolist(), shapes.tolist(), strict=True
            )
        ]
        lost: dict[int, Exception] = {}
        planes = fetch_windows(places, windows, store.storage_options, traffic=self._traffic, failures=lost)
        return self._kept(planes, [place.url for place in places], lost)

    def _kept(
        self, parts: Sequence[Any], urls: Sequence[str], lost: dict[int, Exception]
    ) -> tuple[list[Any], Failures]:
        """What was fetched, None where it was not, and why not."""
        kept: list[Any] = list(parts)
        failures: Failures = {}
        for number, error in lost.items():
            reason = explain(error, urls[number], self._layout.storage_options)
            kept[number] = None
            failures[number] = error if isinstance(error, ChammiError) else StoreError(f"{urls[number]}: {reason}")
        return kept, failures

    def _stored(
        self, shards: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[list[Any], Failures]:
        """Byte ranges of shards: views of mapped files, or what was fetched."""
        store = self._layout.store
        if not is_local(store.url):
            return self._fetched(shards, offsets, lengths)
        from chammi75.store.reader import map_file

        views: dict[int, memoryview] = {}
        broken: dict[int, ChammiError] = {}
        for shard in np.unique(shards).tolist():
            try:
                views[shard] = memoryview(map_file(store.shard_url(shard), store.shards[shard].bytes))
            except StoreError as error:
                broken[shard] = error
        parts: list[Any] = []
        failures: Failures = {}
        for number, (shard, offset, length) in enumerate(
            zip(shards.tolist(), offsets.tolist(), lengths.tolist(), strict=True)
        ):
            if shard in broken:
                failures[number] = broken[shard]
            parts.append(None if shard in broken else views[shard][offset : offset + length])
        return parts, failures

    def _fetched(
        self, shards: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[list[Any], Failures]:
        store = self._layout.store
        if self._shard_cache is None:
            from chammi75.ranges import fetch_ranges

            urls = [store.shard_url(shard) for shard in shards.tolist()]
            asked = list(zip(urls, offsets.tolist(), lengths.tolist(), strict=True))
            lost: dict[int, Exception] = {}
            found = fetch_ranges(asked, store.storage_options, traffic=self._traffic, failures=lost)
            return self._kept(found, urls, lost)
        parts: list[Any] = [None] * len(shards)
        failures: Failures = {}
        for shard in np.unique(shards).tolist():
            numbers = np.flatnonzero(shards == shard).tolist()
            ranges = [(int(offsets[number]), int(lengths[number])) for number in numbers]
            try:
                read = self._shard_cache.read(self.file_of(shard), ranges)
            except StoreError as error:
                failures.update(dict.fromkeys(numbers, error))
                continue
            for number, part in zip(numbers, read, strict=True):
                parts[number] = part
        return parts, failures


class PublishedSource:
    """The published layout: one image file per channel, decoded whole, and one guidance file per channel."""

    def __init__(self, layout: PublishedLayout) -> None:
        self._layout = layout

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._layout,)

    @cached_property
    def _channel_types(self) -> tuple[list[tuple[str | None, ...]], NDArray[np.int32]]:
        import json

        facet = self._layout.facet("channel_types")
        return [tuple(json.loads(text)) for text in facet.values], facet.codes

    @property
    def channel_type_lists(self) -> list[tuple[str | None, ...]]:
        return self._channel_types[0]

    def channel_type_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._channel_types[1][rows]

    def studies(self) -> list[str]:
        return self._layout.facet("study").values

    def study_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._layout.facet("study").codes[rows]

    def shards(self, rows: Rows) -> NDArray[np.int64]:
        return rows // _ROWS_OF_A_PART

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        import pyarrow.compute as pc

        words = pc.unique(self._geometry("dtype", rows)).to_pylist()
        return [np.dtype(word) for word in words]

    def describe(self, rows: Rows) -> Described:
        facet = self._layout.facet("study")
        names = self._geometry("dtype", rows).to_pylist()
        bits = np.array([bits or 0 for bits in self._geometry("significant_bits", rows).to_pylist()], np.int64)
        lists, codes = self._channel_types
        return Described(
            image_ids=self._taken("image_id", rows).to_pylist(),
            studies=[facet.values[code] if code >= 0 else None for code in facet.codes[rows].tolist()],
            channel_types=[lists[code] for code in codes[rows].tolist()],
            heights=np.array(self._geometry("height", rows).to_pylist(), np.int64),
            widths=np.array(self._geometry("width", rows).to_pylist(), np.int64),
            dtypes=[np.dtype(name) for name in names],
            saturations=_saturations(names, bits),
        )

    def choose_cells(
        self, rows: Rows, channels: NDArray[np.int64] | None, randoms: NDArray[np.float64], *, sizes: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Failures]:
        from chammi75.loading.guided import choose_cells
        from chammi75.readers.guidance import find_guidance

        layout = self._layout
        guidance = layout.table.guidance.take(_indices(rows)).to_pylist()
        found = np.full((len(rows), 2), np.nan), np.full(len(rows), np.nan)
        failures: Failures = {}
        for number, paths in enumerate(guidance):
            urls = [None if path is None else join_url(layout.url, path) for path in paths or ()]
            try:
                cells = find_guidance(urls, layout.storage_options)
            except ChammiError as error:
                failures[number] = error
                continue
            own = cells[channels[number]] if channels is not None and channels[number] < len(cells) else None
            meant = [own] if own is not None and len(own.xy) else [entry for entry in cells if entry is not None]
            total = np.array([sum(len(entry.xy) for entry in meant)])
            (chosen,) = choose_cells(randoms[number : number + 1], total)
            if chosen >= 0:
                found[0][number] = np.concatenate([entry.xy for entry in meant])[chosen]
                found[1][number] = np.concatenate([entry.sizes for entry in meant])[chosen]
        return *found, failures

    def fetch(self, rows: Rows, channels: NDArray[np.int64], windows: NDArray[np.int64]) -> Fetched:
        described = self.describe(rows)
        found = self._contents(rows, channels)
        return Fetched(
            names=[url for url, _ in found],
            contents=[None if isinstance(content, ChammiError) else content for _, content in found],
            windows=windows,
            shapes=np.stack([described.heights, described.widths], axis=1),
            dtypes=described.dtypes,
            failures={number: content for number, (_, content) in enumerate(found) if isinstance(content, ChammiError)},
        )

    def decode(self, fetched: Fetched, out: NDArray[Any], *, resize: bool, threads: int) -> Failures:
        from chammi75.store.resize import resize_plane

        failures = dict(fetched.failures)
        for number, content in enumerate(fetched.contents):
            if content is None:
                continue
            shape, dtype = tuple(fetched.shapes[number].tolist()), fetched.dtypes[number]
            try:
                plane = _decoded(fetched.names[number], content, shape, dtype)
            except ChammiError as error:
                failures[number] = error
                continue
            y, x, height, width = fetched.windows[number].tolist()
            part = plane[y : y + height, x : x + width]
            if resize:
                resize_plane(part, out[number])
            else:
                out[number, :height, :width] = part
        return failures

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        return False

    def _contents(self, rows: Rows, channels: NDArray[np.int64]) -> list[tuple[str, bytes | ChammiError]]:
        """The files of some planes: their URLs, and what is in them or why that cannot be said."""
        import pyarrow.compute as pc

        layout = self._layout
        paths = pc.struct_field(_chunk(layout.table.records.column("storage")), "path").take(_indices(rows)).to_pylist()
        urls = [join_url(layout.url, path[channel]) for path, channel in zip(paths, channels.tolist(), strict=True)]
        try:
            contents = read_files(urls, layout.storage_options)
        except reading_errors():
            return [(url, self._content(url)) for url in urls]
        return [(url, content or b"") for url, content in zip(urls, contents, strict=True)]

    def _content(self, url: str) -> bytes | ChammiError:
        try:
            (content,) = read_files([url], self._layout.storage_options)
        except FileNotFoundError:
            return ReadError(url, "the file is not there")
        except reading_errors() as error:
            reason = explain(error, url, self._layout.storage_options)
            return ReadError(url, f"the file cannot be read: {reason}")
        return content or b""

    def _geometry(self, name: str, rows: Rows) -> pa.Array:
        import pyarrow.compute as pc

        return pc.struct_field(_chunk(self._layout.table.records.column("geometry")), name).take(_indices(rows))

    def _taken(self, name: str, rows: Rows) -> pa.Array:
        return _chunk(self._layout.table.records.column(name)).take(_indices(rows))


def _decoded(url: str, content: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The plane in a file, if it is what the table states."""
    from chammi75.readers.registry import open_image

    with open_image(url, content=content) as reader:
        plane = reader.read_plane()
    if plane.shape != shape or plane.dtype != dtype:
        raise ReadError(
            url,
            f"the file has {plane.shape[0]} x {plane.shape[1]} pixels of {plane.dtype}, the table states"
            f" {shape[0]} x {shape[1]} of {dtype}",
        )
    return plane


def _saturations(names: Sequence[str], bits: NDArray[Any]) -> NDArray[np.float32]:
    """The greatest value of each image: of its significant bits, else of its dtype; NaN for floats."""
    widths = np.array([0 if name.startswith("float") else 8 * np.dtype(name).itemsize for name in names], np.int64)
    used = np.where((bits > 0) & (bits < widths), bits, widths)
    return np.where(widths > 0, 2.0**used - 1, np.nan).astype(np.float32)


def _indices(rows: Rows) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows.tolist(), pa.int64())  # an ndarray would make pyarrow import pandas, in every worker


def _chunk(column: Any) -> Any:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
