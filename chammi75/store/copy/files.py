"""Whole files of a store, byte for byte: their hashes are checked against the manifest while they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from chammi75.errors import StoreError
from chammi75.files import join_url
from chammi75.schemas.manifest import FileEntry
from chammi75.store.copy.ranges import SourceFiles
from chammi75.store.copy.target import Target, hash_of, put_in_place
from chammi75.store.reader import Store

Advance = Callable[[int], None]


def copy_file(source: Store, entry: FileEntry, target: Target, advance: Advance) -> int:
    """Copy a file, unless it is there; go on with it where a local disk has its beginning.

    Parameters
    ----------
    source : Store
    entry : FileEntry
        One of its files.
    target : Target
    advance : callable
        Called with numbers of bytes; it may raise, to stop.

    Returns
    -------
    int
        Bytes read from the source.

    Raises
    ------
    StoreError
        If the file cannot be read or is damaged; there is nothing at its place in the target then.
    """
    is_noted = target.is_local or target.note_on(entry.path) == entry.sha256.encode()
    if is_noted and target.holds(entry):
        advance(entry.bytes)
        return 0
    with SourceFiles(source) as files:
        if target.is_local:
            _copy_to_disk(files, entry, target, advance)
        else:
            _copy_away(files, entry, target, advance)
        return files.read_bytes


def _copy_to_disk(files: SourceFiles, entry: FileEntry, target: Target, advance: Advance) -> None:
    part = target.part(entry.path)
    kept = part.stat().st_size if part.is_file() else 0
    if kept > entry.bytes:
        kept = 0
    digest = hash_of(part, kept) if kept else hashlib.sha256()
    advance(kept)
    with open(part, "ab" if kept else "wb") as written:
        for chunk in files.chunks(entry.path, kept, entry.bytes):
            written.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    if digest.hexdigest() == entry.sha256:
        put_in_place(part, target.path(entry.path))
        return
    part.unlink()
    if not kept:
        raise _damaged(files, entry)
    advance(-entry.bytes)
    _copy_to_disk(files, entry, target, advance)  # the beginning that lay here may be what is damaged


def _copy_away(files: SourceFiles, entry: FileEntry, target: Target, advance: Advance) -> None:
    digest = hashlib.sha256()
    with target.new_file(entry.path) as written:
        for chunk in files.chunks(entry.path, 0, entry.bytes):
            written.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
        if digest.hexdigest() != entry.sha256:
            raise _damaged(files, entry)
    target.note(entry.path, entry.sha256.encode())


def _damaged(files: SourceFiles, entry: FileEntry) -> StoreError:
    return StoreError(
        f"{join_url(files.store.url, entry.path)}: the file is damaged: its hash is not the one in the manifest;"
        f" chammi75 verify {files.store.url} names the images that are hit; the copy is not finished"
    )
