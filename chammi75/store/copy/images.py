"""Some images of stores, as new shards: their planes are taken as they are stored, nothing is decoded.

The images go through the one writer of shards, in the order of their index: so the new shards depend on nothing but
which images they are. What an interrupted copy has on a local disk is taken from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import StoreError
from chammi75.files import join_url
from chammi75.schemas.manifest import FileEntry
from chammi75.schemas.recipe import BuildRecipe
from chammi75.schemas.record import ImageRecord
from chammi75.store.copy.ranges import SourceFiles
from chammi75.store.copy.target import Target
from chammi75.store.facets import Facet
from chammi75.store.reader import Store
from chammi75.store.shard import (
    EncodedImage,
    ShardWriter,
    WrittenShard,
    cells_from_bytes,
    locate,
    places_schema,
    read_batches,
    stored_digest,
)
from chammi75.store.writer import shard_path

if TYPE_CHECKING:
    import pyarrow as pa

Advance = Callable[[int], None]
Read = Callable[[int, int], Any]
SHARD_BYTES: int = BuildRecipe.model_fields["shard_bytes"].default
_WINDOW_BYTES = 8 * 2**20
"""Planes are asked for in portions of this size, one portion ahead of what is written."""

_ITEM_BYTES = {"uint8": 1, "uint16": 2, "float32": 4}


@dataclass(frozen=True)
class Cut:
    """Which images make a shard: (number of the store, its rows), in order."""

    path: str
    split: str
    picks: tuple[tuple[int, NDArray[np.int64]], ...]


@dataclass(frozen=True)
class ShardTask:
    """One shard's work.

    Attributes
    ----------
    path : str
    stores : list of Store
        Where each image comes from.
    records : pyarrow.Table
    places : pyarrow.Table
        With ``image_id`` and ``shard`` beside the columns of ``places_schema()``.
    """

    path: str
    stores: list[Store]
    records: pa.Table
    places: pa.Table


def decoded_bytes(store: Store) -> NDArray[np.int64]:
    """Size of each image's pixels, shape (images,)."""
    import pyarrow.compute as pc

    table = store.index.table
    dtypes = Facet.from_column(table.column("dtype").chunk(0))
    items = np.array([_ITEM_BYTES[name] for name in dtypes.values], np.int64)
    height, width = (_numbers(table.column(name)) for name in ("height", "width"))
    channels = _numbers(pc.list_value_length(table.column("plane_lengths")))
    return np.asarray(height * width * channels * items[dtypes.codes], np.int64)


def stored_bytes(store: Store) -> NDArray[np.int64]:
    """Size of each image's planes and cells as they are stored, shape (images,)."""
    table = store.index.table
    planes = _sums(table.column("plane_lengths"))
    return planes + 12 * _sums(table.column("cells"))


def _sums(lists: pa.ChunkedArray) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    values = _numbers(pc.fill_null(pc.list_flatten(lists), 0))
    parents = _numbers(pc.list_parent_indices(lists))
    return np.bincount(parents, weights=values, minlength=len(lists)).astype(np.int64)


def _numbers(column: Any) -> NDArray[np.int64]:
    """A column of whole numbers without nulls; its own to_numpy() would import pandas, which takes a second."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.empty(0, np.int64), *(np.from_dlpack(chunk) for chunk in chunks if len(chunk))])


def cut_shards(stores: Sequence[Store], chosen: Sequence[NDArray[np.int64]], limit: int = SHARD_BYTES) -> list[Cut]:
    """Cut images into shards by their decoded sizes, split by split, as a build does.

    Parameters
    ----------
    stores : sequence of Store
    chosen : sequence of ndarray of int64
        Rows of each, ascending.
    limit : int
        Decoded bytes of a shard, at most (one image at least).
    """
    sizes = [decoded_bytes(store) for store in stores]
    cuts: list[Cut] = []
    for split in sorted({shard.split for store in stores for shard in store.shards}):
        shards: list[list[tuple[int, NDArray[np.int64]]]] = []
        size = limit
        for number, store in enumerate(stores):
            of_split = np.array([shard.split == split for shard in store.shards])
            rows = chosen[number][of_split[_numbers(store.index.table.column("shard"))[chosen[number]]]]
            first = 0
            for k, image_bytes in enumerate(sizes[number][rows].tolist()):
                if size + image_bytes > limit:
                    if first < k:
                        shards[-1].append((number, rows[first:k]))
                    shards.append([])
                    first, size = k, 0
                size += image_bytes
            if first < len(rows):
                shards[-1].append((number, rows[first:]))
        cuts.extend(Cut(shard_path(split, k), split, tuple(picks)) for k, picks in enumerate(shards))
    return cuts


def shard_task(cut: Cut, stores: Sequence[Store]) -> ShardTask:
    """All that a thread needs to make a shard."""
    import pyarrow as pa

    names = ["image_id", "shard", *places_schema().names]
    records = [stores[number].records_at(rows) for number, rows in cut.picks]
    places = [stores[number].index.table.select(names).take(pa.array(rows)) for number, rows in cut.picks]
    origins = [stores[number] for number, rows in cut.picks for _ in range(len(rows))]
    return ShardTask(cut.path, origins, pa.concat_tables(records), pa.concat_tables(places))


def copy_shard(task: ShardTask, target: Target, advance: Advance) -> tuple[WrittenShard, int]:
    """Make a shard, unless it is there; also bytes read from the sources.

    Raises
    ------
    StoreError
        If a source cannot be read, or an image's stored bytes are not those that its index vouches for.
    """
    done = _done(task, target)
    if done is not None:
        advance(sum(sum(lengths) for lengths in done.places.column("plane_lengths").to_pylist()))
        return done, 0
    before = _salvaged(task, target) if target.is_local else {}
    files: dict[str, SourceFiles] = {}
    with ExitStack() as opened:
        for store in task.stores:
            if store.url not in files:
                files[store.url] = opened.enter_context(SourceFiles(store))
        with target.new_file(task.path) as file:
            writer = ShardWriter(file)
            for image, size in _images(task, files, before):
                writer.write(image)
                advance(size)
            written = writer.close()
        target.note(task.path, _note(written))
        return written, sum(one.read_bytes for one in files.values())


def _images(
    task: ShardTask, files: dict[str, SourceFiles], before: dict[str, tuple[dict[str, Any], Read]]
) -> Iterator[tuple[EncodedImage, int]]:
    """The images of a shard in order, and their stored sizes; one portion is read ahead."""
    windows = _windows(task)

    def fetch(window: range) -> list[tuple[dict[str, Any], Read]]:
        places = task.places.slice(window.start, len(window)).to_pylist()
        kept = [before.get(place["image_id"]) for place in places]
        kept = [one if one and _is_sound(place, *one) else None for place, one in zip(places, kept, strict=True)]
        wanted: dict[str, dict[str, list[tuple[int, int]]]] = {}
        origins = []
        for row, place, one in zip(window, places, kept, strict=True):
            store = task.stores[row]
            path = store.shards[place["shard"]].path
            origins.append((store.url, path))
            if one is None:
                wanted.setdefault(store.url, {}).setdefault(path, []).extend(_ranges(place))
        parts = {url: files[url].parts(ranges) for url, ranges in wanted.items()}
        found = []
        for (url, path), place, one in zip(origins, places, kept, strict=True):
            read = parts[url][path].read if one is None else one[1]
            if one is None and stored_digest(place, read) != place["stored_sha256"]:
                raise StoreError(
                    f"{join_url(url, path)}: {place['image_id']} is damaged: its stored bytes are not those of the"
                    f" index; chammi75 verify {url} names all that is hit; the copy is not finished"
                )
            stored = place if one is None else {**place, **one[0]}
            found.append((stored, read))
        return found

    with ThreadPoolExecutor(1) as ahead:
        waiting: Future[list[tuple[dict[str, Any], Read]]] = ahead.submit(fetch, windows[0])
        for number, window in enumerate(windows):
            found = waiting.result()
            if number + 1 < len(windows):
                waiting = ahead.submit(fetch, windows[number + 1])
            records = task.records.slice(window.start, len(window)).to_pylist()
            for record, (place, read) in zip(records, found, strict=True):
                yield _encoded(record, place, read), sum(place["plane_lengths"])


def _windows(task: ShardTask) -> list[range]:
    sizes = _sums(task.places.column("plane_lengths")).tolist()
    windows, first, size = [], 0, 0
    for row, image_bytes in enumerate(sizes):
        if row > first and size + image_bytes > _WINDOW_BYTES:
            windows.append(range(first, row))
            first, size = row, 0
        size += image_bytes
    return [*windows, range(first, len(sizes))]


def _ranges(place: dict[str, Any]) -> list[tuple[int, int]]:
    """Where all that is stored of an image lies in its shard."""
    ranges = list(zip(place["plane_offsets"], place["plane_lengths"], strict=True))
    count = sum(entry or 0 for entry in place["cells"] or ())
    if count:
        ranges += [(place["centroids_offset"], 8 * count), (place["sizes_offset"], 4 * count)]
    return ranges


def _encoded(record: dict[str, Any], place: dict[str, Any], read: Read) -> EncodedImage:
    if record["image_id"] != place["image_id"]:
        raise StoreError(f"the two index files disagree on {place['image_id']!r}: the store was not written whole")
    planes = [
        bytes(read(offset, length))
        for offset, length in zip(place["plane_offsets"], place["plane_lengths"], strict=True)
    ]
    count = sum(entry or 0 for entry in place["cells"] or ())
    centroids = bytes(read(place["centroids_offset"], 8 * count)) if count else b""
    sizes = bytes(read(place["sizes_offset"], 4 * count)) if count else b""
    cells = cells_from_bytes(place["cells"], centroids, sizes)
    return EncodedImage(ImageRecord.model_validate(record), planes, cells or [], place["content_sha256"])


def _is_sound(place: dict[str, Any], here: dict[str, Any], read: Read) -> bool:
    """Whether an image that lies here already is the one that is wanted."""
    is_same = here["plane_lengths"] == place["plane_lengths"] and here["cells"] == place["cells"]
    return is_same and bool(stored_digest(here, read) == place["stored_sha256"])


def _salvaged(task: ShardTask, target: Target) -> dict[str, tuple[dict[str, Any], Read]]:
    """What an interrupted copy has of a shard on the local disk: where each image lies, and how to read it."""
    import pyarrow as pa

    kept = target.part(task.path, ".before")
    candidates = [path for path in (kept, target.part(task.path), target.path(task.path)) if path.is_file()]
    if not candidates:
        return {}
    longest = max(candidates, key=lambda path: path.stat().st_size)
    if longest != kept:
        os.replace(longest, kept)
    found: dict[str, tuple[dict[str, Any], Read]] = {}
    if not kept.stat().st_size:
        return found
    content = pa.memory_map(str(kept)).read_buffer()
    view = memoryview(content)

    def read(offset: int, length: int) -> Any:
        return view[offset : offset + length]

    try:
        for start, message, batch in read_batches(content):
            batch.validate(full=True)
            places = pa.table(locate(message, batch.schema, start)).to_pylist()
            for image_id, place in zip(batch.column("image_id").to_pylist(), places, strict=True):
                found[image_id] = place, read
    except (StoreError, pa.ArrowException):
        return found  # it ends where the copy was interrupted
    return found


def _note(written: WrittenShard) -> bytes:
    """What is to be known of a shard that is done: its hash, and where everything is in it."""
    import pyarrow as pa

    stated = {"sha256": written.sha256, "bytes": str(written.bytes)}
    table = written.places.replace_schema_metadata(stated)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _done(task: ShardTask, target: Target) -> WrittenShard | None:
    """A shard that is there already."""
    import pyarrow as pa

    from chammi75.schemas.arrow import record_schema

    note = target.note_on(task.path)
    if note is None:
        return None
    try:
        places = pa.ipc.open_stream(note).read_all()
    except pa.ArrowException:
        return None  # a note that was not written whole
    stated = {name.decode(): value.decode() for name, value in (places.schema.metadata or {}).items()}
    entry = FileEntry(path=task.path, bytes=int(stated["bytes"]), sha256=stated["sha256"])
    if not target.holds(entry):
        return None
    models = [ImageRecord.model_validate(record).model_dump() for record in task.records.to_pylist()]
    records = pa.Table.from_pylist(models, record_schema())
    places = places.replace_schema_metadata(None)
    return WrittenShard(len(models), entry.bytes, entry.sha256, records, places)
