"""The published layout as a source: one image file per channel, decoded whole, and one guidance file per channel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, ReadError, UnreachableError
from chammi75.files import explain, join_url, read_files, reading_errors
from chammi75.loading.layouts import PublishedLayout
from chammi75.loading.stream.sources import Described, Failures, Fetched, Rows, saturations_of

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_OF_A_PART = 1024
"""Images of a published layout that are taken for one shard when a window of shards is shuffled."""


class PublishedSource:
    """The published layout; see the module."""

    def __init__(self, layout: PublishedLayout) -> None:
        self._layout = layout

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._layout,)

    @property
    def url(self) -> str:
        return self._layout.url

    @cached_property
    def _channel_types(self) -> tuple[list[tuple[str | None, ...]], NDArray[np.int32]]:
        import json

        facet = self._layout.facet("channel_types")
        return [tuple(json.loads(text)) for text in facet.values], facet.codes

    @property
    def channel_type_lists(self) -> list[tuple[str | None, ...]]:
        return self._channel_types[0]

    def channel_type_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._channel_types[1][rows]

    def studies(self) -> list[str]:
        return self._layout.facet("study").values

    def study_codes(self, rows: Rows) -> NDArray[np.int32]:
        return self._layout.facet("study").codes[rows]

    def shards(self, rows: Rows) -> NDArray[np.int64]:
        return rows // _ROWS_OF_A_PART

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        import pyarrow.compute as pc

        words = pc.unique(self._geometry("dtype", rows)).to_pylist()
        return [np.dtype(word) for word in words]

    def describe(self, rows: Rows) -> Described:
        facet = self._layout.facet("study")
        kinds = [np.dtype(name) for name in self._geometry("dtype", rows).to_pylist()]
        bits = np.array([bits or 0 for bits in self._geometry("significant_bits", rows).to_pylist()], np.int64)
        lists, codes = self._channel_types
        return Described(
            image_ids=self._taken("image_id", rows).to_pylist(),
            studies=[facet.values[code] if code >= 0 else None for code in facet.codes[rows].tolist()],
            channel_types=[lists[code] for code in codes[rows].tolist()],
            heights=np.array(self._geometry("height", rows).to_pylist(), np.int64),
            widths=np.array(self._geometry("width", rows).to_pylist(), np.int64),
            dtypes=kinds,
            saturations=saturations_of(kinds, bits),
        )

    def choose_cells(
        self, rows: Rows, channels: NDArray[np.int64] | None, randoms: NDArray[np.float64], *, sizes: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Failures]:
        from chammi75.loading.guided import choose_cells
        from chammi75.readers.guidance import find_guidance

        layout = self._layout
        guidance = layout.table.guidance.take(_indices(rows)).to_pylist()
        found = np.full((len(rows), 2), np.nan), np.full(len(rows), np.nan)
        failures: Failures = {}
        for number, paths in enumerate(guidance):
            urls = [None if path is None else join_url(layout.url, path) for path in paths or ()]
            try:
                cells = find_guidance(urls, layout.storage_options)
            except ChammiError as error:
                failures[number] = error
                continue
            own = cells[channels[number]] if channels is not None and channels[number] < len(cells) else None
            meant = [own] if own is not None and len(own.xy) else [entry for entry in cells if entry is not None]
            total = np.array([sum(len(entry.xy) for entry in meant)])
            (chosen,) = choose_cells(randoms[number : number + 1], total)
            if chosen >= 0:
                found[0][number] = np.concatenate([entry.xy for entry in meant])[chosen]
                found[1][number] = np.concatenate([entry.sizes for entry in meant])[chosen]
        return *found, failures

    def fetch(self, rows: Rows, channels: NDArray[np.int64], windows: NDArray[np.int64]) -> Fetched:
        described = self.describe(rows)
        found = self._contents(rows, channels)
        return Fetched(
            names=[url for url, _ in found],
            contents=[None if isinstance(content, ChammiError) else content for _, content in found],
            windows=windows,
            shapes=np.stack([described.heights, described.widths], axis=1),
            dtypes=described.dtypes,
            failures={number: content for number, (_, content) in enumerate(found) if isinstance(content, ChammiError)},
        )

    def decode(self, fetched: Fetched, out: NDArray[Any], *, resize: bool, threads: int) -> Failures:
        from chammi75.store.resize import resize_plane

        failures = dict(fetched.failures)
        for number, content in enumerate(fetched.contents):
            if content is None:
                continue
            shape, dtype = tuple(fetched.shapes[number].tolist()), fetched.dtypes[number]
            try:
                plane = _decoded(fetched.names[number], content, shape, dtype)
            except ChammiError as error:
                failures[number] = error
                continue
            y, x, height, width = fetched.windows[number].tolist()
            part = plane[y : y + height, x : x + width]
            if resize:
                resize_plane(part, out[number])
            else:
                out[number, :height, :width] = part
        return failures

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        return False

    def _contents(self, rows: Rows, channels: NDArray[np.int64]) -> list[tuple[str, bytes | ChammiError]]:
        """The files of some planes: their URLs, and what is in them or why that cannot be said."""
        import pyarrow.compute as pc

        layout = self._layout
        paths = pc.struct_field(_chunk(layout.table.records.column("storage")), "path").take(_indices(rows)).to_pylist()
        urls = [join_url(layout.url, path[channel]) for path, channel in zip(paths, channels.tolist(), strict=True)]
        try:
            contents = read_files(urls, layout.storage_options)
        except UnreachableError:
            raise
        except reading_errors():
            return [(url, self._content(url)) for url in urls]
        return [(url, content or b"") for url, content in zip(urls, contents, strict=True)]

    def _content(self, url: str) -> bytes | ChammiError:
        try:
            (content,) = read_files([url], self._layout.storage_options)
        except FileNotFoundError:
            return ReadError(url, "the file is not there")
        except UnreachableError:
            raise
        except reading_errors() as error:
            reason = explain(error, url, self._layout.storage_options)
            return ReadError(url, f"the file cannot be read: {reason}")
        return content or b""

    def _geometry(self, name: str, rows: Rows) -> pa.Array:
        import pyarrow.compute as pc

        return pc.struct_field(_chunk(self._layout.table.records.column("geometry")), name).take(_indices(rows))

    def _taken(self, name: str, rows: Rows) -> pa.Array:
        return _chunk(self._layout.table.records.column(name)).take(_indices(rows))


def _decoded(url: str, content: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The plane in a file, if it is what the table states."""
    from chammi75.readers.registry import open_image

    with open_image(url, content=content) as reader:
        plane = reader.read_plane()
    if plane.shape != shape or plane.dtype != dtype:
        raise ReadError(
            url,
            f"the file has {plane.shape[0]} x {plane.shape[1]} pixels of {plane.dtype}, the table states"
            f" {shape[0]} x {shape[1]} of {dtype}",
        )
    return plane


def _indices(rows: Rows) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows.tolist(), pa.int64())  # an ndarray would make pyarrow import pandas, in every worker


def _chunk(column: Any) -> Any:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
