"""The files of a published layout: where its root is, which files are there, which paths are safe to follow.

Files are looked up by listing the folders that the table names, never one by one: a folder of 100,000 planes is one
listing.
"""

from __future__ import annotations

import os
import posixpath
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi75.errors import ChammiError, ReadError
from chammi75.files import (
    StorageOptions,
    absolute_url,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    read_ranges,
    safe_relative_path,
)
from chammi75.readers.published.csv_rows import PUBLISHED_COLUMNS, concatenated, read_header

if TYPE_CHECKING:
    import pyarrow as pa

PLANES_FOLDER = "CHAMMI-75_train"
GUIDANCE_FOLDER = "CHAMMI-75_guidance"
_LEADING_FOLDER = "CHAMMI-75"
_METADATA_SUFFIX = "_metadata.csv"
_KNOWN_COLUMNS = 3  # as many known columns make a table a published one, even if one that is needed is not among them
_CONNECTIONS = 16
_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class PublishedRoot:
    """Where a published layout lies.

    Parameters
    ----------
    root : str
        URL of the folder that ``storage.path`` is relative to.
    metadata_urls : tuple of str
        The tables ``*_metadata.csv`` with the published columns, sorted; those beside the planes first.
    has_planes : bool
        Whether ``CHAMMI-75_train`` is there.
    """

    root: str
    metadata_urls: tuple[str, ...]
    has_planes: bool


def find_published_root(
    url: str | os.PathLike[str], storage_options: StorageOptions | None = None
) -> PublishedRoot | None:
    """The root of the published layout in a folder, directly or below a leading ``CHAMMI-75/``.

    Parameters
    ----------
    url : str or path
        A folder: a local path or any URL that fsspec knows.
    storage_options : mapping, optional
        Options for its filesystem.

    Returns
    -------
    PublishedRoot or None
        None if the folder holds neither ``CHAMMI-75_train/`` nor a ``*_metadata.csv`` with columns of the published
        table.

    Raises
    ------
    ChammiError
        If the folder is there but may not be listed.
    """
    top = absolute_url(url)
    roots: list[tuple[str, bool]] = []
    tables: dict[str, list[str]] = {}
    for folder in (top, join_url(top, _LEADING_FOLDER)):
        names = list_folder(folder, storage_options)
        if names is None:
            continue
        tables[folder] = [
            table
            for table in (join_url(folder, name) for name in sorted(names) if name.endswith(_METADATA_SUFFIX))
            if _is_published_table(table, storage_options)
        ]
        if PLANES_FOLDER in names or tables[folder]:
            roots.append((folder, PLANES_FOLDER in names))
    if not roots:
        return None
    root, has_planes = max(roots, key=lambda found: found[1])  # the first one if neither or both have the planes
    urls = [*tables.pop(root), *(table for others in tables.values() for table in others)]
    return PublishedRoot(root, tuple(urls), has_planes)


def _is_published_table(url: str, storage_options: StorageOptions | None) -> bool:
    try:
        return len(set(read_header(url, storage_options)) & set(PUBLISHED_COLUMNS)) >= _KNOWN_COLUMNS
    except (OSError, ReadError):
        return False  # a folder, a link to nowhere, or no CSV: whatever it is, it is not the table


def list_folder(url: str, storage_options: StorageOptions | None = None) -> list[str] | None:
    """The names in a folder; None if there is no such folder.

    Raises
    ------
    ChammiError
        If the folder may not be listed.
    """
    try:
        if is_local(url):
            return os.listdir(local_path(url))  # noqa: PTH208 - one call in C; iterdir makes a Path of each name
        filesystem, path = filesystem_of(url, storage_options)
        listed = filesystem.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ChammiError(f"{url}: the folder cannot be listed ({error.strerror or error})") from error
    own = path.strip("/")
    return [posixpath.basename(name.rstrip("/")) for name in listed if name.strip("/") != own]


def safe_paths(paths: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Paths in normal form, and which of them may not be followed.

    The rules are those of ``chammi75.files.safe_relative_path``, and ``..`` is refused anywhere. A leading
    ``CHAMMI-75/`` before ``CHAMMI-75_…`` is taken away: the root lies below it.

    Parameters
    ----------
    paths : pyarrow.LargeStringArray
        Shape (rows,); may have nulls.

    Returns
    -------
    paths : pyarrow.LargeStringArray
        The same, null where refused.
    refused : numpy.ndarray
        Shape (rows,), bool.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    refused = np.zeros(len(paths), bool)
    if _any(pc.starts_with(paths, f"{_LEADING_FOLDER}/")):
        paths = pc.replace_substring_regex(paths, f"^{_LEADING_FOLDER}/+{_LEADING_FOLDER}_", f"{_LEADING_FOLDER}_")
    odd = pc.or_(pc.starts_with(paths, "/"), pc.ends_with(paths, "/"))
    for mark in _marks_in(paths):
        odd = pc.or_(odd, pc.match_substring(paths, mark))
    suspects = np.flatnonzero(odd.fill_null(False).to_numpy(zero_copy_only=False))
    if not len(suspects):
        return paths, refused
    normal: list[str | None] = []
    for path in paths.take(suspects).to_pylist():
        try:
            if ".." in path.replace("\\", "/").split("/"):
                raise ChammiError(f"{path!r} leads out of the folder")
            normal.append(safe_relative_path(path))
        except ChammiError:
            normal.append(None)
    refused[suspects] = [path is None for path in normal]
    mask = np.zeros(len(paths), bool)
    mask[suspects] = True
    return pc.replace_with_mask(paths, pa.array(mask), pa.array(normal, paths.type)), refused


def _marks_in(paths: pa.Array) -> list[str]:
    """The marks of odd paths that occur anywhere: nearly always none, and then no path is looked at alone."""
    if not len(paths) or paths.buffers()[2] is None:
        return []
    text = memoryview(paths.buffers()[2])
    return [
        mark
        for mark in ("..", "\\", ":", "//", "./", "\0")
        if any(
            mark.encode() in bytes(text[start : start + _BLOCK_BYTES + 1])
            for start in range(0, len(text), _BLOCK_BYTES)
        )
    ]


def _any(flags: pa.Array) -> bool:
    from pyarrow import compute as pc

    return bool(pc.any(flags).as_py())


def files_there(root: str, paths: pa.Array, storage_options: StorageOptions | None = None) -> np.ndarray:
    """Which files are there, by one listing of each folder that ``paths`` name.

    Parameters
    ----------
    root : str
        The folder that the paths are relative to.
    paths : pyarrow.LargeStringArray
        Shape (files,): safe relative paths; a null is not there.
    storage_options : mapping, optional
        Options for the filesystem.

    Returns
    -------
    numpy.ndarray
        Shape (files,), bool.
    """
    from pyarrow import compute as pc

    found = np.zeros(len(paths), bool)
    open_rows = np.flatnonzero(paths.is_valid().to_numpy(zero_copy_only=False))
    listed: set[str] = set()
    # Tables are sorted by study, so that a sample meets nearly all folders; the second round takes what it missed.
    for sample in (open_rows[:: max(1, len(open_rows) // 1000)], None):
        rows = open_rows if sample is None else sample
        asked = paths.take(rows)
        folders = set(pc.unique(pc.replace_substring_regex(asked, r"/?[^/]*$", "")).to_pylist()) - listed
        if not folders:
            break
        listed |= folders
        there = _list_files(root, sorted(folders), storage_options)
        found[open_rows] |= pc.is_in(paths.take(open_rows), value_set=there).to_numpy(zero_copy_only=False)
        open_rows = open_rows[~found[open_rows]]
        if not len(open_rows):
            break
    return found


def _list_files(root: str, folders: Sequence[str], storage_options: StorageOptions | None) -> pa.Array:
    """Relative paths of everything directly in ``folders``."""
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    text = pa.large_string()

    def names_in(folder: str) -> pa.Array:
        listed = list_folder(join_url(root, folder), storage_options) or []
        names = pa.array([name for name in listed if _is_unicode(name)], text)
        return concatenated(f"{folder}/", names) if folder else names

    with ThreadPoolExecutor(1 if is_local(root) else _CONNECTIONS) as pool:
        return pa.concat_arrays([pa.array([], text), *pool.map(names_in, folders)])


def _is_unicode(name: str) -> bool:
    """Whether a table in UTF-8 can state this name: undecodable names of local files have lone surrogates."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def png_size(url: str, storage_options: StorageOptions | None = None) -> tuple[int, int]:
    """Width and height in pixels, from the first 24 bytes of a PNG file (PNG specification, 5.2 and 11.2.2).

    Raises
    ------
    ReadError
        If the file is not there or does not begin as a PNG does.
    """
    try:
        (start,) = read_ranges(url, [(0, 24)], storage_options)
    except OSError as error:
        raise ReadError(url, f"the file cannot be read ({error.strerror or error})") from error
    if len(start) < 24 or start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR":
        raise ReadError(url, "this is no PNG file")
    width, height = struct.unpack(">II", start[16:24])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ReadError(url, f"the PNG header states a size of {width} x {height} pixels")
    return int(width), int(height)
