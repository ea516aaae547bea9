"""Plans a build from the published CHAMMI-75 layout: the table says everything, so that no file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from chammi75.build.cards import card_hashes
from chammi75.build.planned import BuildPlan, Finding, PlaneSource, PlannedImage
from chammi75.errors import ChammiError
from chammi75.files import StorageOptions, join_url
from chammi75.readers.published import PublishedTable, open_published
from chammi75.readers.published.csv_rows import table_name
from chammi75.readers.published.files import list_folder
from chammi75.schemas.record import ImageRecord

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE = "chammi75"
"""Under this name a store's manifest has the hash of the published table."""

_BLOCK_IMAGES = 64
_MOST_FINDINGS = 1000  # of one kind: a table that states no files has millions of rows


class PublishedPlan(Sequence[PlannedImage]):
    """The planned images of a published table, made one by one when they are asked for.

    Three million planned images as objects would fill tens of gigabytes; as Arrow rows they take one or two. Going
    through them in order takes about 0.15 ms for an image, because rows are read in blocks; any other order about twice
    that.

    Parameters
    ----------
    root : str
        URL that the paths are relative to.
    records : pyarrow.Table
        One row per image, as ``chammi75.schemas.arrow.record_schema``.
    guidance : pyarrow.ChunkedArray
        list<string>, shape (images,): each plane's guidance file, null where there is none.
    """

    def __init__(self, root: str, records: pa.Table, guidance: pa.ChunkedArray) -> None:
        self._root = root
        self._table = records.append_column("guidance", guidance)
        self._block: tuple[int, list[dict[str, Any]]] = (0, [])  # replaced as a whole: threads may read along

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> PlannedImage: ...

    @overload
    def __getitem__(self, index: slice) -> PublishedPlan: ...

    def __getitem__(self, index: int | slice) -> PlannedImage | PublishedPlan:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                part = self._table.slice(start, max(0, stop - start))
            else:
                part = self._table.take(np.arange(start, stop, step))
            return PublishedPlan(self._root, part.drop_columns(["guidance"]), part["guidance"])
        position = range(len(self))[index]  # raises IndexError, and counts negative ones from the end
        first, rows = self._block
        if first <= position < first + len(rows):
            return self._planned(rows[position - first])
        in_order = position == first + len(rows)
        rows = self._table.slice(position, _BLOCK_IMAGES if in_order else 1).to_pylist()
        self._block = (position, rows)
        return self._planned(rows[0])

    def __iter__(self) -> Iterator[PlannedImage]:
        for start in range(0, len(self), _BLOCK_IMAGES):
            for row in self._table.slice(start, _BLOCK_IMAGES).to_pylist():
                yield self._planned(row)

    def _planned(self, row: dict[str, Any]) -> PlannedImage:
        values = dict(row)
        guidance = values.pop("guidance")
        record = ImageRecord.model_validate(values)
        planes = tuple(PlaneSource(join_url(self._root, path)) for path in record.storage.path if path is not None)
        if not any(guidance):
            return PlannedImage(record, planes)
        urls = tuple(None if path is None else join_url(self._root, path) for path in guidance)
        return PlannedImage(record, planes, urls)


def plan_published(
    url: str | os.PathLike[str],
    *,
    metadata: str | None = None,
    split: str = "train",
    codec: str = "zstd",
    shard_bytes: int = 512 * 2**20,
    storage_options: StorageOptions | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> BuildPlan:
    """Plan a store of the published layout.

    Parameters
    ----------
    url : str or path
        The folder, the one above it, or a zip archive: a local path or any URL that fsspec knows.
    metadata : str, optional
        Name of the table in the folder, in the archive or beside it, or its URL. By default that ``*_metadata.csv``
        which states most files.
    split : str
        Split of the images.
    codec : str
        ``"zstd"`` for training, ``"deflate"`` for exchange.
    shard_bytes : int
        Decoded bytes per shard, at most (one image at least).
    storage_options : mapping, optional
        Options for the filesystem.
    cache_dir : str or path, optional
        Where the index of the table is kept.

    Returns
    -------
    BuildPlan
        Its images are made when asked for; rows without a file, files that are not there, channels that are missing and
        everything else that did not fit are findings.

    Raises
    ------
    ChammiError
        If there is no published layout, its table cannot be read, or not one image of it is there.
    """
    from pyarrow import compute as pc

    table, _ = open_published(url, metadata=metadata, storage_options=storage_options, cache_dir=cache_dir)
    findings = (
        *(Finding(*problem) for problem in table.problems),
        *_unresolved(table.unresolved, table_name(table.metadata_url)),
        *_missing(table, storage_options),
    )
    if not len(table.records):
        reasons = "; ".join(f"{finding.path}: {finding.reason}" for finding in findings[:3]) or "the table has no rows"
        raise ChammiError(f"{table.metadata_url}: not one image of this table can be built ({reasons})")
    return BuildPlan(
        source=SOURCE,
        split=split,
        images=PublishedPlan(table.root, table.records, table.guidance),
        pixel_bytes=_pixel_bytes(table.records),
        findings=findings,
        recipe_sha256=table.metadata_sha256,
        codec=codec,
        shard_bytes=shard_bytes,
        groups=_groups(table.records),
        cards=card_hashes(pc.unique(pc.struct_field(table.records["provenance"], "source")).to_pylist()),
    )


def _geometry(records: pa.Table, field: str) -> np.ndarray:
    from pyarrow import compute as pc

    return np.asarray(pc.struct_field(records["geometry"], field).to_numpy(), np.int64)


def _pixel_bytes(records: pa.Table) -> np.ndarray:
    """Decoded size of each image, shape (images,), int64."""
    from pyarrow import compute as pc

    width, height, channels = (_geometry(records, field) for field in ("width", "height", "channels"))
    wide = pc.equal(pc.struct_field(records["geometry"], "dtype"), "uint16").to_numpy()
    return np.asarray(width * height * channels * np.where(wide, 2, 1))


def _groups(records: pa.Table) -> tuple[str, ...]:
    import pyarrow as pa
    from pyarrow import compute as pc

    studies = pa.table(
        {
            "study": pc.struct_field(records["provenance"], "source"),
            "channels": pc.struct_field(records["geometry"], "channels"),
        }
    )
    counted = studies.group_by("study", use_threads=False).aggregate([("channels", "count"), ("channels", "sum")])
    return tuple(
        f"{row['study']}: {row['channels_count']} images, {row['channels_sum']} planes" for row in counted.to_pylist()
    )


def _unresolved(rows: pa.Table, name: str) -> Iterator[Finding]:
    """One finding per image that has rows without a file."""
    grouped = rows.group_by("imaging.multi_channel_id", use_threads=False)
    images = grouped.aggregate([("imaging.channel", "list"), ("row", "min")])
    if len(images) > _MOST_FINDINGS:
        more = len(images) - _MOST_FINDINGS
        yield Finding("unresolved", name, f"{more} more images are not named here: no table states a file of theirs")
    for image in images.slice(0, _MOST_FINDINGS).to_pylist():
        channels = ", ".join(map(str, image["imaging.channel_list"]))
        reason = f"no table states the file of its channels {channels} (row {image['row_min']} of {name})"
        yield Finding("unresolved", image["imaging.multi_channel_id"], reason)


def _missing(table: PublishedTable, storage_options: StorageOptions | None) -> Iterator[Finding]:
    """One finding per file that is not there; one per folder that is not there (a copy of some studies only)."""
    import pyarrow as pa
    from pyarrow import compute as pc

    rows = table.missing_files
    if not len(rows):
        return
    folders = pc.replace_substring_regex(rows["storage.path"], r"/?[^/]*$", "")
    counted = pa.table({"folder": folders}).group_by("folder", use_threads=False).aggregate([([], "count_all")])
    absent = [
        (row["folder"], row["count_all"])
        for row in counted.to_pylist()
        if list_folder(join_url(table.root, row["folder"]), storage_options) is None
    ]
    for folder, count in absent:
        yield Finding("unreadable", folder, f"the folder is not there; the table states {count} files in it")
    names = pa.array([folder for folder, _ in absent], folders.type)
    single = rows.filter(pc.invert(pc.is_in(folders, value_set=names)))
    if len(single) > _MOST_FINDINGS:
        more = len(single) - _MOST_FINDINGS
        yield Finding("unreadable", table_name(table.metadata_url), f"{more} more files that it states are not there")
        single = single.slice(0, _MOST_FINDINGS)
    for path, row in zip(single["storage.path"].to_pylist(), single["row"].to_pylist(), strict=True):
        yield Finding("unreadable", path, f"the file is not there (row {row} of {table_name(table.metadata_url)})")
