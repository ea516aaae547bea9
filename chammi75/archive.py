"""Files inside a zip archive, read by byte ranges of the archive.

The archive's directory is read once per process (``chammi75.zip_directory``); a file is then one range of the archive,
whose bytes are checked by size and CRC-32.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any

from fsspec import AbstractFileSystem

from chammi75.errors import ReadError
from chammi75.transfer import fetch
from chammi75.zip_directory import LOCAL_HEADER, ArchiveDirectory, parse_directory

_IN_MEMORY = 256 * 2**20
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class _Archive:
    """An archive on its filesystem, as key of what is known of it."""

    kind: str
    path: str
    options: str
    name: str
    filesystem: Any = field(compare=False, repr=False)


def open_archive(filesystem: AbstractFileSystem, path: str, name: str) -> ArchiveFileSystem:
    """The filesystem inside the archive at ``path`` of another; its directory is read once per process.

    Raises
    ------
    ReadError
        As of ``parse_directory``.
    OSError
        If the archive cannot be read.
    """
    kind = type(filesystem).__qualname__
    key = _Archive(kind, path, str(getattr(filesystem, "storage_options", "")), name, filesystem)
    return ArchiveFileSystem(filesystem, path, name, _directory(key, _stamp(key)))


def forget_archives() -> None:
    """Forget how large remote archives were: the next one that is opened is looked at afresh."""
    _remote_stamp.cache_clear()


def _stamp(archive: _Archive) -> tuple[int, str]:
    if archive.kind == "LocalFileSystem":
        status = os.stat(archive.path)  # noqa: PTH116 - a Path costs as much as the call
        return status.st_size, f"{status.st_mtime_ns}-{status.st_ino}"
    return _remote_stamp(archive)


@lru_cache(maxsize=64)
def _remote_stamp(archive: _Archive) -> tuple[int, str]:
    known = archive.filesystem.info(archive.path)
    if known.get("size") is None:
        raise ReadError(archive.name, "its server does not say how large it is: download the archive first")
    return int(known["size"]), str(known.get("ETag") or known.get("mtime") or known.get("LastModified") or "")


@lru_cache(maxsize=8)
def _directory(archive: _Archive, stamp: tuple[int, str]) -> ArchiveDirectory:
    def read(start: int, stop: int) -> bytes:
        return bytes(archive.filesystem.cat_file(archive.path, start=start, end=stop)) if stop > start else b""

    return parse_directory(read, stamp[0], archive.name)


class ArchiveFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files inside an archive, read only.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
        Where the archive lies.
    path : str
        Its path there.
    name : str
        Its URL, for messages.
    directory : ArchiveDirectory
        What is in it.
    """

    protocol = "zip"
    root_marker = ""
    cachable = False

    def __init__(self, filesystem: AbstractFileSystem, path: str, name: str, directory: ArchiveDirectory) -> None:
        super().__init__()
        self.filesystem = filesystem
        self.path = path
        self.name = name
        self.directory = directory

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is directly in a folder."""
        folder = path.strip("/")
        row = self.directory.find(folder) if folder else None
        entries = [self._entry(row)] if row is not None else list(self._children(f"{folder}/" if folder else ""))
        if not entries and folder:
            raise FileNotFoundError(self._url(folder))
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and type of a file or folder."""
        name = path.strip("/")
        row = self.directory.find(name)
        if row is not None:
            return self._entry(row)
        below = self.directory.position(f"{name}/") if name else 0
        if not name or (below < len(self.directory) and self.directory.name(below).startswith(f"{name}/")):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(self._url(name))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes of a file, or a part of them."""
        (content,) = self.cat_ranges([path], [start], [end])
        return bytes(content)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "raise",
        **_: Any,
    ) -> list[Any]:
        """Parts of files; one range of the archive for each, asked for concurrently where that is possible."""
        count = len(paths)
        firsts = starts if isinstance(starts, list | tuple) else [starts] * count
        lasts = ends if isinstance(ends, list | tuple) else [ends] * count
        rows = [self.directory.find(path.strip("/")) for path in paths]
        found: list[Any] = [
            FileNotFoundError(2, "there is no such file in the archive", self._url(path)) for path in paths
        ]
        there = [k for k, row in enumerate(rows) if row is not None]
        spans = [(int(self.directory.offsets[rows[k]]), int(self.directory.spans[rows[k]])) for k in there]
        for k, part in zip(there, self._read(spans), strict=True):
            row = rows[k]
            assert row is not None
            try:
                if isinstance(part, BaseException):
                    raise part
                found[k] = self._content(row, part)[firsts[k] : lasts[k]]
            except (OSError, ReadError) as error:
                found[k] = error
        if on_error == "raise":
            for part in found:
                if isinstance(part, BaseException):
                    raise part
        return found

    def _read(self, spans: list[tuple[int, int]]) -> list[Any]:
        if type(self.filesystem).__qualname__ == "LocalFileSystem":
            with open(self.path, "rb", buffering=0) as file:
                return [
                    os.pread(file.fileno(), length, offset) if _PREAD else _seek(file, offset, length)
                    for offset, length in spans
                ]
        if not spans:
            return []
        parts = fetch(self.filesystem, [(self.path, at, at + length) for at, length in spans], stop_early=False)
        return [part if isinstance(part, BaseException) else bytes(part) for part in parts]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        if mode != "rb":
            raise ReadError(self.name, "a zip archive is only read here")
        row = self.directory.find(path.strip("/"))
        if row is None:
            raise FileNotFoundError(2, "there is no such file in the archive", self._url(path))
        if self.directory.sizes[row] <= _IN_MEMORY:
            return io.BytesIO(self.cat_file(path))
        return io.BufferedReader(_MemberStream(self, row), _BLOCK_BYTES)

    def _children(self, prefix: str) -> Iterator[dict[str, Any]]:
        row = self.directory.position(prefix) if prefix else 0
        while row < len(self.directory) and (name := self.directory.name(row)).startswith(prefix):
            child, slash, _ = name[len(prefix) :].partition("/")
            if slash:
                yield {"name": f"{prefix}{child}", "size": 0, "type": "directory"}
                row = self.directory.position(f"{prefix}{child}0")  # "0" follows "/"
            else:
                yield self._entry(row)
                row += 1

    def _entry(self, row: int) -> dict[str, Any]:
        return {"name": self.directory.name(row), "size": int(self.directory.sizes[row]), "type": "file"}

    def _url(self, name: str) -> str:
        return f"zip://{name.strip('/')}::{self.name}"

    def _data_start(self, row: int, header: bytes) -> int:
        """Where a file's bytes begin, counted from its header."""
        if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise ReadError(
                self._url(self.directory.name(row)), "it is not where the archive's directory says (damaged?)"
            )
        *_, name, extra = LOCAL_HEADER.unpack_from(header)
        return int(LOCAL_HEADER.size + name + extra)

    def _content(self, row: int, part: bytes) -> bytes:
        """The unpacked bytes of a file, out of the bytes of the archive from its header on; checked by its CRC."""
        stored, size = int(self.directory.stored_bytes[row]), int(self.directory.sizes[row])
        begin = self._data_start(row, part)
        packed = memoryview(part)[begin : begin + stored]
        url = self._url(self.directory.name(row))
        if len(packed) != stored:
            raise ReadError(url, "the archive is cut short within it")
        content = bytes(packed)
        if self.directory.deflated[row]:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error as error:
                raise ReadError(url, f"its compressed bytes are damaged ({error})") from error
        if len(content) != size or zlib.crc32(content) != self.directory.checksums[row]:
            raise ReadError(url, "its bytes are not those that the archive's directory states (size or CRC-32 differ)")
        return content


_PREAD = hasattr(os, "pread")


def _seek(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


class _MemberStream(io.RawIOBase):
    """A large file of an archive, from its beginning to its end."""

    def __init__(self, archive: ArchiveFileSystem, row: int) -> None:
        super().__init__()
        self._archive = archive
        self._row = row
        directory = archive.directory
        self._at = int(directory.offsets[row])
        (header,) = self._parts(self._at, LOCAL_HEADER.size)
        self._at += archive._data_start(row, header)
        self._left = int(directory.stored_bytes[row])
        self._due = int(directory.sizes[row])
        self._crc = 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if directory.deflated[row] else None

    def _parts(self, offset: int, length: int) -> list[bytes]:
        parts = self._archive._read([(offset, length)])
        for part in parts:
            if isinstance(part, BaseException):
                raise part
        return parts

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        url = self._archive._url(self._archive.directory.name(self._row))
        part = b""
        while not part and self._due:
            packed = self._inflate.unconsumed_tail if self._inflate else b""
            if not packed and self._left:
                wanted = min(self._left, _BLOCK_BYTES if self._inflate else len(buffer))
                (packed,) = self._parts(self._at, wanted)
                if len(packed) != wanted:
                    raise ReadError(url, "the archive is cut short within it")
                self._at += wanted
                self._left -= wanted
            try:
                part = self._inflate.decompress(packed, len(buffer)) if self._inflate else packed
            except zlib.error as error:
                raise ReadError(url, f"its compressed bytes are damaged ({error})") from error
            if not part and not packed and not self._left:
                raise ReadError(url, "it ends before the size that the archive's directory states")
            self._due -= len(part)
            self._crc = zlib.crc32(part, self._crc)
            if self._due < 0 or (not self._due and self._crc != self._archive.directory.checksums[self._row]):
                raise ReadError(
                    url, "its bytes are not those that the archive's directory states (size or CRC-32 differ)"
                )
        buffer[: len(part)] = part
        return len(part)
