"""Which metadata table of a published layout is read: the one that is named, else the one that says most.

The full table of the bucket may say of most images that they exist and not which files they are; it is read all the
same, the others say it for those that they have, and the rest is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chammi75.errors import ChammiError, ReadError
from chammi75.files import StorageOptions, absolute_url, exists, is_local, join_url
from chammi75.readers.published.csv_rows import PublishedProblem, PublishedRows, read_rows, table_name
from chammi75.readers.published.files import PLANES_FOLDER, safe_paths
from chammi75.readers.published.root import PublishedRoot, archive_folder, is_archive

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class ReadTables:
    """The table that is read, and the others.

    Parameters
    ----------
    chosen : PublishedRows
        The table.
    others : list of PublishedRows
        Those that were read to choose it.
    unread : list of str
        URLs of those that were not looked at, because the table was named.
    problems : list of PublishedProblem
        Tables that cannot be read.
    """

    chosen: PublishedRows
    others: list[PublishedRows]
    unread: list[str]
    problems: list[PublishedProblem]

    @property
    def states_paths(self) -> bool:
        """Whether a table that was read has the column that says which files are the rows'."""
        return any(table.has_paths for table in (self.chosen, *self.others))

    def read_others(self, storage_options: StorageOptions | None) -> list[PublishedRows]:
        """All other tables; those that were not looked at are read now."""
        for url in self.unread:
            try:
                self.others.append(read_rows(url, storage_options))
            except ReadError as error:
                self.problems.append(_unreadable(error))
        self.unread = []
        return self.others


def read_tables(
    found: PublishedRoot, metadata: str | None, storage_options: StorageOptions | None, inside: pa.Array | None = None
) -> ReadTables:
    """Read the metadata table of a layout.

    Parameters
    ----------
    found : PublishedRoot
        The layout.
    metadata : str, optional
        The table's name in the layout, its name beside the archive, or its URL. By default the table that has most
        rows, of equal ones the one that states most files; for an archive, the one that states most of its files.
    storage_options : mapping, optional
        For the filesystem.
    inside : pyarrow.LargeStringArray, optional
        The files of the archive, relative to the root.

    Raises
    ------
    ChammiError
        If there is no table, or it cannot be read.
    """
    if metadata:
        named = metadata_url(found, metadata, storage_options)
        others = [url for url in found.metadata_urls if url != named]
        return ReadTables(read_rows(named, storage_options), [], others, [])
    tables: list[PublishedRows] = []
    failures: list[ReadError] = []
    for url in found.metadata_urls:
        try:
            tables.append(read_rows(url, storage_options))
        except ReadError as error:
            failures.append(error)
    if not tables:
        if failures:
            raise failures[0]
        raise ChammiError(
            f"{found.root}: {PLANES_FOLDER}/ is there, but no *_metadata.csv with the published columns that says what"
            " its files are: name the table with metadata="
        )
    chosen = max(tables, key=lambda table: _stated(table, inside))
    return ReadTables(
        chosen, [table for table in tables if table is not chosen], [], [_unreadable(error) for error in failures]
    )


def _stated(table: PublishedRows, inside: pa.Array | None) -> tuple[int, int]:
    """How many rows a table has, and files it states; for an archive, how many of its files, and how few others."""
    from pyarrow import compute as pc

    stated = len(table.path) - table.path.null_count
    if inside is None:
        return len(table.path), stated
    paths, _ = safe_paths(table.path)
    return int(pc.sum(pc.is_in(inside, value_set=paths)).as_py() or 0), -stated


def _unreadable(error: ReadError) -> PublishedProblem:
    return PublishedProblem("unreadable", table_name(error.path), error.reason)


def metadata_url(found: PublishedRoot, metadata: str, storage_options: StorageOptions | None) -> str:
    """The URL of the table that is named ``metadata``.

    Raises
    ------
    ChammiError
        If there is no such table.
    """
    if not is_local(metadata):
        return metadata
    if not Path(metadata).is_absolute():
        folders = [found.root, archive_folder(found.root)] if is_archive(found.root) else [found.root]
        for url in (
            *(url for url in found.metadata_urls if table_name(url) == metadata),
            *(join_url(folder, metadata) for folder in folders),
        ):
            if exists(url, storage_options):
                return url
    if not exists(metadata):
        known = ", ".join(table_name(url) for url in found.metadata_urls) or "none"
        raise ChammiError(
            f"{metadata}: there is no such metadata table, neither in {found.root} (there: {known}) nor as a path"
        )
    return absolute_url(metadata)
