"""Which images a damaged file of a store hits: found by what the store's other, sound files say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError, StoreError
from chammi75.files import join_url, read_bytes
from chammi75.schemas.manifest import FileEntry
from chammi75.schemas.record import ImageRecord
from chammi75.store.facets import FACETS
from chammi75.store.frames import check_schema
from chammi75.store.index import ROW_GROUP, ArrowIndex
from chammi75.store.plane import decode_plane
from chammi75.store.reader import Store
from chammi75.store.shard import (
    cells_from_bytes,
    content_digest,
    locate,
    places_schema,
    read_batches,
    stored_digest,
)

if TYPE_CHECKING:
    import pyarrow as pa

_SIZES = ("height", "width", "dtype", "significant_bits")


@dataclass(frozen=True)
class Damage:
    """Something wrong with a store: the file, the image that it hits (None where it hits none), and what it is."""

    file: str
    image_id: str | None
    reason: str


def locate_damage(store: Store, entry: FileEntry, damaged: frozenset[str]) -> Iterator[Damage]:
    """The images that the damage in a file hits; nothing where it hits none.

    Parameters
    ----------
    store : Store
    entry : FileEntry
        The file, whose bytes differ from its hash.
    damaged : frozenset of str
        Paths of all files that are damaged or absent: nothing that they say is believed.
    """
    if entry == store.index_files.parquet:
        yield from _damage_in_parquet(store, entry, damaged)
    elif entry == store.index_files.arrow:
        yield from _damage_in_index(store, entry, damaged)
    else:
        yield from _damage_in_shard(store, entry, damaged)


def images_of(store: Store, entry: FileEntry, damaged: frozenset[str], reason: str) -> Iterator[Damage]:
    """One damage for every image of a shard; none for an index file, or where both index files are damaged too."""
    ids = _image_ids(store, damaged)
    if ids is not None:
        for row in _rows_of(store, entry):
            yield Damage(entry.path, ids[row], reason)


def _image_ids(store: Store, damaged: frozenset[str]) -> list[str] | None:
    """The ids of all images, from an index file that is sound."""
    ids: list[str] | None = None
    if store.index_files.arrow.path not in damaged:
        ids = store.index.table.column("image_id").to_pylist()
    elif store.index_files.parquet.path not in damaged:
        ids = store.records(["image_id"]).column("image_id").to_pylist()
    return ids


def _rows_of(store: Store, entry: FileEntry) -> range:
    start = 0
    for shard in store.manifest.shards:
        if shard.path == entry.path:
            return range(start, start + shard.rows)
        start += shard.rows
    return range(0)


def _content(store: Store, entry: FileEntry) -> pa.Buffer:
    """The file as it is: read, not mapped, since a mapping would refuse another size."""
    import pyarrow as pa

    return pa.py_buffer(read_bytes(join_url(store.url, entry.path), store.storage_options))


def _unreadable() -> tuple[type[Exception], ...]:
    """What Arrow raises on bytes that are not what they should be."""
    import pyarrow as pa

    return (pa.ArrowException, ChammiError, OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError)


def _damage_in_shard(store: Store, entry: FileEntry, damaged: frozenset[str]) -> Iterator[Damage]:
    index = store.index_files
    if index.arrow.path in damaged:
        yield from images_of(store, entry, damaged, "its shard is damaged, and so is the index that would say where")
        return
    content = _content(store, entry)
    rows = _rows_of(store, entry)
    table = store.index.table.slice(rows.start, len(rows))
    places = table.select(["image_id", *places_schema().names]).to_pylist()
    records = store.records().slice(rows.start, len(rows)).to_pylist() if index.parquet.path not in damaged else None
    hit: set[int] = set()
    for number, place in enumerate(places):
        if stored_digest(place, _reader(content)) != place["stored_sha256"]:
            hit.add(number)
            yield Damage(entry.path, place["image_id"], "its planes or cells are damaged")
    at = 0
    try:  # the rest of a shard are the records, and the frame around all
        check_schema(content)
        for start, message, batch in read_batches(content):
            stated = places[at : at + batch.num_rows]
            faulty = _faulty_rows(batch, stated, records[at : at + batch.num_rows] if records else None)
            faulty = faulty or _misplaced_rows(batch, locate(message, batch.schema, start), stated)
            for number in sorted(faulty):
                if at + number not in hit:
                    hit.add(at + number)
                    yield Damage(entry.path, stated[number]["image_id"], "its record in the shard is damaged")
            at += batch.num_rows
    except _unreadable() as error:
        reason = f"what follows in its shard cannot be read: {error}"
        for number in range(at, len(places)):
            if number not in hit:
                yield Damage(entry.path, places[number]["image_id"], reason)


def _reader(content: pa.Buffer) -> Any:
    view = memoryview(content)
    return lambda offset, length: view[offset : offset + length]


def _faulty_rows(
    batch: pa.RecordBatch, places: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]] | None
) -> set[int]:
    """Rows of a batch of a shard that are no Arrow, or whose record is not the one of ``index.parquet``."""
    faulty = _invalid_rows(batch.columns)
    for number, place in enumerate(places):
        if number in faulty:
            continue
        (found,) = _record_rows(batch.slice(number, 1))
        if found != (records[number] if records is not None else {**found, "image_id": place["image_id"]}):
            faulty.add(number)
    return faulty


def _misplaced_rows(batch: pa.RecordBatch, found: dict[str, Any], places: Sequence[dict[str, Any]]) -> set[int]:
    """Rows of a valid batch whose planes and cells are not where the index says, or not what a loader would see."""
    import pyarrow as pa
    import pyarrow.compute as pc

    misplaced = set()
    sizes = batch.column("annotation").field("sizes")
    lengths = pa.array(pc.list_value_length(sizes.values))
    absent = batch.column("annotation").is_null()
    size_counts = pa.ListArray.from_arrays(pa.array(sizes.offsets.to_numpy(), pa.int32()), lengths, mask=absent)
    located = pa.table(found).to_pylist()
    for number, (row, counts, place) in enumerate(zip(located, size_counts.to_pylist(), places, strict=True)):
        planes = batch.column("planes")[number].as_py()
        if (
            row != {name: place[name] for name in row}
            or counts != place["cells"]
            or any(plane is None or plane["bytes"] is None or plane["path"] is not None for plane in planes or [None])
        ):
            misplaced.add(number)
    return misplaced


def _invalid_rows(columns: Sequence[Any]) -> set[int]:
    """Rows that are no valid Arrow in one of the columns, found by halving."""
    import pyarrow as pa

    def invalid(column: Any, start: int, stop: int) -> Iterator[int]:
        try:
            column.slice(start, stop - start).validate(full=True)
        except pa.ArrowException:
            if stop - start == 1:
                yield start
                return
            middle = (start + stop) // 2
            halves = [*invalid(column, start, middle), *invalid(column, middle, stop)]
            yield from halves or range(start, stop)

    return {row for column in columns if len(column) for row in invalid(column, 0, len(column))}


def _record_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    names = [name for name in batch.schema.names if name not in ("planes", "annotation")]
    rows: list[dict[str, Any]] = batch.select(names).to_pylist()
    return rows


def _sound_batches(store: Store, damaged: frozenset[str]) -> Iterator[tuple[int, pa.Buffer, int, pa.Buffer, Any]]:
    """Batches of the shards that are sound: number of the first image, the shard, and what ``read_batches`` gives."""
    for shard in store.manifest.shards:
        if shard.path not in damaged:
            at = _rows_of(store, shard).start
            content = _content(store, shard)
            for start, message, batch in read_batches(content):
                yield at, content, start, message, batch
                at += batch.num_rows


def _damage_in_parquet(store: Store, entry: FileEntry, damaged: frozenset[str]) -> Iterator[Damage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = _image_ids(store, damaged)
    stated: dict[int, dict[str, Any]] = {}
    problems: dict[int, str] = {}
    try:
        file = pq.ParquetFile(pa.BufferReader(_content(store, entry)))
    except _unreadable() as error:
        yield Damage(entry.path, None, f"the records cannot be read ({error}); the shards hold them too")
        return
    for group, start in enumerate(range(0, store.manifest.own_images, ROW_GROUP)):
        try:
            table = file.read_row_group(group)
            table.validate(full=True)
            stated.update(enumerate(table.to_pylist(), start))
        except _unreadable() as error:
            rows = range(start, min(start + ROW_GROUP, store.manifest.own_images))
            problems.update(dict.fromkeys(rows, f"the group of records that holds its own cannot be read ({error})"))
    for at, _, _, _, batch in _sound_batches(store, damaged):
        for row, expected in enumerate(_record_rows(batch), at):
            if row not in problems and stated.get(row) != expected:
                yield Damage(entry.path, str(expected["image_id"]), "its record in the index is damaged")
    for row, problem in problems.items():
        yield Damage(entry.path, ids[row] if ids is not None else None, problem)


def _damage_in_index(store: Store, entry: FileEntry, damaged: frozenset[str]) -> Iterator[Damage]:
    ids = _image_ids(store, damaged)
    try:
        table = ArrowIndex.from_buffer(_content(store, entry)).table
        columns = [chunk for column in table.columns for chunk in column.chunks]
        if any(len(column) != store.manifest.own_images for column in columns):
            raise StoreError(f"it has not {store.manifest.own_images} rows")
        invalid = _invalid_rows(columns)
    except _unreadable() as error:
        yield Damage(entry.path, None, f"the index cannot be read ({error}); build or copy the store again")
        return
    for row in sorted(invalid):
        yield Damage(entry.path, ids[row] if ids is not None else None, "its entry in the index is damaged")
    digests = []
    hit = bool(invalid)
    for row, image_id, expected in _expected_entries(store, damaged):
        if row in invalid:
            continue
        (stated,) = table.slice(row, 1).to_pylist()
        digests.append((row, image_id, stated["content_sha256"]))
        if {name: stated[name] for name in expected} != expected:
            hit = True
            yield Damage(entry.path, image_id, "its entry in the index is damaged")
    contents = b"".join(digest for _, _, digest in sorted(digests, key=lambda entry: entry[1]))
    if not hit and hashlib.sha256(contents).hexdigest() != store.manifest.content_sha256:
        for row, image_id, digest in digests:
            if digest != _content_of(store, damaged, row):
                yield Damage(entry.path, image_id, "its entry in the index is damaged (the hash of its content)")


def _expected_entries(store: Store, damaged: frozenset[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What ``index.arrow`` must say of the images in sound shards, but for the hash of their content."""
    import pyarrow as pa

    for at, content, start, message, batch in _sound_batches(store, damaged):
        shard = next(k for k, shard in enumerate(store.manifest.shards) if at in _rows_of(store, shard))
        places = pa.table(locate(message, batch.schema, start)).to_pylist()
        for row, (record, place) in enumerate(zip(_record_rows(batch), places, strict=True), at):
            words = {name: record[path.split(".")[0]][path.split(".")[1]] for name, path in FACETS.items()}
            words["channel_types"] = json.dumps(words["channel_types"], ensure_ascii=False)
            sizes = {name: record["geometry"][name] for name in _SIZES}
            stored = stored_digest(place, _reader(content))
            image_id = str(record["image_id"])
            own = {"image_id": image_id, "shard": shard, "stored_sha256": stored}
            yield row, image_id, {**own, **place, **words, **sizes}


def _content_of(store: Store, damaged: frozenset[str], wanted: int) -> bytes | None:
    """The hash of an image's content, taken anew from its shard."""
    for at, content, start, message, batch in _sound_batches(store, damaged):
        if at <= wanted < at + batch.num_rows:
            row = wanted - at
            (place,) = _place_rows(locate(message, batch.schema, start), row)
            read = _reader(content)
            parts = zip(place["plane_offsets"], place["plane_lengths"], strict=True)
            pixels = [decode_plane(read(offset, length)) for offset, length in parts]
            count = sum(entry or 0 for entry in place["cells"] or ())
            xy = bytes(read(place["centroids_offset"], 8 * count)) if count else b""
            sizes = bytes(read(place["sizes_offset"], 4 * count)) if count else b""
            cells = cells_from_bytes(place["cells"], xy, sizes) or []
            (record,) = _record_rows(batch.slice(row, 1))
            return content_digest(ImageRecord.model_validate(record), pixels, cells)
    return None


def _place_rows(places: dict[str, Any], row: int) -> list[dict[str, Any]]:
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(places).slice(row, 1).to_pylist()
    return rows
