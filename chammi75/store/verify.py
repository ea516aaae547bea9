"""Checking a store byte by byte, and saying which image a damage hits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError, StoreError
from chammi75.files import join_url, open_url, read_bytes
from chammi75.schemas.manifest import FileEntry
from chammi75.store.facets import FACETS
from chammi75.store.index import ArrowIndex, index_schema
from chammi75.store.reader import Store, open_store
from chammi75.store.shard import locate, read_batches, stored_digest

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class Damage:
    """Something wrong with a store: the file, the image that it hits (None where it hits none), and what it is."""

    file: str
    image_id: str | None
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes
    ----------
    files, images, bytes : int
        What was checked.
    damages : tuple of Damage
        Empty for a sound store.
    """

    files: int
    images: int
    bytes: int
    damages: tuple[Damage, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


def verify(
    url: str, storage_options: dict[str, Any] | None = None, advance: Callable[[int], None] | None = None
) -> VerifyReport:
    """Check every byte of a store against its manifest; where a file differs, find the images that it hits.

    Parameters
    ----------
    url : str
        The store.
    storage_options : mapping, optional
    advance : callable, optional
        Called with the number of bytes checked, for progress.

    Raises
    ------
    StoreError
        If there is no store to check, or its manifest is damaged.
    """
    store = open_store(url, storage_options)
    manifest = store.manifest
    damages: list[Damage] = []
    checked = 0
    broken: list[FileEntry] = []
    for entry in (*manifest.shards, manifest.index.parquet, manifest.index.arrow):
        try:
            size, digest = _hash(join_url(store.url, entry.path), store, advance)
        except OSError as error:
            damages.append(Damage(entry.path, None, f"the file cannot be read ({error})"))
            damages.extend(_images_of(store, entry, "its shard cannot be read"))
            continue
        checked += size
        if size != entry.bytes or digest != entry.sha256:
            broken.append(entry)
    for entry in broken:
        found = list(_locate_damage(store, entry))
        damages.extend(
            found or [Damage(entry.path, None, "its bytes differ from the manifest's hash, but no image is hit")]
        )
    return VerifyReport(len(manifest.shards) + 2, manifest.images, checked, tuple(damages))


def _hash(url: str, store: Store, advance: Callable[[int], None] | None) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_url(url, storage_options=store.storage_options) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if advance is not None:
                advance(len(chunk))
    return size, digest.hexdigest()


def _locate_damage(store: Store, entry: FileEntry) -> Iterator[Damage]:
    if entry == store.manifest.index.parquet:
        yield from _damage_in_parquet(store, entry)
    elif entry == store.manifest.index.arrow:
        yield from _damage_in_index(store, entry)
    else:
        yield from _damage_in_shard(store, entry)


def _content(store: Store, entry: FileEntry) -> pa.Buffer:
    """The file as it is: read, not mapped, since a mapping would refuse another size."""
    import pyarrow as pa

    return pa.py_buffer(read_bytes(join_url(store.url, entry.path), store.storage_options))


def _rows_of(store: Store, entry: FileEntry) -> range:
    start = 0
    for shard in store.manifest.shards:
        if shard.path == entry.path:
            return range(start, start + shard.rows)
        start += shard.rows
    return range(0)


def _images_of(store: Store, entry: FileEntry, reason: str) -> Iterator[Damage]:
    try:
        for row in _rows_of(store, entry):
            yield Damage(entry.path, store.index.places(row).image_id, reason)
    except StoreError:
        return  # the index is damaged too, which is reported on its own


def _damage_in_shard(store: Store, entry: FileEntry) -> Iterator[Damage]:
    content = _content(store, entry)
    rows = _rows_of(store, entry)
    hit: set[int] = set()
    table = store.index.table
    for row in rows:
        place = {name: table.column(name)[row].as_py() for name in table.schema.names if name not in _WORDS}
        digest = stored_digest(place, lambda offset, length: memoryview(content)[offset : offset + length])
        if digest != place["stored_sha256"]:
            hit.add(row)
            yield Damage(entry.path, place["image_id"], "its planes or cells are damaged")
    # the rest of a shard are the records, and the frame around them
    at = rows.start
    try:
        records = store.records()
        for _, _, batch in read_batches(content):
            stated = records.slice(at, batch.num_rows).to_pylist()
            for number, (found, expected) in enumerate(zip(_record_rows(batch), stated, strict=True)):
                if found != expected and at + number not in hit:
                    hit.add(at + number)
                    yield Damage(entry.path, str(expected["image_id"]), "its record in the shard is damaged")
            at += batch.num_rows
    except (ChammiError, ValueError, OSError, UnicodeDecodeError) as error:
        for row in range(at, rows.stop):
            if row not in hit:
                yield Damage(
                    entry.path, store.index.places(row).image_id, f"the batch that holds it is damaged: {error}"
                )


_SIZES = ("height", "width", "dtype", "significant_bits")
_WORDS = (*FACETS, *_SIZES)


def _record_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    names = [name for name in batch.schema.names if name not in ("planes", "annotation")]
    rows: list[dict[str, Any]] = batch.select(names).to_pylist()
    return rows


def _shard_tables(store: Store) -> Iterator[tuple[int, pa.RecordBatch, dict[str, Any]]]:
    """For each record batch of all shards: number of its first image, the batch, and where its planes are."""
    from chammi75.schemas.arrow import shard_schema

    at = 0
    schema = shard_schema()
    for shard in store.manifest.shards:
        for start, message, batch in read_batches(_content(store, shard)):
            yield at, batch, locate(message, schema, start)
            at += batch.num_rows


def _damage_in_parquet(store: Store, entry: FileEntry) -> Iterator[Damage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(pa.BufferReader(_content(store, entry)))
        stated = records.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        yield Damage(entry.path, None, f"the records cannot be read ({error}); the shards hold them too")
        return
    for at, batch, _ in _shard_tables(store):
        for number, expected in enumerate(_record_rows(batch)):
            if at + number >= len(stated) or stated[at + number] != expected:
                yield Damage(entry.path, str(expected["image_id"]), "its record in the index is damaged")


def _damage_in_index(store: Store, entry: FileEntry) -> Iterator[Damage]:
    import pyarrow as pa

    try:
        index = ArrowIndex.from_buffer(_content(store, entry))
        index.table.validate(full=True)
        stated = index.table.to_pylist()
    except (StoreError, pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        yield Damage(entry.path, None, f"the index cannot be read ({error}); build or copy the store again")
        return
    names = [name for name in index_schema().names if name not in (*_WORDS, "shard", "stored_sha256", "content_sha256")]
    records = store.records().to_pylist()
    for at, batch, places in _shard_tables(store):
        columns = {"image_id": batch.column("image_id"), **places}
        for number, expected in enumerate(pa.table({name: columns[name] for name in names}).to_pylist()):
            row = stated[at + number] if at + number < len(stated) else {}
            record = records[at + number]
            words = {name: record[path.split(".")[0]][path.split(".")[1]] for name, path in FACETS.items()}
            words["channel_types"] = json.dumps(words["channel_types"], ensure_ascii=False)
            words.update({name: record["geometry"][name] for name in _SIZES})
            if {name: row.get(name) for name in (*names, *words)} != {**expected, **words}:
                yield Damage(entry.path, str(expected["image_id"]), "its entry in the index is damaged")
