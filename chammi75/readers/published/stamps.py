"""What a published layout looks like from outside: which tables there are, and when each changed last.

As long as this is the same, an index that was made of the tables holds; nothing of a table is read to see it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chammi75.declarations import declarations_folder
from chammi75.files import (
    StorageOptions,
    absolute_url,
    filesystem_of,
    is_local,
    join_url,
    local_path,
    reading_errors,
)
from chammi75.readers.published.files import (
    GUIDANCE_FOLDER,
    LEADING_FOLDER,
    METADATA_SUFFIX,
    PLANES_FOLDER,
    folder_stamp,
    list_folder,
)
from chammi75.readers.published.root import archive_folder

Stamps = dict[str, Any]

_TIMES = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


def layout_stamps(
    url: str, archive: str | None, metadata: str | None, storage_options: StorageOptions | None
) -> Stamps | None:
    """The state of all that decides what the tables say.

    Parameters
    ----------
    url : str
        The folder or the archive.
    archive : str, optional
        The archive's inside, if it is one (``chammi75.readers.published.root.archive_url``).
    metadata : str, optional
        The table that is named.
    storage_options : mapping, optional
        For the filesystem.

    Returns
    -------
    dict or None
        None if something has neither an ETag nor a time: then nothing says whether it changed.
    """
    if archive is None:
        found = {folder: _listing(folder, storage_options) for folder in (url, join_url(url, LEADING_FOLDER))}
        stamps: Stamps | None = None if any(listing is None for listing in found.values()) else dict(found)
    else:
        file = archive.partition("::")[2]
        own = _stamp(file, storage_options)
        try:
            beside = _listing(archive_folder(archive), storage_options)
        except reading_errors():
            beside = {}  # many servers hand out files and list no folders
        stamps = None if own is None or beside is None else {file: own, "beside": beside}
    if stamps is None or metadata is None:
        return stamps
    if not is_local(metadata) or Path(metadata).is_file():
        named = _stamp(absolute_url(metadata), storage_options)
        return None if named is None else {**stamps, "metadata": named}
    return {**stamps, "metadata": metadata}  # a name among the tables that are listed


def declarations_digest() -> str:
    """SHA-256 of the cards and vocabularies from which records take words, over the bytes of their files."""
    digest = hashlib.sha256()
    catalog = declarations_folder("catalog")
    for folder in ("sources", "vocabularies"):
        for path in sorted((catalog / folder).glob("*.yaml")):
            content = path.read_bytes()
            digest.update(f"{folder}/{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _listing(folder: str, storage_options: StorageOptions | None) -> Stamps | None:
    """The tables in a folder with their stamps, and which folders of the layout are there; {} if there is none."""
    if is_local(folder):
        try:
            names = [
                entry.name
                for entry in os.scandir(local_path(folder))
                if entry.name.endswith(METADATA_SUFFIX) or entry.name in (PLANES_FOLDER, GUIDANCE_FOLDER)
            ]
        except OSError:
            return {}
        return {
            name: _stamp(join_url(folder, name), storage_options) if name.endswith(METADATA_SUFFIX) else "folder"
            for name in names
        }
    filesystem, path = filesystem_of(folder, storage_options)
    try:
        entries = filesystem.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    stamps: Stamps = {}
    for entry in entries:
        name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
        if name == PLANES_FOLDER:
            stamps[name] = "folder"
        elif name == GUIDANCE_FOLDER:  # the index knows which studies have guidance
            stamps[name] = sorted(list_folder(join_url(folder, name), storage_options) or [])
        elif name.endswith(METADATA_SUFFIX) and entry.get("type") == "file":
            stamps[name] = _of_entry(entry)
            if stamps[name] is None:
                return None
    return stamps


def _stamp(url: str, storage_options: StorageOptions | None) -> list[Any] | None:
    if is_local(url):
        changed = folder_stamp(url)
        return [local_path(url).stat().st_size, changed] if changed is not None else ["absent"]
    filesystem, path = filesystem_of(url, storage_options)
    try:
        return _of_entry(filesystem.info(path))
    except reading_errors():
        return None  # whoever reads it next says why it cannot be read


def _of_entry(entry: Mapping[str, Any]) -> list[Any] | None:
    tag = entry.get("ETag") or entry.get("etag")
    time = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if tag is None and time is None:
        return None
    return [entry.get("size"), str(tag) if tag is not None else str(time)]
