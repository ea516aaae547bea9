"""Reading a store: its manifest, its index, and planes by their byte ranges. No Arrow shard is opened for that."""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    read_bytes,
    read_ranges,
    reading_errors,
    safe_relative_path,
)
from chammi75.schemas.manifest import IndexEntry, ShardEntry, StoreManifest
from chammi75.store.index import ArrowIndex, Places
from chammi75.store.plane import decode_plane, parse_head
from chammi75.store.shard import Cells, cells_from_bytes
from chammi75.store.writer import BUILDING, COPYING, MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


_FORBIDDEN = 403

_MOST_MAPPED = 4096
"""Files that a process keeps mapped, at most."""

_KEEPS_NO_DESCRIPTOR = os.name == "posix" and sys.version_info >= (3, 13)


def open_store(
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None, *, manifest_sha256: str | None = None
) -> Store:
    """Open a finished store.

    Parameters
    ----------
    url : str or path
        Folder of the store: a local path, or any URL that fsspec knows.
    storage_options : mapping, optional
        For the fsspec filesystem.
    manifest_sha256 : str, optional
        SHA-256 that its manifest file must have.

    Raises
    ------
    StoreError
        If there is no store, it is not finished, damaged, of a version that this library cannot read, or another than
        ``manifest_sha256`` says.

    Examples
    --------
    >>> open_store("no/such/folder")
    Traceback (most recent call last):
    ...
    chammi75.errors.StoreError: ...no/such/folder: there is no store here (no manifest.json)
    """
    url = absolute_url(url)
    content = read_manifest(url, storage_options)
    if manifest_sha256 is not None and hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise StoreError(f"{url}: the store is another one than it was: its manifest has changed")
    manifest = StoreManifest.from_bytes(content, join_url(url, MANIFEST))
    for entry in manifest.files:
        try:
            safe_relative_path(entry.path)
        except ChammiError as error:
            raise StoreError(f"{join_url(url, MANIFEST)}: {error}") from error
    return Store(url, manifest, storage_options)


def read_manifest(url: str, storage_options: StorageOptions | None = None) -> bytes:
    """The manifest file of a store.

    Raises
    ------
    StoreError
        If there is none, or it cannot be read.
    """
    try:
        return read_bytes(join_url(url, MANIFEST), storage_options)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(_why_no_store(url, storage_options)) from error
    except PermissionError as error:
        raise StoreError(f"{url}: no permission to read it") from error
    except reading_errors() as error:
        raise StoreError(f"{url}: it cannot be read ({error})") from error


def is_unsaid(error: BaseException, url: str) -> bool:
    """Whether ``error``, of reading ``url``, leaves open if there is such a file.

    S3 answers 403 for what is not there where listing is not allowed.
    """
    refused = isinstance(error, PermissionError) or getattr(error, "status", None) == _FORBIDDEN
    return refused and not is_local(url)


class Store:
    """A finished store, open for reading. It can be pickled, and opens its files anew in each process.

    Attributes
    ----------
    url : str
        Its folder.
    manifest : StoreManifest
        What it holds; its index and its planes are those of its own shards (``expand`` gives the stores of its parts).
    collections : tuple of (str, dict)
        Folders and storage options of the stores that it was opened as a part of, outermost first: what they withdraw
        is withdrawn here too.
    """

    def __init__(
        self,
        url: str,
        manifest: StoreManifest,
        storage_options: StorageOptions | None = None,
        collections: tuple[tuple[str, dict[str, Any]], ...] = (),
    ) -> None:
        self.url = url
        self.manifest = manifest
        self.storage_options = dict(storage_options or {})
        self.collections = collections

    def __len__(self) -> int:
        return self.manifest.images

    def __repr__(self) -> str:
        return f"Store({self.url!r}, images={self.manifest.images}, planes={self.manifest.planes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.url, self.manifest, self.storage_options, self.collections))

    def anew(self) -> Store:
        """The same store with no file open."""
        return Store(self.url, self.manifest, self.storage_options, self.collections)

    @property
    def index_files(self) -> IndexEntry:
        """The index files.

        Raises
        ------
        StoreError
            If the store has no images of its own, only parts.
        """
        if self.manifest.index is None:
            raise StoreError(f"{self.url}: this store consists of others and has no index of its own; open its parts")
        return self.manifest.index

    @cached_property
    def index(self) -> ArrowIndex:
        """``index.arrow``, memory-mapped where the store is local."""
        import pyarrow as pa

        entry = self.index_files.arrow
        url = join_url(self.url, entry.path)
        if is_local(url):
            return ArrowIndex.from_buffer(map_file(url, entry.bytes))
        return ArrowIndex.from_buffer(pa.py_buffer(read_bytes(url, self.storage_options)))

    @property
    def parquet_url(self) -> str:
        """URL of ``index.parquet``."""
        return join_url(self.url, self.index_files.parquet.path)

    def shard_url(self, number: int) -> str:
        """URL of a shard.

        Raises
        ------
        StoreError
            If there is no shard of that number.
        """
        if not 0 <= number < len(self.manifest.shards):
            raise StoreError(f"{self.url}: there is no shard {number}, of {len(self.manifest.shards)}: chammi75 verify")
        return join_url(self.url, self.manifest.shards[number].path)

    def split_rows(self, split: str | None) -> Sequence[range]:
        """Rows of the index that belong to a split; all of them for None.

        Raises
        ------
        StoreError
            If the store has no such split.
        """
        starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])
        ranges = [
            range(int(start), int(start) + shard.rows)
            for start, shard in zip(starts, self.manifest.shards, strict=False)
            if split is None or shard.split == split
        ]
        if not ranges:
            known = sorted({shard.split for shard in self.manifest.shards})
            raise StoreError(f"{self.url}: there is no split {split!r}; known are {', '.join(known)}")
        return ranges

    def records(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All records as an Arrow table, one row per image (only ``columns`` where given, as ``biology.organism``)."""
        return self._parquet.read(columns=list(columns) if columns else None)

    def records_at(self, rows: NDArray[np.int64]) -> pa.Table:
        """Records of some rows, in their order. Only the row groups that they lie in are read; two are kept.

        Parameters
        ----------
        rows : ndarray of int64
        """
        import pyarrow as pa

        from chammi75.schemas.arrow import record_schema

        if not len(rows):
            return record_schema().empty_table()
        group_rows = self._parquet.metadata.row_group(0).num_rows  # all groups but the last are of one size
        groups = rows // group_rows
        needed, inverse = np.unique(groups, return_inverse=True)
        parts, starts, start = [], [], 0
        for group in needed:
            wanted = rows[groups == group] - group * group_rows
            low, high = int(wanted.min()), int(wanted.max()) + 1
            table = self._row_group(int(group))
            parts.append(table.slice(low, high - low))
            starts.append(start - low)
            start += high - low
        positions = rows - needed[inverse] * group_rows + np.asarray(starts)[inverse]
        return pa.concat_tables(parts).take(pa.array(positions))

    def _row_group(self, group: int) -> pa.Table:
        found = self._groups.get(group)
        if found is None:
            while len(self._groups) > 1:
                self._groups.pop(next(iter(self._groups)))
            # in one thread: it takes less time than threads do, and a node's workers are many already
            found = self._groups[group] = self._parquet.read_row_group(group, use_threads=False)
        return found

    @cached_property
    def _groups(self) -> dict[int, pa.Table]:
        return {}

    @cached_property
    def _parquet(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        entry = self.index_files.parquet
        if is_local(self.parquet_url):
            return pq.ParquetFile(pa.BufferReader(map_file(self.parquet_url, entry.bytes)))
        filesystem, path = filesystem_of(self.parquet_url, self.storage_options)
        self._filesystem = filesystem  # an archive is closed as soon as nobody holds its filesystem
        # a row group in one request; the filesystem's own reading ahead would fetch tens of megabytes around each
        return pq.ParquetFile(filesystem.open(path, "rb", cache_type="none"), pre_buffer=True)

    def read_stored(self, row: int, ranges: Sequence[tuple[int, int]]) -> list[Any]:
        """Byte ranges (offset, length) of the shard of an image, as they are stored."""
        shard = int(self.index.shards[row])
        url = self.shard_url(shard)
        if is_local(url):
            view = memoryview(map_file(url, self.manifest.shards[shard].bytes))
            parts: list[Any] = [view[offset : offset + length] for offset, length in ranges]
        else:
            parts = list(read_ranges(url, ranges, self.storage_options))
        for (offset, length), part in zip(ranges, parts, strict=True):
            if len(part) != length:
                raise StoreError(f"{url}: cut short, bytes {offset} to {offset + length} are not there")
        return parts

    def read_plane(self, row: int, channel: int, window: tuple[int, int, int, int] | None = None) -> NDArray[Any]:
        """One plane of an image, or a window (y, x, height, width) of it.

        Returns
        -------
        ndarray, shape (H, W), uint8, uint16 or float32
        """
        place = self.index.places(row)
        (content,) = self.read_stored(row, [(place.plane_offsets[channel], place.plane_lengths[channel])])
        return self._decoded(place, content, window)

    def read_image(self, row: int) -> NDArray[Any]:
        """All planes of an image, shape (C, H, W)."""
        place = self.index.places(row)
        parts = self.read_stored(row, list(zip(place.plane_offsets, place.plane_lengths, strict=True)))
        return np.stack([self._decoded(place, part, None) for part in parts])

    def read_cells(self, row: int) -> list[Cells | None] | None:
        """The cells of each channel of an image; None where it has no annotation."""
        place = self.index.places(row)
        if place.cells is None:
            return None
        count = place.cell_count
        if not count or place.centroids_offset is None or place.sizes_offset is None:
            return cells_from_bytes(place.cells, b"", b"")
        centroids, sizes = self.read_stored(row, [(place.centroids_offset, 8 * count), (place.sizes_offset, 4 * count)])
        return cells_from_bytes(place.cells, bytes(centroids), bytes(sizes))

    def _decoded(self, place: Places, content: Any, window: tuple[int, int, int, int] | None) -> NDArray[Any]:
        stated = tuple(self.index.table.column(name)[place.row].as_py() for name in ("height", "width"))
        try:
            head = parse_head(content)
            if (head.height, head.width) != stated:  # nothing in a plane itself guards its size
                raise StoreError(
                    f"the plane is damaged: it states {head.height} x {head.width} pixels, the index"
                    f" {stated[0]} x {stated[1]}"
                )
            return decode_plane(content, window, head=head)
        except StoreError as error:
            raise StoreError(f"{self.shard_url(place.shard)}: {place.image_id}: {error}") from error

    def checked(self) -> Store:
        """The same store, both its index files read whole and found to be what the manifest says.

        Raises
        ------
        StoreError
            If one of them is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = {}
        for entry in (self.index_files.arrow, self.index_files.parquet):
            url = join_url(self.url, entry.path)
            if is_local(url):
                buffer = map_file(url, entry.bytes)
            else:
                try:
                    buffer = pa.py_buffer(read_bytes(url, self.storage_options))
                except reading_errors() as error:
                    raise StoreError(f"{url}: it cannot be read ({error})") from error
            if hashlib.sha256(buffer).hexdigest() != entry.sha256:
                raise StoreError(f"{url}: the file is damaged (its hash is not that of the manifest): chammi75 verify")
            content[entry] = buffer
        store = self.anew()
        store.index = ArrowIndex.from_buffer(content[self.index_files.arrow])
        store._parquet = pq.ParquetFile(pa.BufferReader(content[self.index_files.parquet]))
        return store

    @property
    def shards(self) -> list[ShardEntry]:
        """The shards, in the order of the index."""
        return self.manifest.shards


def map_file(url: str, size: int | None = None) -> pa.Buffer:
    """A local file, memory-mapped; once per process and file.

    Parameters
    ----------
    url : str
        Local path.
    size : int, optional
        Bytes that it must have.

    Raises
    ------
    StoreError
        If it is not there, or has another size.
    """
    return map_path(str(local_path(url)), size)


def map_path(path: str, size: int | None = None) -> pa.Buffer:
    """The same of a path, for who asks often."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for each batch and shard; a Path takes ten times as long
    except OSError as error:
        raise StoreError(f"{path}: a file of the store is missing ({error.strerror})") from error
    if size is not None and status.st_size != size:
        raise StoreError(
            f"{path}: the file has {status.st_size} bytes and must have {size}: it is damaged or was changed"
        )
    return _mapped()(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _mapped() -> Callable[[str, int, int, int], pa.Buffer]:
    """``_map``, which keeps what it mapped last: half as many files as the process may have open.

    Up to Python 3.12 a mapping holds a file descriptor, and a store may have more shards than the usual 1,024 of these.
    """
    return lru_cache(maxsize=_MOST_MAPPED if _KEEPS_NO_DESCRIPTOR else max(8, min(_open_files() // 2, _MOST_MAPPED)))(
        _map
    )


def _map(path: str, inode: int, size: int, changed_ns: int) -> pa.Buffer:
    """A file, mapped; inode, size and time are the file's, so that a changed one is mapped anew."""
    import pyarrow as pa

    if not size:
        return pa.py_buffer(b"")
    more: dict[str, Any] = {"trackfd": False} if _KEEPS_NO_DESCRIPTOR else {}
    with open(path, "rb") as file:
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **more))


def _open_files() -> int:
    """How many files this process may have open."""
    if os.name != "posix":
        return 512
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_MAPPED if limit == resource.RLIM_INFINITY else int(limit)


def _why_no_store(url: str, storage_options: StorageOptions | None) -> str:
    from chammi75.files import exists

    try:
        if exists(join_url(url, BUILDING), storage_options):
            return f"{url}: the store is not finished (its build was interrupted or still runs): build it again"
        if exists(join_url(url, COPYING), storage_options):
            return (
                f"{url}: the store is not finished (a copy was interrupted or still runs): run the same chammi75 copy"
                " again, it goes on where it stopped"
            )
    except (OSError, ChammiError):
        pass
    return f"{url}: there is no store here (no {MANIFEST})"
