"""Writing a store: shards first, then the index files, the manifest last. Without it, there is no store."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Literal

from chammi75.errors import ChammiError, StoreError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    create_file,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    reading_errors,
    write_atomically,
)
from chammi75.schemas.manifest import FileEntry, IndexEntry, ShardEntry, StoreManifest
from chammi75.store.index import ParquetIndexWriter, index_part, index_table, write_arrow_index
from chammi75.store.lock import lock
from chammi75.store.shard import WrittenShard
from chammi75.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa
    from fsspec import AbstractFileSystem

MANIFEST = "manifest.json"
BUILDING = "building.json"
COPYING = "copying"
"""Folder in which a copy keeps what it needs to go on; gone when it is done."""
_PARQUET, _ARROW = "index.parquet", "index.arrow"
_BUILDING_CONTENT = b'{"format": "chammi75-building"}\n'
_OWN_FILE = re.compile(
    r"index\.parquet|index\.arrow|report\.json"
    r"|\.(manifest|report)\.json\.[0-9a-f]{8}\.part"  # what write_atomically leaves when it is killed
)
_OWN_SHARD = re.compile(r"[a-z0-9_]+-\d{5,}\.arrow")


def shard_path(split: str, number: int) -> str:
    """Path of a shard below its store.

    Examples
    --------
    >>> shard_path("train", 3)
    'shards/train-00003.arrow'
    """
    return f"shards/{split}-{number:05d}.arrow"


@contextmanager
def new_store(url: str, storage_options: StorageOptions | None = None) -> Iterator[StoreWriter]:
    """Begin a store at ``url``: an absent or empty folder, or one that an interrupted build of ours has left.

    Raises
    ------
    StoreError
        If there is a finished store, another build is at work there, or the folder holds anything else.
    ChammiError
        If the target cannot be written or is full; what was written so far is never taken for a store.
    """
    url = absolute_url(url)
    with plain_errors(url):
        _check_target(url, storage_options)
        with _held(url, storage_options):
            _clear_target(url, storage_options)
            writer = StoreWriter(url, storage_options)
            with writer:
                yield writer


@dataclass
class StoreWriter:
    """A store in the making."""

    url: str
    storage_options: StorageOptions | None = None
    _shards: list[ShardEntry] = field(default_factory=list)
    _index_parts: list[pa.Table] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> StoreWriter:
        file = self._open.enter_context(create_file(join_url(self.url, _PARQUET), self.storage_options))
        self._parquet_file = HashingFile(file)
        self._parquet = ParquetIndexWriter(self._parquet_file)  # records go there shard by shard: they never add up
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._parquet_file.target.closed:  # not committed: pyarrow must not write its footer there later on
            self._parquet_file.target, abandoned = BytesIO(), self._parquet
            self._open.close()
            abandoned.close()

    def add_shard(self, path: str, split: str, written: WrittenShard) -> None:
        """Take note of a shard that lies at ``path`` below the store.

        Raises
        ------
        StoreError
            If it is not there: the processes that wrote it do not see the same filesystem.
        """
        filesystem, full = filesystem_of(join_url(self.url, path), self.storage_options, writing=True)
        filesystem.invalidate_cache()
        size = filesystem.size(full) if filesystem.exists(full) else None
        if size != written.bytes:
            raise StoreError(
                f"{self.url}: {path} was written with {written.bytes} bytes, and "
                + ("is not there" if size is None else f"has {size} there")
                + ": worker processes must see the same filesystem (memory:// needs workers=1)"
            )
        entry = ShardEntry(path=path, bytes=written.bytes, sha256=written.sha256, split=split, rows=written.rows)
        self._parquet.add(written.records)
        self._index_parts.append(index_part(len(self._shards), written))
        self._shards.append(entry)

    def commit(
        self,
        *,
        codec: Literal["zstd", "deflate"],
        pixel_bytes: int,
        recipes: dict[str, str] | None = None,
        cards: dict[str, str] | None = None,
    ) -> StoreManifest:
        """Write the index files and then the manifest, which makes the store.

        Raises
        ------
        StoreError
            If there is no image, or two images have one id.
        """
        with plain_errors(self.url):
            table = index_table(self._index_parts)
            ids = table.column("image_id").to_pylist()
            if not ids:
                raise StoreError(f"{self.url}: there is not a single image to store")
            if len(set(ids)) != len(ids):
                repeated = Counter(ids).most_common(1)[0][0]
                raise StoreError(f"{self.url}: two images have the id {repeated!r}")
            self._parquet.close()
            self._open.close()
            parquet = self._parquet_file.entry(_PARQUET)
            with create_file(join_url(self.url, _ARROW), self.storage_options) as target:
                arrow_file = HashingFile(target)
                write_arrow_index(arrow_file, table)
            manifest = StoreManifest(
                created_by=f"chammi75 {__version__}",
                codec=codec,
                images=len(ids),
                planes=len(table.column("plane_lengths").combine_chunks().values),
                pixel_bytes=pixel_bytes,
                shards=self._shards,
                index=IndexEntry(parquet=parquet, arrow=arrow_file.entry(_ARROW)),
                recipes=recipes or {},
                cards=cards or {},
                content_sha256=content_hash(ids, table.column("content_sha256").to_pylist()),
            )
            content = manifest.to_bytes()
            write_atomically(join_url(self.url, MANIFEST), content, self.storage_options)
            filesystem, path = filesystem_of(join_url(self.url, BUILDING), self.storage_options, writing=True)
            with suppress(FileNotFoundError):
                filesystem.rm_file(path)
            return StoreManifest.from_bytes(content, self.url)


def content_hash(image_ids: Sequence[str], digests: Sequence[bytes]) -> str:
    """``content_sha256`` of a manifest: SHA-256 over the digests of all images, ordered by their ids.

    Examples
    --------
    >>> content_hash(["b", "a"], [b"2", b"1"]) == content_hash(["a", "b"], [b"1", b"2"])
    True
    """
    contents = sorted(zip(image_ids, digests, strict=True))
    return hashlib.sha256(b"".join(digest for _, digest in contents)).hexdigest()


class HashingFile:
    """A file object to write to that keeps the SHA-256 and the length of what went through it."""

    closed = False

    def __init__(self, target: IO[bytes]) -> None:
        self.target = target
        self.digest = hashlib.sha256()
        self.position = 0

    def write(self, content: Any) -> int:
        """Write bytes."""
        view = memoryview(content).cast("B")
        self.target.write(view)
        self.digest.update(view)
        self.position += len(view)
        return len(view)

    def entry(self, path: str) -> FileEntry:
        """The file for the manifest."""
        return FileEntry(path=path, bytes=self.position, sha256=self.digest.hexdigest())

    def tell(self) -> int:
        """Bytes written so far."""
        return self.position

    def flush(self) -> None:
        """Flush the file below."""
        self.target.flush()

    def close(self) -> None:
        """Leave the file below open: whoever opened it closes it."""

    def writable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """False."""
        return False


def _check_target(url: str, storage_options: StorageOptions | None) -> None:
    """Refuse a target that is neither new nor one that a build of ours has begun."""
    filesystem, path = filesystem_of(url, storage_options, writing=True)
    filesystem.invalidate_cache()
    if filesystem.isfile(path):
        raise StoreError(f"{url} is a file: a store is a folder, name a new one")
    if filesystem.exists(f"{path}/{MANIFEST}"):
        raise StoreError(f"{url} holds a finished store: a new build is a new folder (or delete that one first)")
    names = folder_names(filesystem, path)
    if not names:
        return
    mark = filesystem.cat_file(f"{path}/{BUILDING}") if BUILDING in names else b""
    just_begun = names == [BUILDING] and _BUILDING_CONTENT.startswith(mark)  # killed before the mark was whole
    if mark != _BUILDING_CONTENT and not just_begun:
        raise StoreError(f"{url} is not empty and no build of chammi75 has begun there: name a new folder")


def _clear_target(url: str, storage_options: StorageOptions | None) -> None:
    """Remove what an interrupted build has left, and nothing else."""
    filesystem, path = filesystem_of(url, storage_options, writing=True)
    for name in folder_names(filesystem, path):
        if _OWN_FILE.fullmatch(name):
            filesystem.rm_file(f"{path}/{name}")
    shards = f"{path}/shards"
    for name in folder_names(filesystem, shards):
        if _OWN_SHARD.fullmatch(name):
            filesystem.rm_file(f"{shards}/{name}")


def folder_names(filesystem: AbstractFileSystem, path: str) -> list[str]:
    """Names of the files and folders in a folder; none where there is no such folder."""
    if not filesystem.isdir(path):
        return []
    return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False)]


@contextmanager
def _held(url: str, storage_options: StorageOptions | None) -> Iterator[None]:
    """Mark a target as begun, and hold a local one for this process.

    The system lets go of it when the process ends, however it ends. The mark is never replaced by another file while
    a build runs, since the lock belongs to the file and not to its name.
    """
    mark = join_url(url, BUILDING)
    if not is_local(url) or os.name != "posix":
        write_atomically(mark, _BUILDING_CONTENT, storage_options)
        yield
        return
    path = local_path(mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        lock(file.fileno(), f"{url}: another build is writing there right now")
        if local_path(join_url(url, MANIFEST)).exists():  # another build has finished since we looked
            path.unlink(missing_ok=True)
            raise StoreError(f"{url} holds a finished store: a new build is a new folder (or delete that one first)")
        file.seek(0)
        if file.read() != _BUILDING_CONTENT:
            file.truncate(0)
            file.write(_BUILDING_CONTENT)
            file.flush()
        yield


@contextmanager
def plain_errors(url: str, next_step: str = "make room and build again") -> Iterator[None]:
    """Turn what the system and the network say of a target into a sentence."""
    try:
        yield
    except ChammiError:
        raise
    except reading_errors() as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = f"there is no room left; nothing there counts as a store, {next_step}"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "it cannot be written (no permission, or read-only)"
        else:
            advice = "it cannot be written"
        raise ChammiError(f"{url}: {advice} [{error}]") from error
