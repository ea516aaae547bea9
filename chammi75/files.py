"""The one place that opens URLs and writes files.

Every path that a user gives may be a local path or any URL that fsspec knows. Writing is atomic: a reader sees the
old file, or the new one, never half of it.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

StorageOptions = Mapping[str, Any]

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+(://|::)")  # two letters at least: "C:\" is a drive


def is_local(url: str | os.PathLike[str]) -> bool:
    """Whether ``url`` is a path of this machine, written plainly or as ``file://``.

    Examples
    --------
    >>> is_local("plates/a.tif"), is_local("file:///data/a.tif"), is_local("s3://bucket/a.tif")
    (True, True, False)
    """
    text = os.fspath(url)
    return text.startswith("file://") or _SCHEME.match(text) is None


def local_path(url: str | os.PathLike[str]) -> Path:
    """The path of a local ``url``.

    Raises
    ------
    ChammiError
        If ``url`` is not local.
    """
    text = os.fspath(url)
    if not is_local(text):
        raise ChammiError(f"{text} is not a path of this machine")
    if text.startswith("file://"):
        from fsspec.implementations.local import LocalFileSystem

        text = LocalFileSystem._strip_protocol(text)
    return Path(text)


def absolute_url(url: str | os.PathLike[str]) -> str:
    """``url`` with a local path made absolute and forward slashes; other URLs as they are, without a closing slash."""
    text = os.fspath(url)
    if is_local(text):
        return Path(os.path.abspath(local_path(text).expanduser())).as_posix()
    return text.rstrip("/")


def join_url(base: str, *parts: str) -> str:
    """``base`` and relative ``parts``, joined with forward slashes; in a chained URL they belong to its first link.

    Examples
    --------
    >>> join_url("s3://bucket/store", "shards", "train-00000.arrow")
    's3://bucket/store/shards/train-00000.arrow'
    >>> join_url("zip://::/data/a.zip", "a.png")
    'zip://a.png::/data/a.zip'
    """
    names = [part.strip("/") for part in parts if part]
    first, chain, rest = base.partition("::") if not is_local(base) else (base, "", "")
    if not chain:
        return "/".join([base.rstrip("/"), *names])
    protocol, _, inner = first.partition("://")
    return f"{protocol}://{'/'.join(name for name in (inner.strip('/'), *names) if name)}::{rest}"


def safe_relative_path(path: str) -> str:
    """``path`` in normal form, if it stays below the folder that it is relative to.

    Raises
    ------
    ChammiError
        If ``path`` is absolute, names a drive or another filesystem, or climbs out with ``..``.

    Examples
    --------
    >>> safe_relative_path("a/./b.png")
    'a/b.png'
    """
    text = path.replace("\\", "/")
    normal = posixpath.normpath(text) if text else ""
    climbs = normal == ".." or normal.startswith("../")
    elsewhere = normal.startswith("/") or re.match(r"^[A-Za-z]:", normal) or "://" in text or "::" in text
    if not text or "\0" in text or climbs or elsewhere:
        raise ChammiError(f"{path!r} is refused: a path here must stay inside its folder (relative, without '..')")
    return normal


def filesystem_of(
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None
) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of ``url`` and the path on it.

    Raises
    ------
    ChammiError
        If no filesystem is known for the URL's protocol, or what it needs is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(absolute_url(url), **dict(storage_options or {}))
    except (ValueError, ImportError) as error:
        raise ChammiError(f"{os.fspath(url)} cannot be opened: {error}") from error
    return filesystem, path


@contextmanager
def open_url(
    url: str | os.PathLike[str], mode: str = "rb", storage_options: StorageOptions | None = None
) -> Iterator[IO[Any]]:
    """Open ``url`` for reading (``"rb"``).

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        As the filesystem raises them.
    """
    if is_local(url):
        with open(local_path(url), mode) as file:
            yield file
        return
    filesystem, path = filesystem_of(url, storage_options)
    with filesystem.open(path, mode) as file:
        yield file


def read_bytes(url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> bytes:
    """All bytes of ``url``."""
    if is_local(url):
        return local_path(url).read_bytes()
    filesystem, path = filesystem_of(url, storage_options)
    return bytes(filesystem.cat_file(path))


def read_ranges(
    url: str, ranges: Sequence[tuple[int, int]], storage_options: StorageOptions | None = None
) -> list[bytes]:
    """Parts of one file: ``ranges`` are (offset, length) in bytes, the answer is in their order.

    Remote ranges are asked for concurrently. A part that ends beyond the file comes back shorter.
    """
    if is_local(url):
        with open(local_path(url), "rb") as file:
            parts = []
            for offset, length in ranges:
                file.seek(offset)
                parts.append(file.read(length))
            return parts
    filesystem, path = filesystem_of(url, storage_options)
    starts = [offset for offset, _ in ranges]
    ends = [offset + length for offset, length in ranges]
    return [bytes(part) for part in filesystem.cat_ranges([path] * len(ranges), starts, ends, on_error="raise")]


def reading_errors() -> tuple[type[Exception], ...]:
    """What reading a URL may raise: OSError, and what the network libraries in use raise that is none.

    Examples
    --------
    >>> OSError in reading_errors()
    True
    """
    kinds = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))
    return (OSError, *(getattr(sys.modules[module], name) for module, name in kinds if module in sys.modules))


def exists(url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> bool:
    """Whether there is a file or folder at ``url``."""
    filesystem, path = filesystem_of(url, storage_options)
    return bool(filesystem.exists(path))


def write_atomically(
    url: str | os.PathLike[str], content: bytes, storage_options: StorageOptions | None = None
) -> None:
    """Write ``content`` to ``url`` so that a reader sees all of it or none.

    Raises
    ------
    OSError
        If the target cannot be written; then nothing of it is left there.
    """
    if not is_local(url):
        filesystem, path = filesystem_of(url, storage_options)
        filesystem.pipe_file(path, content)  # one PUT on object stores
        return
    target = local_path(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def create_file(url: str, storage_options: StorageOptions | None = None) -> Iterator[IO[bytes]]:
    """A new file at ``url`` to write bytes to, one after the other; parents are made."""
    if is_local(url):
        target = local_path(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        return
    filesystem, path = filesystem_of(url, storage_options)
    with filesystem.open(path, "wb") as file:
        yield file
