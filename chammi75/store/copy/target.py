"""Where a copy is written: what counts as begun, what is done already, and how a file gets there whole.

While a copy is at work its target has the folder ``copying`` and no manifest. There is in it what is copied
(``copy.json``), what is half done (``*.part``, on a local disk), and a note on each file that is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from chammi75.errors import StoreError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    read_bytes,
    write_atomically,
)
from chammi75.schemas.manifest import FileEntry
from chammi75.store.lock import locked_folder
from chammi75.store.writer import COPYING, MANIFEST, folder_names

_MARK = "copy.json"
_CHUNK = 4 * 2**20
_LEFT_BEHIND = re.compile(r"\.(manifest|report|withdrawals)\.json\.[0-9a-f]{8}\.part")
"""What writing atomically leaves when it is killed."""


@dataclass(frozen=True)
class CopyMark:
    """What is copied: the hash that the source's manifest states, and that of the rows that stay (None for all)."""

    source: str
    selection: str | None

    def to_bytes(self) -> bytes:
        """The content of ``copying/copy.json``."""
        return (json.dumps({"format": "chammi75-copying", **asdict(self)}, indent=1) + "\n").encode()


class Target:
    """A folder that a copy is written to, local or at any fsspec URL."""

    def __init__(self, url: str, storage_options: StorageOptions | None = None) -> None:
        self.url = absolute_url(url)
        self.storage_options = storage_options
        self.is_local = is_local(self.url)

    @contextmanager
    def begun(self, mark: CopyMark) -> Iterator[bool]:
        """Begin a copy, or go on with one; nobody else of this machine writes there meanwhile.

        Yields
        ------
        bool
            Whether the copy is finished already.

        Raises
        ------
        StoreError
            If there is a finished store, the copy of something else, or anything else.
        """
        filesystem, path = filesystem_of(self.url, self.storage_options, writing=True)
        if filesystem.isfile(path):
            raise StoreError(f"{self.url} is a file: a store is a folder, name a new one")
        if self.is_local:
            local_path(self.url).mkdir(parents=True, exist_ok=True)
        busy = f"{self.url}: another copy is writing there right now"
        with locked_folder(local_path(self.url), busy) if self.is_local else nullcontext():
            is_finished = self._check(mark)
            if self.is_local:
                for left in local_path(self.url).iterdir():
                    if _LEFT_BEHIND.fullmatch(left.name):
                        left.unlink()
            if not is_finished:
                write_atomically(self._aside(_MARK), mark.to_bytes(), self.storage_options)
            yield is_finished

    def finish(self) -> None:
        """Remove what the copy needed to go on; the mark last, by which what is left would be known."""
        filesystem, path = filesystem_of(join_url(self.url, COPYING), self.storage_options, writing=True)
        filesystem.invalidate_cache()
        with suppress(FileNotFoundError):
            for name in folder_names(filesystem, path):
                if name != _MARK:
                    filesystem.rm(f"{path}/{name}", recursive=True)
            filesystem.rm(path, recursive=True)

    def holds(self, entry: FileEntry) -> bool:
        """Whether a file is there, whole: by its hash on a local disk, elsewhere by its size."""
        if self.is_local:
            path = self.path(entry.path)
            return path.is_file() and path.stat().st_size == entry.bytes and hash_of(path).hexdigest() == entry.sha256
        return self._size(entry.path) == entry.bytes

    def path(self, path: str) -> Path:
        """Where a file of the store lies on the local disk."""
        return local_path(join_url(self.url, path))

    def part(self, path: str, ending: str = ".part") -> Path:
        """Where a file of the store lies on the local disk while it is not whole; the folder is there."""
        part = local_path(self._aside(path + ending))
        part.parent.mkdir(parents=True, exist_ok=True)
        return part

    def note(self, path: str, content: bytes) -> None:
        """Note something on a file that is done."""
        write_atomically(self._aside(path + ".note"), content, self.storage_options)

    def note_on(self, path: str) -> bytes | None:
        """The note on a file; None if there is none."""
        try:
            return read_bytes(self._aside(path + ".note"), self.storage_options)
        except FileNotFoundError:
            return None

    @contextmanager
    def new_file(self, path: str) -> Iterator[IO[bytes]]:
        """A file of the store to write; it is at its place only when the block ends well."""
        if self.is_local:
            part, place = self.part(path), self.path(path)
            with open(part, "wb") as file:
                yield file
            put_in_place(part, place)
            return
        from fsspec.spec import AbstractBufferedFile

        filesystem, full = filesystem_of(join_url(self.url, path), self.storage_options, writing=True)
        file = filesystem.open(full, "wb")
        try:
            yield file
        except BaseException:
            if isinstance(file, AbstractBufferedFile):
                file.discard()
                file.closed = True  # or it would be sent when it is collected
            else:
                file.close()
            with suppress(FileNotFoundError):
                filesystem.rm_file(full)
            raise
        file.close()

    def _size(self, path: str) -> int | None:
        filesystem, full = filesystem_of(join_url(self.url, path), self.storage_options, writing=True)
        filesystem.invalidate_cache()
        try:
            return int(filesystem.size(full))
        except FileNotFoundError:
            return None

    def _aside(self, path: str) -> str:
        return join_url(self.url, COPYING, path)

    def _check(self, mark: CopyMark) -> bool:
        """Whether the copy is finished; refuse a folder that holds anything but an unfinished one of the same."""
        filesystem, path = filesystem_of(self.url, self.storage_options, writing=True)
        filesystem.invalidate_cache()
        names = folder_names(filesystem, path)
        if not names:
            return False
        aside = folder_names(filesystem, f"{path}/{COPYING}")
        begun = read_bytes(self._aside(_MARK), self.storage_options) if _MARK in aside else None
        if MANIFEST in names:
            if begun == mark.to_bytes():
                return True
            raise StoreError(f"{self.url} holds a finished store: a copy goes to a new folder (or delete that one)")
        if begun is None:
            just_begun = names == [COPYING] and all(re.fullmatch(r"\.copy\.json\.\w+\.part", name) for name in aside)
            if just_begun:
                return False
            raise StoreError(f"{self.url} is not empty and no copy has begun there: name a new folder")
        if begun != mark.to_bytes():
            raise StoreError(
                f"{self.url} holds the unfinished copy of another store or of other images: name a new folder, or"
                " delete that one"
            )
        return False


def put_in_place(part: Path, place: Path) -> None:
    """Give a file that is whole its name."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, place)


def hash_of(path: Path, size: int | None = None) -> Any:
    """SHA-256 of a local file, or of its first ``size`` bytes, to be gone on with."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK if size is None else min(_CHUNK, size)):
            digest.update(chunk)
            if size is not None:
                size -= len(chunk)
    return digest


def refuse_inside(source: str, target: str) -> None:
    """Refuse a copy into the store itself or below it.

    Raises
    ------
    StoreError
        If it is one.

    Examples
    --------
    >>> refuse_inside("s3://bucket/store", "s3://bucket/store-2")
    """
    if is_local(source) != is_local(target):
        return
    if is_local(source):
        source, target = (os.path.realpath(local_path(url)) for url in (source, target))
    if target == source or target.startswith(source.rstrip("/\\") + ("/" if "://" in source else os.sep)):
        raise StoreError(f"{target} lies in the store that is copied ({source}): name a folder elsewhere")
