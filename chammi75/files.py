"""The one place that opens URLs and writes files.

Every path that a user gives may be a local path or any URL that fsspec knows. Writing is atomic: a reader sees the
old file, or the new one, never half of it.
"""

from __future__ import annotations

import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chammi75.errors import ChammiError
from chammi75.remote import S3_PROTOCOLS, explain, is_unreachable, reading_errors, s3_options

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "StorageOptions",
    "absolute_url",
    "check_answers",
    "create_file",
    "exists",
    "explain",
    "filesystem_of",
    "is_local",
    "is_unreachable",
    "join_url",
    "local_path",
    "look_afresh",
    "open_url",
    "read_bytes",
    "read_files",
    "read_ranges",
    "reading_errors",
    "safe_relative_path",
    "write_atomically",
]

StorageOptions = Mapping[str, Any]

_FIRST_ANSWER_S = 10  # filesystems ask silent servers again and again, for minutes
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
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None, *, writing: bool = False
) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of ``url`` and the path on it.

    S3 is read anonymously unless the options say something of credentials, and written with a signature. What is in
    a zip archive (``zip://member::archive``) is read by byte ranges of the archive, whose directory is read once.

    Parameters
    ----------
    url : str or path
        A local path or any URL that fsspec knows.
    storage_options : mapping, optional
        For the filesystem; in a chained URL, for its last link.
    writing : bool
        Whether something will be written there, or looked at before it is.

    Raises
    ------
    ChammiError
        If no filesystem is known for the URL's protocol, or what it needs is not installed.
    """
    from fsspec.core import url_to_fs

    text = absolute_url(url)
    first, chained, rest = text.partition("::")
    if chained and first.startswith("zip://"):
        from chammi75.archive import open_archive

        filesystem, path = filesystem_of(rest, storage_options)
        return open_archive(filesystem, path, rest), first.removeprefix("zip://").strip("/")
    options = dict(storage_options or {})
    last = text.rsplit("::", 1)[-1].partition("://")[0]
    if last in S3_PROTOCOLS and not chained:
        options = s3_options(options, writing=writing)
    elif chained and _SCHEME.match(text):
        links = {link.partition("://")[0] for link in text.split("::")} - {last}
        others = {link: options.pop(link) for link in links if isinstance(options.get(link), Mapping)}
        inner = options.get(last, options)
        options = {**others, last: s3_options(inner, writing=writing) if last in S3_PROTOCOLS else dict(inner)}
    try:
        filesystem, path = url_to_fs(text, **options)
    except (ValueError, ImportError) as error:
        raise ChammiError(f"{os.fspath(url)} cannot be opened: {error}") from error
    if filesystem.async_impl:
        _connected[filesystem._fs_token] = filesystem
    return filesystem, path


_connected: dict[str, AbstractFileSystem] = {}
"""Filesystems with an event loop, by their token, which has the process id in it.

fsspec forgets those of the parent in a forked child, where s3fs would then close connections that the parent still
uses, on an event loop that is not theirs.
"""


def look_afresh(url: str, storage_options: StorageOptions | None = None) -> None:
    """Forget what was known of a remote place: its folders are listed, and its files looked at, again.

    Filesystems remember listings for as long as a process runs; who opens a dataset wants it as it is now.
    """
    if is_local(url):
        return
    from chammi75.archive import forget_archives

    forget_archives()
    text = absolute_url(url)
    filesystem, _ = filesystem_of(text.partition("::")[2] if text.startswith("zip://") else text, storage_options)
    filesystem.invalidate_cache()


def check_answers(url: str, storage_options: StorageOptions | None = None) -> None:
    """Ask the server of a remote place for it: one that does not answer is given up after 10 seconds.

    Raises
    ------
    ChammiError
        If a setting for the server is none (an endpoint that is no URL).
    OSError
        As ``reading_errors``: no server answers, or it refuses.
    """
    if is_local(url):
        return
    text = absolute_url(url)
    if text.startswith("zip://"):
        check_answers(text.partition("::")[2], storage_options)
        return
    filesystem, path = filesystem_of(text, storage_options)
    try:
        filesystem.exists(path, **({"timeout": _FIRST_ANSWER_S} if filesystem.async_impl else {}))
    except ValueError as error:  # as botocore says it
        raise ChammiError(f"{url} cannot be opened: {error} (an environment variable, or storage_options?)") from error


@contextmanager
def open_url(
    url: str | os.PathLike[str], mode: str = "rb", storage_options: StorageOptions | None = None
) -> Iterator[IO[Any]]:
    """Open ``url`` for reading (``"rb"``).

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        As the filesystem raises them (see ``reading_errors``).
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

    Remote ranges are asked for concurrently, and again where what went wrong may pass (``chammi75.transfer``). A part
    that ends beyond the file comes back shorter.
    """
    if is_local(url):
        with open(local_path(url), "rb") as file:
            parts = []
            for offset, length in ranges:
                file.seek(offset)
                parts.append(file.read(length))
            return parts
    from chammi75.transfer import errors_in, fetch

    filesystem, path = filesystem_of(url, storage_options)
    found = fetch(filesystem, [(path, offset, offset + length) for offset, length in ranges])
    for error in errors_in(found):
        raise error
    return [bytes(part) for part in found]


def read_files(
    urls: Sequence[str],
    storage_options: StorageOptions | None = None,
    *,
    missing_ok: bool = False,
    at_most: int | None = None,
) -> list[bytes | None]:
    """Whole files of one place, in their order; remote ones are asked for concurrently.

    Parameters
    ----------
    urls : sequence of str
        Files on one filesystem.
    storage_options : mapping, optional
        For that filesystem.
    missing_ok : bool
        Whether None stands for a file that is not there; else that is an error.
    at_most : int, optional
        Bytes that are read of each.
    """
    from chammi75.transfer import errors_in, fetch

    found: list[Any] = []
    if all(is_local(url) for url in urls):
        for url in urls:
            try:
                with open(local_path(url), "rb") as file:
                    found.append(file.read(at_most))
            except FileNotFoundError as error:
                found.append(error)
    else:
        places = [filesystem_of(url, storage_options) for url in urls]
        paths = [path for _, path in places]
        found = fetch(places[0][0], [(path, 0, at_most) for path in paths], stop_early=not missing_ok)
    if missing_ok:
        found = [None if isinstance(part, FileNotFoundError) else part for part in found]
    for failure in errors_in(found):
        raise failure
    return [None if part is None else bytes(part) for part in found]


def exists(
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None, *, writing: bool = False
) -> bool:
    """Whether there is a file or folder at ``url``; ``writing`` as of ``filesystem_of``."""
    filesystem, path = filesystem_of(url, storage_options, writing=writing)
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
        filesystem, path = filesystem_of(url, storage_options, writing=True)
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
    filesystem, path = filesystem_of(url, storage_options, writing=True)
    with filesystem.open(path, "wb") as file:
        yield file
