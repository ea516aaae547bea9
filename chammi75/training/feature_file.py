"""A Parquet file of features, written in parts so that an interrupted command goes on.

Parts lie in a hidden folder beside the file, each written atomically; ``job.json`` there says what they are of. Whoever
writes the last part puts them together, in order, and the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chammi75.errors import ChammiError, StoreError
from chammi75.files import write_atomically
from chammi75.store.lock import locked_folder

_KEY, _FAILED = b"chammi75", b"chammi75.failed"
_JOB = "job.json"


@dataclass(frozen=True)
class FeatureRow:
    """One row.

    Attributes
    ----------
    image_id : str
    study : str or None
    channel_types : tuple of (str or None)
    cell : int
        Number of the cell in its image, from 0; -1 where rows are images.
    x, y : float
        Its position in pixels.
    features : ndarray of float32
    """

    image_id: str
    study: str | None
    channel_types: tuple[str | None, ...]
    cell: int
    x: float
    y: float
    features: NDArray[np.float32]


class FeatureFile:
    """A file of features at work.

    Parameters
    ----------
    out : Path
    identity : mapping
        What the features are of, as JSON has it; it stands in the file's metadata.
    parts : int
    width : int or None
        Numbers in a row's features; None where rows differ.
    of_cells : bool
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], parts: int, width: int | None, of_cells: bool) -> None:
        self.out, self.parts = out, parts
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._work = out.with_name(f".{out.name}.work")
        self._schema = _schema(width, of_cells).with_metadata({_KEY: json.dumps(self._identity).encode()})

    def begin(self) -> bool:
        """Whether there is something to do; the folder of the parts is there then.

        Raises
        ------
        StoreError
            If the file, or the folder of its parts, is of something else.
        """
        if self._is_finished():
            shutil.rmtree(self._work, ignore_errors=True)
            return False
        self._work.mkdir(parents=True, exist_ok=True)
        job = self._work / _JOB
        if job.exists():
            self._compare(self._read_job(job), f"{self._work} holds parts", f"delete {self._work} to begin anew")
        else:
            write_atomically(job, json.dumps(self._identity, indent=2).encode())
        return True

    def missing(self) -> list[int]:
        """The parts that are not there yet."""
        return [part for part in range(self.parts) if not self._part(part).exists()]

    def write(self, part: int, rows: Sequence[FeatureRow], failed: Sequence[tuple[str, str]]) -> None:
        """Write a part, with the images of it that could not be read."""
        metadata = {**(self._schema.metadata or {}), _FAILED: json.dumps(list(failed)).encode()}
        schema = self._schema.with_metadata(metadata)
        columns: dict[str, list[Any]] = {
            name: [getattr(row, name) for row in rows] for name in schema.names if name != "features"
        }
        table = pa.table({**columns, "features": _features(rows, schema.field("features").type)}, schema=schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(self._part(part), sink.getvalue().to_pybytes())

    def leave_nothing(self) -> None:
        """After a failure: the folder of the parts goes, if there is no part in it."""
        with suppress(OSError), locked_folder(self._work):
            if len(self.missing()) == self.parts:
                shutil.rmtree(self._work)

    def finish(self) -> bool:
        """Put the parts together if all are there; whether the file is there then."""
        try:
            with locked_folder(self._work):
                if not self._work.exists():
                    return self._is_finished()
                if self.missing():
                    return False
                if not self._is_finished():
                    self._merge()
                shutil.rmtree(self._work)
        except FileNotFoundError:  # another rank has just put them together
            if not self._is_finished():
                raise
        return True

    def summary(self) -> tuple[int, list[tuple[str, str]]]:
        """Rows of the finished file, and the images that could not be read."""
        with pq.ParquetFile(self.out) as file:
            failed = json.loads((file.schema_arrow.metadata or {}).get(_FAILED, b"[]"))
            return int(file.metadata.num_rows), [(str(name), str(words)) for name, words in failed]

    def _merge(self) -> None:
        failed: list[Any] = []
        for part in range(self.parts):
            with pq.ParquetFile(self._part(part)) as file:
                failed += json.loads(file.schema_arrow.metadata[_FAILED])
        schema = self._schema.with_metadata({**(self._schema.metadata or {}), _FAILED: json.dumps(failed).encode()})
        partial = self.out.with_name(f".{self.out.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with open(partial, "wb") as target:
                with pq.ParquetWriter(target, schema, compression="zstd") as writer:
                    for part in range(self.parts):
                        with pq.ParquetFile(self._part(part)) as file:
                            table = file.read()
                        if table.num_rows:
                            writer.write_table(table.replace_schema_metadata(schema.metadata))
                target.flush()
                os.fsync(target.fileno())
            os.replace(partial, self.out)
        finally:
            partial.unlink(missing_ok=True)

    def _is_finished(self) -> bool:
        if not self.out.exists():
            return False
        try:
            with pq.ParquetFile(self.out) as file:
                found = (file.schema_arrow.metadata or {}).get(_KEY)
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{self.out}: there is something already, and it is no Parquet file ({error})") from error
        if found is None:
            raise StoreError(f"{self.out}: there is a file of something else already; name another, or delete it")
        self._compare(json.loads(found), f"{self.out} has features", "name another file, or delete it")
        return True

    def _compare(self, found: Any, what: str, remedy: str) -> None:
        if found == self._identity:
            return
        known = found if isinstance(found, dict) else {}
        names = [name for name in self._identity if known.get(name) != self._identity[name]]
        raise StoreError(f"{what} of another {', '.join(names) or 'command'}; {remedy}")

    def _read_job(self, job: Path) -> Any:
        try:
            return json.loads(job.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ChammiError(f"{job}: cannot be read ({error}); delete {self._work} to begin anew") from error

    def _part(self, part: int) -> Path:
        return self._work / f"part-{part:06d}.parquet"


def _schema(width: int | None, of_cells: bool) -> pa.Schema:
    fields = [("image_id", pa.string()), ("study", pa.string()), ("channel_types", pa.list_(pa.string()))]
    if of_cells:
        fields += [("cell", pa.int32()), ("x", pa.float32()), ("y", pa.float32())]
    features = pa.list_(pa.float32()) if width is None else pa.list_(pa.float32(), width)
    return pa.schema([*fields, ("features", features)])


def _features(rows: Sequence[FeatureRow], kind: pa.DataType) -> pa.Array:
    values = np.concatenate([row.features for row in rows]) if rows else np.zeros(0, np.float32)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), kind.list_size)
    ends = np.cumsum([0, *(len(row.features) for row in rows)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.float32()))
