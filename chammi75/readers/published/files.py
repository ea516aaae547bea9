"""The files of a published layout: which of them are there, and which paths are safe to follow.

Files are looked up by listing the folders that the table names, never one by one: a folder of 100,000 planes is one
listing.
"""

from __future__ import annotations

import os
import posixpath
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from chammi75.errors import ChammiError, ReadError
from chammi75.files import (
    StorageOptions,
    explain,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    read_files,
    read_ranges,
    reading_errors,
    safe_relative_path,
)
from chammi75.readers.published.csv_rows import concatenated

if TYPE_CHECKING:
    import pyarrow as pa

PLANES_FOLDER = "CHAMMI-75_train"
GUIDANCE_FOLDER = "CHAMMI-75_guidance"
LEADING_FOLDER = "CHAMMI-75"
METADATA_SUFFIX = "_metadata.csv"
_CONNECTIONS = 16
_BLOCK_BYTES = 2**22
_PNG_HEAD_BYTES = 24
_SIZES_AT_ONCE = 512
_CLOCK_TICK_NS = 20_000_000  # Linux stamps files with a clock that goes in steps of 1 to 10 ms


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
    except reading_errors() as error:
        raise ChammiError(f"{url}: the folder cannot be listed: {explain(error, url, storage_options)}") from error
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
    if _any(pc.starts_with(paths, f"{LEADING_FOLDER}/")):
        paths = pc.replace_substring_regex(paths, f"^{LEADING_FOLDER}/+{LEADING_FOLDER}_", f"{LEADING_FOLDER}_")
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


def files_there(
    root: str,
    paths: pa.Array,
    storage_options: StorageOptions | None = None,
    stamps: dict[str, int | None] | None = None,
) -> np.ndarray:
    """Which files are there, by one listing of each folder that ``paths`` name.

    Parameters
    ----------
    root : str
        The folder that the paths are relative to.
    paths : pyarrow.LargeStringArray
        Shape (files,): safe relative paths; a null is not there.
    storage_options : mapping, optional
        Options for the filesystem.
    stamps : dict, optional
        Takes up when each local folder that was listed had changed last (``folder_stamp``).

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
        if stamps is not None and is_local(root):
            stamps.update({folder: folder_stamp(join_url(root, folder)) for folder in folders})
        there = _list_files(root, sorted(folders), storage_options)
        found[open_rows] |= pc.is_in(paths.take(open_rows), value_set=there).to_numpy(zero_copy_only=False)
        open_rows = open_rows[~found[open_rows]]
        if not len(open_rows):
            break
    return found


def folder_stamp(url: str) -> int | None:
    """When a local folder, or a file, changed last, in nanoseconds; None if it is not there.

    A change that follows has another stamp: what changed within the clock's last tick is looked at again after it.
    """
    path = local_path(url)
    for _ in range(2):
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if not 0 <= time.time_ns() - changed < _CLOCK_TICK_NS:
            break
        time.sleep(_CLOCK_TICK_NS / 1e9)
    return changed


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


def png_sizes(urls: Sequence[str], storage_options: StorageOptions | None = None) -> list[tuple[int, int] | ReadError]:
    """Width and height in pixels, from the first 24 bytes of PNG files (PNG specification, 5.2 and 11.2.2).

    Remote files are asked for concurrently. Where a file is not there, or does not begin as a PNG does, the error
    stands in its place.
    """
    sizes: list[tuple[int, int] | ReadError] = []
    for first in range(0, len(urls), _SIZES_AT_ONCE):
        block = urls[first : first + _SIZES_AT_ONCE]
        heads: list[bytes | None] = [None] * len(block)
        with suppress(ReadError, *reading_errors()):  # then one by one, to tell which it is
            heads = read_files(block, storage_options, at_most=_PNG_HEAD_BYTES)
        sizes += [_png_size(url, head, storage_options) for url, head in zip(block, heads, strict=True)]
    return sizes


def _png_size(url: str, head: bytes | None, storage_options: StorageOptions | None) -> tuple[int, int] | ReadError:
    try:
        (start,) = [head] if head is not None else read_ranges(url, [(0, _PNG_HEAD_BYTES)], storage_options)
    except ReadError as error:
        return error
    except reading_errors() as error:
        return ReadError(url, f"the file cannot be read ({explain(error, url, storage_options)})")
    if len(start) < _PNG_HEAD_BYTES or start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR":
        return ReadError(url, "this is no PNG file")
    width, height = struct.unpack(">II", start[16:24])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        return ReadError(url, f"the PNG header states a size of {width} x {height} pixels")
    return int(width), int(height)
