"""What can be loaded: a store of ours, or the published layout where it lies. Both answer the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import StorageOptions, absolute_url, exists, is_local, join_url, local_path, reading_errors
from chammi75.store.facets import Facet, facet_columns
from chammi75.store.reader import Store, open_store
from chammi75.store.writer import BUILDING, MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa


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
        return StoreLayout(Store(self.url, self.store.manifest, self.storage_options))

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
    """The published CHAMMI-75 layout, read in place: a metadata table, and one PNG per channel."""

    def __init__(self, table: Any, storage_options: StorageOptions | None = None) -> None:
        self.table = table
        self.url: str = table.root
        self.storage_options = dict(storage_options or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.table, self.storage_options)

    def __len__(self) -> int:
        return int(self.table.records.num_rows)

    @property
    def identity(self) -> str:
        """Hash of the metadata table."""
        return str(self.table.metadata_sha256)

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


def open_layout(url: str, *, metadata: str | None = None, storage_options: StorageOptions | None = None) -> Layout:
    """Open what lies at ``url``: a store, or the published layout.

    Raises
    ------
    ChammiError
        If it is neither; the message says what was looked for.
    """
    url = absolute_url(url)
    try:
        return _open(url, metadata, storage_options)
    except ChammiError:
        raise
    except reading_errors() as error:
        raise ChammiError(f"{url} cannot be opened: {error}") from error


def _open(url: str, metadata: str | None, storage_options: StorageOptions | None) -> Layout:
    for name in (MANIFEST, BUILDING):
        if exists(join_url(url, name), storage_options):
            return StoreLayout(open_store(url, storage_options))
    from chammi75.readers.published import find_published_root, read_published

    if metadata is not None or find_published_root(url, storage_options) is not None:
        return PublishedLayout(read_published(url, metadata=metadata, storage_options=storage_options), storage_options)
    if not exists(url, storage_options):
        raise ChammiError(
            f"{url}: there is nothing here; give a store, a copy of the published dataset, or the name mini"
        )
    raise ChammiError(
        f"{url}: this is neither a store (no {MANIFEST}) nor the published layout (no *_metadata.csv);"
        f" chammi75 build makes a store of a folder of images"
    )


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


def open_layouts(
    urls: str | Sequence[str], *, metadata: str | None = None, storage_options: StorageOptions | None = None
) -> list[Layout]:
    """Open one or several."""
    names = [urls] if isinstance(urls, str) or not isinstance(urls, Sequence) else list(urls)
    if not names:
        raise ChammiError("there is nothing to load: give the name or URL of at least one store")
    return [open_layout(name, metadata=metadata, storage_options=storage_options) for name in names]
