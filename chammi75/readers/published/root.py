"""Where a published layout lies: in a folder, in a bucket, or in a zip archive, with or without a leading folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chammi75.errors import ChammiError, ReadError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    explain,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    read_ranges,
    reading_errors,
)
from chammi75.readers.published.csv_rows import PUBLISHED_COLUMNS, PublishedProblem, read_header
from chammi75.readers.published.files import LEADING_FOLDER, METADATA_SUFFIX, PLANES_FOLDER, list_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from chammi75.archive import ArchiveFileSystem

_KNOWN_COLUMNS = 3  # as many known columns make a table a published one, even if one that is needed is not among them
_ZIP = "zip://"
_ZIP_MAGICS = (b"PK\3\4", b"PK\5\6")  # a file in it, or none


class NotPublishedError(ChammiError):
    """There is no published layout where one was looked for."""


@dataclass(frozen=True)
class PublishedRoot:
    """Where a published layout lies.

    Parameters
    ----------
    root : str
        URL of the folder that ``storage.path`` is relative to.
    metadata_urls : tuple of str
        The tables ``*_metadata.csv`` with the published columns, sorted; those beside the planes first. Those beside
        an archive count where none is in it.
    has_planes : bool
        Whether ``CHAMMI-75_train`` is there.
    """

    root: str
    metadata_urls: tuple[str, ...]
    has_planes: bool


def archive_url(url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> str | None:
    """The URL of the folder inside, if ``url`` is a zip archive; None if it is none.

    A local file is recognised by its first bytes, anything else by ``.zip`` and these.

    Raises
    ------
    ReadError
        If a file is named ``.zip`` and is none.
    """
    text = absolute_url(url)
    if text.startswith(_ZIP):
        return text
    is_named_so = text.lower().endswith(".zip")
    if is_local(text):
        path = local_path(text)
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            head = file.read(4)
    elif is_named_so:
        try:
            (head,) = read_ranges(text, [(0, 4)], storage_options)
        except (FileNotFoundError, IsADirectoryError):
            return None  # a folder may be named so
    else:
        return None
    if head in _ZIP_MAGICS:
        return f"{_ZIP}::{text}"
    if is_named_so:
        raise ReadError(text, f"this is no zip archive (it begins with {head!r})")
    return None


def is_archive(url: str) -> bool:
    """Whether ``url`` is a folder inside an archive."""
    return url.startswith(_ZIP)


def members(root: str, storage_options: StorageOptions | None = None) -> pa.Array:
    """The files below a folder in an archive, relative to it, shape (files,), sorted."""
    from pyarrow import compute as pc

    filesystem, prefix = _archive(root, storage_options)
    names = filesystem.directory.names
    if not prefix:
        return names
    start, stop = (filesystem.directory.position(f"{prefix}{end}") for end in ("/", "0"))  # "0" follows "/"
    return pc.utf8_slice_codeunits(names.slice(start, stop - start), len(prefix) + 1)


def archive_problems(root: str, storage_options: StorageOptions | None = None) -> list[PublishedProblem]:
    """The files of an archive that may not be followed."""
    filesystem, _ = _archive(root, storage_options)
    return [PublishedProblem("unreadable", name, reason) for name, reason in filesystem.directory.problems]


def _archive(root: str, storage_options: StorageOptions | None) -> tuple[ArchiveFileSystem, str]:
    filesystem, prefix = filesystem_of(root, storage_options)
    return filesystem, prefix


def find_published_root(
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None
) -> PublishedRoot | None:
    """The root of the published layout in a folder or a zip archive, directly or below a leading folder.

    Parameters
    ----------
    url : str or path
        A folder or a zip archive: a local path or any URL that fsspec knows.
    storage_options : mapping, optional
        Options for its filesystem.

    Returns
    -------
    PublishedRoot or None
        None if it holds neither ``CHAMMI-75_train/`` nor a ``*_metadata.csv`` with columns of the published table.

    Raises
    ------
    ChammiError
        If the folder is there but may not be listed, or the archive is damaged.
    """
    archive = archive_url(url, storage_options)
    if archive is not None:
        return _root_in_archive(archive, storage_options)
    top = absolute_url(url)
    roots: list[tuple[str, bool]] = []
    tables: dict[str, list[str]] = {}
    for folder in (top, join_url(top, LEADING_FOLDER)):
        names = list_folder(folder, storage_options)
        if names is None:
            continue
        tables[folder] = _tables(folder, names, storage_options)
        if PLANES_FOLDER in names or tables[folder]:
            roots.append((folder, PLANES_FOLDER in names))
    if not roots:
        return None
    root, has_planes = max(roots, key=lambda found: found[1])  # the first one if neither or both have the planes
    urls = [*tables.pop(root), *(table for others in tables.values() for table in others)]
    return PublishedRoot(root, tuple(urls), has_planes)


def _root_in_archive(archive: str, storage_options: StorageOptions | None) -> PublishedRoot | None:
    names = members(archive, storage_options)
    inside = [name for name in _matching(names, METADATA_SUFFIX) if _is_plain(name)]
    tables = _tables(archive, inside, storage_options)
    planes = _folder_before(names, f"{PLANES_FOLDER}/")
    if planes is not None:
        root = join_url(archive, planes)
    elif tables:
        shallowest = min(
            (name for name in inside if join_url(archive, name) in tables), key=lambda name: name.count("/")
        )
        root = join_url(archive, shallowest.rpartition("/")[0])
    else:
        return None
    return PublishedRoot(root, tuple(tables or tables_beside(archive, storage_options)), planes is not None)


def tables_beside(archive: str, storage_options: StorageOptions | None = None) -> list[str]:
    """The tables ``*_metadata.csv`` in the folder that an archive lies in."""
    folder = archive_folder(archive)
    try:
        names = list_folder(folder, storage_options)
    except ChammiError:
        return []  # many servers hand out files and list no folders
    return _tables(folder, names or [], storage_options)


def archive_folder(archive: str) -> str:
    """The folder that the archive of ``zip://…::archive`` lies in.

    Examples
    --------
    >>> archive_folder("zip://a::s3://bucket/small.zip")
    's3://bucket'
    """
    return archive.partition("::")[2].rpartition("/")[0] or "/"


def _tables(folder: str, names: list[str], storage_options: StorageOptions | None) -> list[str]:
    urls = [join_url(folder, name) for name in sorted(names) if name.endswith(METADATA_SUFFIX)]
    return [url for url in urls if _is_published_table(url, storage_options)]


def _is_published_table(url: str, storage_options: StorageOptions | None) -> bool:
    try:
        return len(set(read_header(url, storage_options)) & set(PUBLISHED_COLUMNS)) >= _KNOWN_COLUMNS
    except (ReadError, FileNotFoundError, IsADirectoryError):
        return False  # a folder, a link to nowhere, or no CSV: whatever it is, it is not the table
    except reading_errors() as error:
        if is_local(url):
            return False
        raise ReadError(url, f"the table cannot be read: {explain(error, url, storage_options)}") from error


def _matching(names: pa.Array, suffix: str) -> list[str]:
    from pyarrow import compute as pc

    found: list[str] = names.filter(pc.ends_with(names, suffix)).to_pylist()
    return found


def _is_plain(name: str) -> bool:
    """Whether a file is no companion that macOS puts into archives."""
    return not any(part == "__MACOSX" or part.startswith("._") for part in name.split("/"))


def _folder_before(names: pa.Array, folder: str) -> str | None:
    """What stands before ``folder`` in the name that has it first, at the beginning of a part of the path."""
    import numpy as np
    from pyarrow import compute as pc

    if not len(names):
        return None
    if pc.any(pc.starts_with(names, folder)).as_py():
        return ""
    at = pc.find_substring(names, f"/{folder}").to_numpy(zero_copy_only=False)
    there = np.flatnonzero(at >= 0)
    if not len(there):
        return None
    name = names[int(there[np.argmin(at[there])])].as_py()
    return str(name).partition(f"/{folder}")[0]
