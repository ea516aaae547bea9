"""Parquet as Hugging Face datasets writes it: ``data/<split>-00000.parquet`` and a dataset card.

A row is an image: the record's groups, ``planes`` (a ``List(Image())``: one TIFF or PNG per channel, in the bytes) and
``annotation``. Feature types are in the schema's metadata and in the card, so ``datasets.load_dataset`` on the folder
shows pictures without this library; polars, DuckDB and pyarrow read the same columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from chammi75.export.card import WrittenSplit, dataset_card
from chammi75.export.report import EXPORT, ExportReport, report_json
from chammi75.export.samples import Advance, Export, Sample, Selections
from chammi75.export.target import ExportTarget, new_export
from chammi75.files import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from chammi75.store.writer import HashingFile

SHARD_BYTES = 500 * 10**6
"""A file holds at most this many bytes of planes (but one image at least): what the Hub asks for."""
ROW_GROUP_BYTES = 32 * 10**6
"""A row group holds at most this many bytes of planes (but one image at least): so much is read to show one row."""

CARD = "README.md"


def export(
    selections: Selections,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    title: str | None = None,
    license: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ExportReport:
    """Write images as Parquet.

    Parameters
    ----------
    selections : Selection or sequence of Selection
    out : str or path
        A new or empty folder, or any fsspec URL.
    storage_options : mapping, optional
        For the filesystem of ``out``.
    workers : int
        Threads; the files do not depend on it.
    advance : callable, optional
        Called with 1 for each image.
    title : str, optional
        Title of the card.
    license : str, optional
        SPDX licence of the images whose records state none, for the card.
    shard_bytes : int
        Bytes of planes in a file, at most (one image at least).

    Returns
    -------
    ExportReport

    Raises
    ------
    ChammiError
        If the target is not new or empty, or not one image could be read.
    """
    with new_export(out, storage_options) as target:
        work: Export[Any] = Export("parquet", selections, target, workers, advance)
        splits = write_shards(work, target, shard_bytes=shard_bytes)
        report = work.report()
        target.write_last(CARD, dataset_card(report, splits, title or default_title(report), license))
        target.write_last(EXPORT, report_json(report))
    return report


def default_title(report: ExportReport) -> str:
    """What an export is called if nobody says."""
    names = list(dict.fromkeys(origin.name for origin in report.origins))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Microscopy images of {shown}"


def write_shards(
    export: Export[Any], target: ExportTarget, *, shard_bytes: int = SHARD_BYTES, group_bytes: int = ROW_GROUP_BYTES
) -> list[WrittenSplit]:
    """Write the images to ``data/``, split by split."""
    written: list[WrittenSplit] = []
    with ExitStack() as stack:
        shards: _Shards | None = None
        for sample, row in export.made(row_of):
            if shards is None or shards.split != sample.split:
                if shards is not None:
                    written.append(shards.close())
                shards = _Shards(target, sample.split, shard_bytes, group_bytes)
                stack.callback(shards.abandon)
            shards.add(*row)
        if shards is not None:
            written.append(shards.close())
    return written


def row_of(sample: Sample) -> tuple[pa.RecordBatch, int]:
    """An image as one row of a shard (``chammi75.schemas.arrow.shard_schema``), and the bytes of its planes."""
    import pyarrow as pa

    from chammi75.schemas.arrow import shard_schema

    planes = exchanged_planes(sample)
    cells = sample.cells()
    values = {
        **sample.record,
        "planes": [{"bytes": plane, "path": None} for plane in planes],
        "annotation": None
        if cells is None
        else {
            "centroids": [None if entry is None else entry.centroids.tolist() for entry in cells],
            "sizes": [None if entry is None else entry.sizes.tolist() for entry in cells],
        },
    }
    schema = shard_schema()
    columns = [pa.array([values[entry.name]], entry.type) for entry in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema), sum(len(plane) for plane in planes)


def exchanged_planes(sample: Sample) -> list[bytes]:
    """The planes as files that everybody reads: TIFF with deflate, or the source's own PNG; each was decoded once.

    Raises
    ------
    ChammiError
        If a plane is damaged.
    """
    planes = []
    for number, content in enumerate(sample.image.encoded_planes()):
        pixels = sample.image[number]
        planes.append(as_deflate_tiff(content, pixels) if content[:4] == b"II*\0" else content)
    return planes


def as_deflate_tiff(content: bytes, pixels: NDArray[Any]) -> bytes:
    """A plane as a TIFF with deflate: ``content``, which holds ``pixels``, if it is one."""
    from chammi75.store.plane import encode_plane, parse_head

    is_one = content[:4] == b"II*\0" and parse_head(content).codec == "deflate"
    return content if is_one else encode_plane(pixels, "deflate")


@dataclass
class _Shards:
    """The files of a split, one after the other."""

    target: ExportTarget
    split: str
    shard_bytes: int
    group_bytes: int
    number: int = 0
    rows: int = 0
    bytes: int = 0
    _open: ExitStack = field(default_factory=ExitStack)
    _writer: Any = None
    _in_shard: int = 0
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _waiting_bytes: int = 0

    def add(self, row: pa.RecordBatch, size: int) -> None:
        if self._writer is not None and self._in_shard + size > self.shard_bytes:
            self._end_shard()
        if self._waiting and self._waiting_bytes + size > self.group_bytes:
            self._end_group()
        if self._writer is None:
            path = f"data/{self.split}-{self.number:05d}.parquet"
            self._file = self._open.enter_context(self.target.create(path))
            self._writer = _parquet_writer(self._file)
        self._waiting.append(row)
        self._waiting_bytes += size
        self._in_shard += size
        self.rows += 1
        self.bytes += row.nbytes

    def close(self) -> WrittenSplit:
        if self._writer is not None:
            self._end_shard()
        return WrittenSplit(self.split, self.rows, self.bytes)

    def abandon(self) -> None:
        """Let go of a file that is not whole: pyarrow must not write a footer to it later on."""
        if self._writer is not None:
            import io

            self._file.target = io.BytesIO()
            self._writer.close()
            self._writer = None

    def _end_group(self) -> None:
        import pyarrow as pa

        if self._waiting:
            table = pa.Table.from_batches(self._waiting).combine_chunks()
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting, self._waiting_bytes = [], 0

    def _end_shard(self) -> None:
        self._end_group()
        self._writer.close()
        self._writer = None
        self._open.close()
        self.number += 1
        self._in_shard = 0


def _parquet_writer(file: HashingFile) -> Any:
    """Planes are compressed already; words repeat."""
    import pyarrow.parquet as pq

    from chammi75.schemas.arrow import shard_schema

    schema = shard_schema()
    leaves = list(_leaves(schema))
    pictures = [name for name in leaves if name.startswith("planes.") and name.endswith(".bytes")]
    words = [name for name in leaves if name not in pictures and not name.startswith("annotation.")]
    return pq.ParquetWriter(
        file,
        schema,
        compression={name: "none" if name in pictures else "snappy" for name in leaves},
        use_dictionary=words,
        write_statistics=words,
        write_page_index=True,
    )


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Paths of the Parquet columns of an Arrow schema."""
    import io

    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    columns = pq.ParquetFile(file).schema
    for number in range(len(columns)):
        yield columns.column(number).path


def split_files(paths: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split.

    Examples
    --------
    >>> split_files(["data/train-00000.parquet", "data/test-00000.parquet"])
    {'train': ['data/train-00000.parquet'], 'test': ['data/test-00000.parquet']}
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path.rsplit("/", 1)[-1].rsplit("-", 1)[0], []).append(path)
    return found
