"""The index of a published layout, kept in the cache: made once out of the tables, then memory-mapped.

One file per layout: Arrow streams, a JSON text that says what they are made of, and where it stands. It is written
beside its place and moved there, so that several processes may do it at once. Whatever is wrong with it, it is made
anew; where it cannot be kept, everything works without.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chammi75.cache import cache_folder
from chammi75.errors import ChammiError, ChammiWarning, warn
from chammi75.files import StorageOptions, absolute_url, explain, is_local, join_url, look_afresh, reading_errors
from chammi75.readers.published.csv_rows import PublishedProblem
from chammi75.readers.published.files import folder_stamp
from chammi75.readers.published.root import archive_url
from chammi75.readers.published.stamps import declarations_digest, layout_stamps
from chammi75.readers.published.table import PublishedTable, read_published
from chammi75.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
_MAGIC = b"CHAMMI75-INDEX\0\0"
_END = struct.Struct("<QI16s")  # bytes of the JSON text, its CRC-32, magic
_ALIGNMENT = 64
_BLOCK = 2**20
_CHECKED_BLOCKS = 16  # of each part; larger parts are sampled, so that opening takes milliseconds
_SECTIONS = ("records", "unresolved", "missing_files", "problems")


class CacheWarning(ChammiWarning):
    """The index of a published layout cannot be kept; it is read anew each time."""


@dataclass(frozen=True)
class IndexFile:
    """A cached index: its path, and the identity that it must have to be the same."""

    path: str
    identity: str


def open_published(
    url: str | os.PathLike[str],
    *,
    metadata: str | None = None,
    storage_options: StorageOptions | None = None,
    check_files: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[PublishedTable, IndexFile | None]:
    """Read the metadata of a published layout, or open what was kept of it.

    What was kept holds as long as the tables have the same ETag, or size and time; for a local folder, as long as no
    folder of planes or guidance that it names has changed either; for an archive, as long as that is the same.

    Parameters
    ----------
    url, metadata, storage_options, check_files
        As of ``read_published``.
    cache_dir : str or path, optional
        The cache folder.

    Returns
    -------
    table : PublishedTable
    file : IndexFile or None
        Where it lies in the cache; None if it could not be kept.

    Raises
    ------
    ChammiError
        As of ``read_published``.
    """
    place = absolute_url(url)
    look_afresh(place, storage_options)
    try:
        archive = archive_url(place, storage_options)
        stamps = layout_stamps(place, archive, metadata, storage_options)
    except reading_errors() as error:
        raise ChammiError(f"{place} cannot be opened: {explain(error, place, storage_options)}") from error
    settings = [archive or place, metadata, check_files]
    key = _digest([FORMAT, __version__, _schema_text(), declarations_digest(), settings, stamps])
    path = cache_folder(cache_dir).absolute() / "published" / f"{_digest(settings)[:16]}-{key[:32]}.arrow"
    if stamps is not None:
        kept = _kept(path, key)
        if kept is not None:
            return kept
    table = read_published(place, metadata=metadata, storage_options=storage_options, check_files=check_files)
    if stamps is None:
        return table, None
    try:
        _write(path, key, table)
    except OSError as error:
        warn(
            f"the index of {place} cannot be kept in {path.parent} ({error.strerror or error}); it is read anew each"
            " time. Set CHAMMI75_CACHE, or give another cache_dir",
            CacheWarning,
        )
        return table, None
    return _kept(path, key) or (table, None)


def reopen(file: IndexFile) -> PublishedTable:
    """Open a cached index in another process.

    Raises
    ------
    ChammiError
        If it is not there any more, or another one by now.
    """
    found = _read(Path(file.path))
    if found is None or found[1]["identity"] != file.identity:
        raise ChammiError(
            f"{file.path}: the cached index of a published dataset was changed or removed since the dataset was opened;"
            " call load_dataset again"
        )
    return _table(*found)


def _schema_text() -> str:
    from chammi75.schemas.arrow import record_schema

    return str(record_schema())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _kept(path: Path, key: str) -> tuple[PublishedTable, IndexFile] | None:
    found = _read(path)
    if found is None or found[1]["key"] != key:
        return None
    about = found[1]
    if is_local(about["root"]):
        for folder, changed in about["stamps"].items():
            if folder_stamp(join_url(about["root"], folder)) != changed:
                return None
    return _table(*found), IndexFile(str(path), about["identity"])


def _read(path: Path) -> tuple[dict[str, pa.Table], dict[str, Any]] | None:
    """The tables and the description in a file; None if there is none, or it is none of ours, or damaged."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            content = mapped.read_buffer()
        length, checksum, magic = _END.unpack(content.slice(content.size - _END.size))
        text = content.slice(content.size - _END.size - length, length).to_pybytes()
        if magic != _MAGIC or zlib.crc32(text) != checksum:
            return None
        about = json.loads(text)
        tables = {}
        for name in _SECTIONS:
            offset, size, crc = about["sections"][name]
            part = content.slice(offset, size)
            if part.size != size or _sampled_crc(part) != crc:
                return None
            tables[name] = pa.ipc.open_stream(part).read_all()
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):  # pyarrow's own are ValueErrors
        return None
    return tables, about


def _table(tables: dict[str, pa.Table], about: dict[str, Any]) -> PublishedTable:
    records = tables["records"]
    return PublishedTable(
        about["root"],
        about["metadata_url"],
        about["metadata_sha256"],
        about["files_sha256"],
        records.drop_columns(["guidance"]),
        records["guidance"],
        tables["unresolved"],
        tables["missing_files"],
        tuple(PublishedProblem(*problem.values()) for problem in tables["problems"].to_pylist()),
        about["counts"],
        about["stamps"],
    )


def _sampled_crc(content: pa.Buffer) -> int:
    """CRC-32 of a part, or of blocks of it where it is large: its beginning, its end, and some between."""
    crc, last = 0, max(0, content.size - _BLOCK)
    blocks = -(-content.size // _BLOCK)
    starts = range(0, content.size, _BLOCK) if blocks <= _CHECKED_BLOCKS else _spread(last)
    for start in starts:
        crc = zlib.crc32(content.slice(start, min(_BLOCK, content.size - start)), crc)
    return crc


def _spread(last: int) -> Iterator[int]:
    return (last * k // (_CHECKED_BLOCKS - 1) for k in range(_CHECKED_BLOCKS))


def _write(path: Path, key: str, table: PublishedTable) -> None:
    import pyarrow as pa

    parts = {
        "records": table.records.append_column("guidance", table.guidance),
        "unresolved": table.unresolved,
        "missing_files": table.missing_files,
        "problems": pa.table(
            {
                name: pa.array([getattr(problem, name) for problem in table.problems], pa.string())
                for name in PublishedProblem._fields
            }
        ),
    }
    about: dict[str, Any] = {
        "key": key,
        "identity": _digest([key, table.metadata_sha256, table.files_sha256, dict(table.counts), dict(table.stamps)]),
        "root": table.root,
        "metadata_url": table.metadata_url,
        "metadata_sha256": table.metadata_sha256,
        "files_sha256": table.files_sha256,
        "counts": dict(table.counts),
        "stamps": dict(table.stamps),
        "sections": {},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(partial, "w+b") as file:
            for name, part in parts.items():
                about["sections"][name] = _append(file, part)
            text = json.dumps(about).encode()
            file.write(text + _END.pack(len(text), zlib.crc32(text), _MAGIC))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _remove_older(path)


def _append(file: IO[bytes], part: pa.Table) -> tuple[int, int, int]:
    """Write a table as an Arrow stream; where it begins, its bytes, and its checksum."""
    import pyarrow as pa

    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    start = file.tell()
    with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), part.schema) as writer:
        writer.write_table(part)
    file.flush()
    size = file.tell() - start
    with pa.memory_map(file.name) as mapped:
        return start, size, _sampled_crc(mapped.read_buffer().slice(start, size))


def _remove_older(path: Path) -> None:
    """Remove what was kept of earlier states of the same layout, and what was left half written.

    Who has it open keeps it.
    """
    slot = path.name.partition("-")[0]
    for other in (*path.parent.glob(f"{slot}-*.arrow"), *path.parent.glob(f".{slot}-*.part")):
        with suppress(OSError):  # another process removed it, or has it open where that forbids it
            if other != path and other.stat().st_mtime < time.time() - _KEPT_S:
                other.unlink()


_KEPT_S = 24 * 3600  # workers that start later open it by its name
