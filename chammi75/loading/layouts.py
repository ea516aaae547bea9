"""What can be loaded: a store of ours, or the published layout where it lies. Both answer the same questions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, ChammiWarning, StoreError, warn
from chammi75.files import (
    StorageOptions,
    absolute_url,
    check_answers,
    exists,
    explain,
    is_local,
    is_unreachable,
    join_url,
    local_path,
    look_afresh,
    reading_errors,
)
from chammi75.store.facets import Facet, facet_columns
from chammi75.store.reader import Store, open_store
from chammi75.store.writer import BUILDING, COPYING, MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa

    from chammi75.readers.published import IndexFile, PublishedTable


class UnresolvedImagesWarning(ChammiWarning):
    """Images of a published table that cannot be loaded, because no table states their files."""


class Layout(Protocol):
    """Images that lie somewhere, with their records. Can be pickled."""

    url: str
    storage_options: dict[str, Any]

    def __len__(self) -> int:
        """Images."""

    @property
    def identity(self) -> str:
        """Changes when the content does."""

    def anew(self) -> Layout:
        """The same for a process that was forked: it shares no open file with its parent."""

    def facet(self, name: str) -> Facet:
        """A facet of all images."""

    def searchable(self) -> str | pa.Table:
        """The records for SQL: path of a local Parquet file, or a table."""

    def rows_of_split(self, split: str | None) -> Sequence[range]:
        """Rows of a split; all for None."""

    def samples(self, rows: NDArray[np.int64]) -> pa.Table:
        """Samples of some rows, in their order: the record, ``image`` and ``annotation`` as references."""


class StoreLayout:
    """A store of ours."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.url = store.url
        self.storage_options = dict(store.storage_options)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store,)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def identity(self) -> str:
        """Hash of the content."""
        return self.store.manifest.content_sha256

    def anew(self) -> Layout:
        """The same store, with files of its own."""
        return StoreLayout(self.store.anew())

    def facet(self, name: str) -> Facet:
        """A facet of all images."""
        return self.store.index.facet(name)

    def searchable(self) -> str | pa.Table:
        """``index.parquet``, or its content where the store is not local."""
        url = self.store.parquet_url
        return str(local_path(url)) if is_local(url) else self.store.records()

    def rows_of_split(self, split: str | None) -> Sequence[range]:
        """Rows of a split; all for None."""
        return self.store.split_rows(split)

    def samples(self, rows: NDArray[np.int64]) -> pa.Table:
        """The record, ``image`` and ``annotation``: references into the shards."""
        import pyarrow as pa
        import pyarrow.compute as pc

        records = self.store.records_at(rows)
        index = self.store.index.table.select(list(_PLACES)).take(pa.array(rows)).combine_chunks()
        place = {name: _chunk(index.column(name)) for name in _PLACES}
        urls = pa.array([self.store.shard_url(number) for number in range(len(self.store.shards))], pa.string())
        uri = urls.take(place["shard"])
        image = {"uri": uri, "offsets": place["plane_offsets"], "lengths": place["plane_lengths"]}
        cells = {name: place[name] for name in ("cells", "centroids_offset", "sizes_offset")}
        return _with_references(records, image, {"uri": uri, **cells}, pc.is_valid(place["cells"]))


_PLACES = ("shard", "plane_offsets", "plane_lengths", "cells", "centroids_offset", "sizes_offset")


class PublishedLayout:
    """The published CHAMMI-75 layout, read in place: a metadata table, and one PNG per channel.

    Parameters
    ----------
    table : PublishedTable
        Its records.
    storage_options : mapping, optional
        For the filesystem.
    file : IndexFile, optional
        Where the table lies in the cache: then it is this that travels to other processes.
    """

    def __init__(
        self, table: PublishedTable, storage_options: StorageOptions | None = None, file: IndexFile | None = None
    ) -> None:
        self.table = table
        self.url: str = table.root
        self.storage_options = dict(storage_options or {})
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        if self._file is not None:
            return _reopened, (self._file, self.storage_options)
        return type(self), (self.table, self.storage_options)

    def __len__(self) -> int:
        return int(self.table.records.num_rows)

    @property
    def identity(self) -> str:
        """Hash of the metadata table, and of which of its files are there."""
        known = [self.table.metadata_sha256, self.table.files_sha256, dict(self.table.counts)]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def anew(self) -> Layout:
        """Itself: its table is in memory."""
        return self

    def facet(self, name: str) -> Facet:
        """A facet of all images."""
        return Facet.from_column(self._facets[name])

    @cached_property
    def _facets(self) -> dict[str, pa.DictionaryArray]:
        return facet_columns(self.table.records)

    def searchable(self) -> str | pa.Table:
        """The records."""
        return self.table.records

    def rows_of_split(self, split: str | None) -> Sequence[range]:
        """All rows: what is published here is for training."""
        if split not in (None, "train"):
            raise StoreError(f"{self.url}: there is no split {split!r}; the published layout has train")
        return [range(len(self))]

    def samples(self, rows: NDArray[np.int64]) -> pa.Table:
        """The record, ``image`` and ``annotation``: paths of files."""
        import pyarrow as pa
        import pyarrow.compute as pc

        records = self.table.records.take(pa.array(rows))
        guidance = _chunk(self.table.guidance.take(pa.array(rows)))
        root = pa.repeat(pa.scalar(self.url, pa.string()), len(rows))
        paths = pc.struct_field(_chunk(records.column("storage")), "path")
        known = np.zeros(len(rows), bool)
        parents = pc.list_parent_indices(guidance).to_numpy()
        known[parents[pc.is_valid(pc.list_flatten(guidance)).to_numpy(zero_copy_only=False)]] = True
        return _with_references(
            records, {"uri": root, "paths": paths}, {"uri": root, "paths": guidance}, pa.array(known)
        )


def _reopened(file: IndexFile, storage_options: StorageOptions) -> PublishedLayout:
    from chammi75.readers.published import reopen

    return PublishedLayout(reopen(file), storage_options, file)


def open_layout(
    url: str,
    *,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Layout:
    """Open what lies at ``url``: a store, or the published layout in a folder, a bucket or a zip archive.

    Parameters
    ----------
    url : str
        A local path or any URL that fsspec knows.
    metadata : str, optional
        The metadata table of a published layout, where there are several.
    storage_options : mapping, optional
        For the filesystem.
    cache_dir : str or path, optional
        Where the index of a published layout is kept.

    Raises
    ------
    ChammiError
        If it is neither; the message says what was looked for.

    Warns
    -----
    UnresolvedImagesWarning
        If no table states the files of some images.
    """
    url = absolute_url(url)
    try:
        return _open(url, metadata, storage_options, cache_dir)
    except ChammiError as error:
        if error.__cause__ is not None and is_unreachable(error.__cause__):
            raise ChammiError(f"{error}{_OFFLINE}") from error
        raise
    except reading_errors() as error:
        hint = _OFFLINE if is_unreachable(error) else ""
        raise ChammiError(f"{url} cannot be opened: {explain(error, url, storage_options)}{hint}") from error


_OFFLINE = "; the dataset named mini needs no network"


def _open(
    url: str,
    metadata: str | None,
    storage_options: StorageOptions | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Layout:
    from chammi75.readers.published import NotPublishedError, open_published
    from chammi75.readers.published.root import archive_url

    look_afresh(url, storage_options)
    check_answers(join_url(url, MANIFEST), storage_options)
    archive = archive_url(url, storage_options)
    for name in (MANIFEST, BUILDING, COPYING):
        if exists(join_url(archive or url, name), storage_options):
            return StoreLayout(open_store(archive or url, storage_options))
    try:
        table, file = open_published(url, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
        return _published(table, file, storage_options)
    except NotPublishedError:
        if metadata is not None or archive is not None:
            raise
    if not exists(url, storage_options):
        raise ChammiError(
            f"{url}: there is nothing here; give a store, a copy of the published dataset, or the name mini"
        )
    raise ChammiError(
        f"{url}: this is neither a store (no {MANIFEST}) nor the published layout (no *_metadata.csv);"
        f" chammi75 build makes a store of a folder of images"
    )


def _published(
    table: PublishedTable, file: IndexFile | None, storage_options: StorageOptions | None
) -> PublishedLayout:
    from chammi75.readers.published.csv_rows import table_name

    if not table.counts["images"]:
        raise ChammiError(_nothing_there(table))
    unresolved = table.counts["unresolved_images"]
    if unresolved:
        name = table_name(table.metadata_url)
        warn(
            f"{table.root}: no table states the files of {unresolved} of the"
            f" {unresolved + table.counts['images']} images in {name}; they are left out",
            UnresolvedImagesWarning,
        )
    return PublishedLayout(table, storage_options, file)


def _nothing_there(table: PublishedTable) -> str:
    """Why a table has not one image that could be loaded."""
    from chammi75.readers.published.files import list_folder

    counts = table.counts
    start = f"{table.root}: not one of the {counts['rows']} rows of {table.metadata_url} has an image here:"
    if counts["missing_files"]:
        first = table.missing_files["storage.path"][0]
        archives = [name for name in list_folder(table.root) or [] if name.lower().endswith(".zip")]
        there = f". Archives are opened by their own names, here {', '.join(sorted(archives)[:3])}" if archives else ""
        return f"{start} the files that it states are not there (first: {first}){there}"
    if counts["unresolved_images"]:
        return f"{start} no table states their files. Name another table with metadata="
    reasons = "; ".join(f"{problem.path}: {problem.reason}" for problem in table.problems[:3])
    return f"{start} {reasons or 'it has none'}"


def _with_references(records: pa.Table, image: dict[str, Any], cells: dict[str, Any], annotated: Any) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    from chammi75.loading.feature import CELLS_TYPE, IMAGE_TYPE

    groups = {name: _chunk(records.column(name)) for name in ("image_id", "imaging", "geometry")}
    image = {
        "image_id": groups["image_id"],
        "channel_types": pc.struct_field(groups["imaging"], "channel_type"),
        "panels": pc.struct_field(groups["imaging"], "panel"),
        **{
            name: pc.struct_field(groups["geometry"], name)
            for name in ("height", "width", "dtype", "significant_bits", "pixel_size_um")
        },
        **image,
    }
    mask = pc.invert(annotated)
    return records.append_column("image", _struct(IMAGE_TYPE, image, records.num_rows)).append_column(
        "annotation", _struct(CELLS_TYPE, cells, records.num_rows, mask if isinstance(mask, pa.Array) else _chunk(mask))
    )


def _struct(data_type: pa.StructType, columns: dict[str, Any], rows: int, mask: Any = None) -> pa.StructArray:
    import pyarrow as pa

    values = [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in data_type]
    return pa.StructArray.from_arrays(values, fields=list(data_type), mask=mask)


def _chunk(column: Any) -> Any:
    """A column as one array."""
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
