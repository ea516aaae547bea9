"""Reading parts of a store's files: which are asked for together, and how."""

from __future__ import annotations

import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from chammi75.errors import ChammiError, StoreError
from chammi75.files import filesystem_of, is_local, join_url, open_url, reading_errors
from chammi75.store.reader import Store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 4 * 2**20
_AT_ONCE = 4
_WASTE = 1 / 16
"""Bytes that nobody wants, against those wanted, that are read to save requests."""


def coalesce(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Few ranges that cover many: the smallest gaps are read too, while they add up to a sixteenth of what is wanted.

    Parameters
    ----------
    ranges : sequence of (int, int)
        (offset, length), in any order.

    Returns
    -------
    list of (int, int)
        In ascending order, without overlap.

    Examples
    --------
    >>> coalesce([(0, 100), (100, 50), (155, 50), (900, 50)])
    [(0, 205), (900, 50)]
    """
    if not ranges:
        return []
    spans = np.array(sorted(ranges), np.int64)
    starts, ends = spans[:, 0], np.maximum.accumulate(spans.sum(axis=1))
    gaps = np.maximum(starts[1:] - ends[:-1], 0)
    order = np.argsort(gaps, kind="stable")
    closed = np.zeros(len(gaps), bool)
    closed[order] = np.cumsum(gaps[order]) <= spans[:, 1].sum() * _WASTE
    first = np.flatnonzero(np.append(True, ~closed))
    last = np.append(first[1:] - 1, len(spans) - 1)
    return [(int(start), int(end - start)) for start, end in zip(starts[first], ends[last], strict=True)]


class SourceFiles:
    """Files of one store, open for reading of parts; for one thread at a time. Errors say which file it is.

    Over a network that answers several requests at once, all ranges are asked for concurrently; elsewhere a file is
    opened once and read onwards.

    Parameters
    ----------
    store : Store

    Attributes
    ----------
    read_bytes : int
        Bytes read so far.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.read_bytes = 0
        self._opened = ExitStack()
        self._file: tuple[str, IO[Any]] | None = None
        self._concurrent: AbstractFileSystem | None = None
        if not is_local(store.url):
            filesystem, _ = filesystem_of(store.url, store.storage_options)
            self._concurrent = filesystem if filesystem.async_impl else None

    def __enter__(self) -> SourceFiles:
        return self

    def __exit__(self, *failure: object) -> None:
        self._opened.close()

    def parts(self, ranges: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Parts]:
        """What is in some ranges (offset, length) of some files, by their paths in the store.

        Raises
        ------
        StoreError
            If a file cannot be read, or ends before.
        """
        spans = {path: coalesce(wanted) for path, wanted in ranges.items()}
        contents = iter(self._read([(path, offset, length) for path in spans for offset, length in spans[path]]))
        return {path: Parts(spans[path], [next(contents) for _ in spans[path]]) for path in spans}

    def chunks(self, path: str, start: int, size: int) -> Iterator[Any]:
        """A file from ``start`` to ``size``, in pieces of at most 4 MB.

        Raises
        ------
        StoreError
            If the file cannot be read, or ends before.
        """
        at_once = _AT_ONCE if self._concurrent is not None else 1
        for window in range(start, size, CHUNK_BYTES * at_once):
            end = min(window + CHUNK_BYTES * at_once, size)
            offsets = range(window, end, CHUNK_BYTES)
            yield from self._read([(path, offset, min(CHUNK_BYTES, end - offset)) for offset in offsets])

    def _read(self, spans: Sequence[tuple[str, int, int]]) -> list[Any]:
        if self._concurrent is not None:
            with source_errors(self.store.url):
                places = [self._concurrent._strip_protocol(join_url(self.store.url, path)) for path, _, _ in spans]
                starts = [offset for _, offset, _ in spans]
                ends = [offset + length for _, offset, length in spans]
                parts = self._concurrent.cat_ranges(places, starts, ends, on_error="raise")
        else:
            parts = [self._read_one(path, offset, length) for path, offset, length in spans]
        for (path, offset, length), part in zip(spans, parts, strict=True):
            self.read_bytes += len(part)
            if len(part) != length:
                raise StoreError(
                    f"{join_url(self.store.url, path)}: the file is damaged: it is cut short, bytes {offset} to"
                    f" {offset + length} are not there; the copy is not finished"
                )
        return list(parts)

    def _read_one(self, path: str, offset: int, length: int) -> bytes:
        url = join_url(self.store.url, path)
        with source_errors(url):
            if self._file is None or self._file[0] != path:
                self._opened.close()
                self._file = path, self._opened.enter_context(open_url(url, "rb", self.store.storage_options))
            self._file[1].seek(offset)
            parts = []
            while length:  # an unbuffered file may give less than was asked for
                part = self._file[1].read(length)
                if not part:
                    break
                parts.append(part)
                length -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)


class Parts:
    """Parts of a file, in memory."""

    def __init__(self, spans: Sequence[tuple[int, int]], parts: Sequence[Any]) -> None:
        self._starts = [offset for offset, _ in spans]
        self._parts = [memoryview(part) for part in parts]

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the file that lie in one of the ranges asked for."""
        number = bisect_right(self._starts, offset) - 1
        start = offset - self._starts[number]
        return self._parts[number][start : start + length]


@contextmanager
def source_errors(url: str) -> Iterator[None]:
    """Say of what cannot be read which file it is, and that what was copied is kept."""
    try:
        yield
    except ChammiError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{url}: a file of the store is missing; the copy is not finished") from error
    except reading_errors() + (zipfile.BadZipFile, zlib.error) as error:  # noqa: RUF005 - mypy knows this type
        raise StoreError(
            f"{url}: it cannot be read ({error}); what was copied so far is kept: run the same copy again to go on"
        ) from error
