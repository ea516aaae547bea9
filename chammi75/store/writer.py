"""Writing a store: shards first, then the index files, the manifest last. Without it, there is no store."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from chammi75.errors import ChammiError, StoreError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    create_file,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    write_atomically,
)
from chammi75.schemas.manifest import FileEntry, IndexEntry, ShardEntry, StoreManifest
from chammi75.store.index import ParquetIndexWriter, index_table, write_arrow_index
from chammi75.store.shard import WrittenShard
from chammi75.version import __version__

MANIFEST = "manifest.json"
BUILDING = "building.json"
_OWN_FILES = ("index.parquet", "index.arrow", BUILDING)


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
    with _plain_errors(url):
        _clear_target(url, storage_options)
        write_atomically(join_url(url, BUILDING), b'{"format": "chammi75-building"}\n', storage_options)
        with _held(url):
            yield StoreWriter(url, storage_options)


@dataclass
class StoreWriter:
    """A store in the making."""

    url: str
    storage_options: StorageOptions | None = None
    _shards: list[tuple[ShardEntry, WrittenShard]] = field(default_factory=list)

    def add_shard(self, path: str, split: str, written: WrittenShard) -> None:
        """Take note of a shard that lies at ``path`` below the store."""
        entry = ShardEntry(path=path, bytes=written.bytes, sha256=written.sha256, split=split, rows=written.rows)
        self._shards.append((entry, written))

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
        with _plain_errors(self.url):
            table = index_table(written for _, written in self._shards)
            ids = table.column("image_id").to_pylist()
            if not ids:
                raise StoreError(f"{self.url}: there is not a single image to store")
            if len(set(ids)) != len(ids):
                repeated = next(image_id for image_id in ids if ids.count(image_id) > 1)
                raise StoreError(f"{self.url}: two images have the id {repeated!r}")
            parquet = self._file("index.parquet", self._write_parquet)
            arrow = self._file("index.arrow", lambda file: write_arrow_index(file, table))
            contents = sorted(zip(ids, table.column("content_sha256").to_pylist(), strict=True))
            manifest = StoreManifest(
                created_by=f"chammi75 {__version__}",
                codec=codec,
                images=len(ids),
                planes=sum(len(lengths) for lengths in table.column("plane_lengths").to_pylist()),
                pixel_bytes=pixel_bytes,
                shards=[entry for entry, _ in self._shards],
                index=IndexEntry(parquet=parquet, arrow=arrow),
                recipes=recipes or {},
                cards=cards or {},
                content_sha256=hashlib.sha256(b"".join(digest for _, digest in contents)).hexdigest(),
            )
            content = manifest.to_bytes()
            write_atomically(join_url(self.url, MANIFEST), content, self.storage_options)
            filesystem, path = filesystem_of(join_url(self.url, BUILDING), self.storage_options)
            with suppress(FileNotFoundError):
                filesystem.rm_file(path)
            return StoreManifest.from_bytes(content, self.url)

    def _write_parquet(self, file: IO[bytes]) -> None:
        writer = ParquetIndexWriter(file)
        for _, written in self._shards:
            writer.add(written.records)
        writer.close()

    def _file(self, path: str, write: Any) -> FileEntry:
        with create_file(join_url(self.url, path), self.storage_options) as target:
            file = HashingFile(target)
            write(file)
        return FileEntry(path=path, bytes=file.position, sha256=file.digest.hexdigest())


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


def _clear_target(url: str, storage_options: StorageOptions | None) -> None:
    filesystem, path = filesystem_of(url, storage_options)
    filesystem.invalidate_cache()
    if filesystem.isfile(path):
        raise StoreError(f"{url} is a file: a store is a folder, name a new one")
    if filesystem.exists(f"{path}/{MANIFEST}"):
        raise StoreError(f"{url} holds a finished store: a new build is a new folder (or delete that one first)")
    names = (
        [entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False)]
        if filesystem.isdir(path)
        else []
    )
    if not names:
        return
    if BUILDING not in names:
        raise StoreError(f"{url} is not empty and no build of chammi75 has begun there: name a new folder")
    with _held(url):
        shards = f"{path}/shards"
        leftovers = (
            [entry for entry in filesystem.ls(shards, detail=False) if entry.endswith(".arrow")]
            if "shards" in names
            else []
        )
        for leftover in (*leftovers, *(f"{path}/{name}" for name in _OWN_FILES if name in names)):
            filesystem.rm_file(leftover)


@contextmanager
def _held(url: str) -> Iterator[None]:
    """Hold a local target for this process. The system lets go of it when the process ends, however it ends."""
    if not is_local(url) or os.name != "posix":
        yield
        return
    import fcntl

    with open(local_path(join_url(url, BUILDING)), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise StoreError(f"{url}: another build is writing there right now") from error
            # some network filesystems have no locks: go on without
        yield


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """Turn what the system says of a target into a sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ChammiError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "there is no room left; nothing there counts as a store, make room and build again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "it cannot be written (no permission, or read-only)"
        else:
            advice = "it cannot be written"
        raise ChammiError(f"{url}: {advice} [{error}]") from error
