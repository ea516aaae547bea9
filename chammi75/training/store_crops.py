"""What is cut out of a store to be embedded: planned in the store's order, and read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.loading.annotation import read_cells
from chammi75.loading.crops import read_crops
from chammi75.loading.feature import MultiChannelImageFeature
from chammi75.loading.guided import DRAWS, GuidedCrop
from chammi75.loading.stream.layout_source import source_of
from chammi75.training.intake import ModelInput

if TYPE_CHECKING:
    from chammi75.loading.selection import Selection
    from chammi75.loading.stream.sources import Described, Source

Crop = Literal["whole plane", "cells"] | int

_BYTES = 2**26
"""Decoded planes that are read together, at most (one image at least)."""

_READERS = 8
"""Annotations that are read at the same time."""


@dataclass(frozen=True)
class Chunk:
    """Windows of some images of one part; a window has its place in all lists.

    Attributes
    ----------
    part : int
    selection : int
    places : list of int
        Of the images in the selection, ascending.
    windows : list of (int, int, int, int)
        y, x, height and width.
    cells : list of int
        Numbers of the cells in their image; -1 where windows are not of cells.
    centroids : list of (float, float)
        Positions (x, y) of the cells.
    images : int
        Images that are done with it.
    failed : list of (str, str)
        Images whose cells could not be read, and why.
    ends_part : bool
    """

    part: int
    selection: int
    places: list[int] = field(default_factory=list)
    windows: list[tuple[int, int, int, int]] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    centroids: list[tuple[float, float]] = field(default_factory=list)
    images: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    ends_part: bool = False


@dataclass(frozen=True)
class Read:
    """A chunk that was read; ``pixels`` lacks the windows of images that failed.

    Attributes
    ----------
    chunk : Chunk
    names : dict of int to (image id, study, channel types, pixel size)
        By place.
    pixels : list of (Tensor (K, C, H, W), list of int)
        Windows of one shape, and their numbers in the chunk.
    failed : list of (str, str)
    """

    chunk: Chunk
    names: dict[int, tuple[str, str | None, tuple[str | None, ...], float | None]]
    pixels: list[tuple[torch.Tensor, list[int]]]
    failed: list[tuple[str, str]]

    def inputs(self) -> Iterator[tuple[int, ModelInput]]:
        """Each window that was read: its number in the chunk, and what the model is given."""
        found = [
            (number, pixels) for group, numbers in self.pixels for number, pixels in zip(numbers, group, strict=True)
        ]
        for number, pixels in sorted(found, key=lambda entry: entry[0]):
            image_id, _, types, size = self.names[self.chunk.places[number]]
            yield number, ModelInput(image_id, pixels.numpy(), types, size)


class CropPlan:
    """Which windows of some selections are embedded, in parts of equally many images.

    Parts depend on selections and sizes alone, never on how many processes there are.

    Parameters
    ----------
    selections : sequence of Selection
    crop : {"whole plane", "cells"} or int
        Whole planes; a window around every cell; or a window of this edge in the middle.
    cell_crop : GuidedCrop
        How large the windows around cells are.
    part_images : int
    planes : int
        Planes that are read together, at most (one window at least).
    on_error : {"raise", "skip"}
    """

    def __init__(
        self,
        selections: Sequence[Selection],
        crop: Crop,
        cell_crop: GuidedCrop,
        *,
        part_images: int,
        planes: int,
        on_error: Literal["raise", "skip"],
    ) -> None:
        self.selections = tuple(selections)
        self._crop, self._cell_crop, self._planes, self._on_error = crop, cell_crop, planes, on_error
        self._sources: list[Source] = [source_of(chosen.layout) for chosen in selections]
        self._parts = [
            (number, first, min(first + part_images, len(chosen)))
            for number, chosen in enumerate(selections)
            for first in range(0, len(chosen), part_images)
        ]

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    @property
    def images(self) -> int:
        """How many images there are."""
        return sum(len(chosen) for chosen in self.selections)

    def images_of(self, part: int) -> int:
        """How many images a part has."""
        _, first, end = self._parts[part]
        return end - first

    def studies(self) -> list[str | None]:
        """The studies that the images are of."""
        found: set[str | None] = set()
        for chosen, source in zip(self.selections, self._sources, strict=True):
            codes = np.unique(source.study_codes(np.asarray(chosen.rows, np.int64))).tolist()
            names = source.studies()
            found.update(None if code < 0 else names[code] for code in codes)
        return sorted(found, key=lambda name: (name is None, name or ""))

    def channel_counts(self) -> set[int]:
        """The numbers of channels that the images have, of those that are taken."""
        counts: set[int] = set()
        for chosen, source in zip(self.selections, self._sources, strict=True):
            for code in np.unique(source.channel_type_codes(np.asarray(chosen.rows, np.int64))).tolist():
                counts.add(len(_kept(source.channel_type_lists[code], chosen.channel_types)))
        return counts

    def chunks(self, parts: Sequence[int]) -> Iterator[Chunk]:
        """The chunks of some parts, in order; of each part the last says so."""
        for part in parts:
            number, first, end = self._parts[part]
            rows = np.asarray(self.selections[number].rows[first:end], np.int64)
            known = self._sources[number].describe(rows)
            waiting = Chunk(part, number)
            size = planes = 0
            for place, windows in self._windows(number, first, known):
                wanted = self.selections[number].channel_types
                depth = len(_kept(known.channel_types[place - first], wanted))
                width = known.dtypes[place - first].itemsize
                if isinstance(windows, ChammiError):
                    waiting.failed.append((known.image_ids[place - first], str(windows)))
                    windows = []
                for window, cell, centroid in windows:
                    own = depth * window[2] * window[3] * width
                    if waiting.places and (size + own > _BYTES or planes + depth > self._planes):
                        yield waiting
                        waiting, size, planes = Chunk(part, number), 0, 0
                    waiting.places.append(place)
                    waiting.windows.append(window)
                    waiting.cells.append(cell)
                    waiting.centroids.append(centroid)
                    size, planes = size + own, planes + depth
            yield Chunk(**{**vars(waiting), "images": end - first, "ends_part": True})

    def _windows(
        self, number: int, first: int, known: Described
    ) -> Iterator[tuple[int, list[tuple[tuple[int, int, int, int], int, tuple[float, float]]] | ChammiError]]:
        """Each image's place, and its windows, with cell and centroid; or why its cells could not be read."""
        nowhere = (float("nan"), float("nan"))
        shapes = list(zip(known.heights.tolist(), known.widths.tolist(), strict=True))
        if self._crop != "cells":
            for n, (height, width) in enumerate(shapes):
                rows, columns = (min(edge, self._edge(edge)) for edge in (height, width))
                yield first + n, [(((height - rows) // 2, (width - columns) // 2, rows, columns), -1, nowhere)]
            return
        with ThreadPoolExecutor(_READERS) as pool:
            for n, found in enumerate(pool.map(self._read_cells, *self._annotations(number, first, len(shapes)))):
                if isinstance(found, ChammiError):
                    if self._on_error == "raise":
                        raise found
                    yield first + n, found
                    continue
                centroids, sizes = found
                windows = self._around(centroids, sizes, known.studies[n], *shapes[n])
                cells = range(len(centroids))
                yield first + n, list(zip(windows, cells, map(tuple, centroids.tolist()), strict=True))

    def _edge(self, edge: int) -> int:
        return self._crop if isinstance(self._crop, int) else edge

    def _annotations(self, number: int, first: int, count: int) -> tuple[list[Any], list[Any]]:
        chosen = self.selections[number]
        stored = chosen.block(first, first + count).column("annotation").to_pylist()
        return stored, [chosen.layout.storage_options] * count

    def _read_cells(
        self, stored: Any, options: dict[str, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | ChammiError:
        """Cells of the channel that has most of them, and their sizes."""
        nothing = np.zeros((0, 2)), np.zeros(0)
        if stored is None:
            return nothing
        try:
            cells = read_cells(stored, options)
        except (StoreError, ReadError) as error:
            return error
        known = [] if cells is None else list(zip(cells["centroids"], cells["sizes"], strict=True))
        best = max(known, key=lambda pair: -1 if pair[0] is None else len(pair[0]), default=(None, None))
        if best[0] is None:
            return nothing
        centroids = np.asarray(best[0], np.float64).reshape(-1, 2)
        sizes = np.full(len(centroids), np.nan) if best[1] is None else np.asarray(best[1], np.float64)
        return centroids, sizes

    def _around(
        self, centroids: NDArray[np.float64], sizes: NDArray[np.float64], study: str | None, height: int, width: int
    ) -> list[tuple[int, int, int, int]]:
        count = len(centroids)
        if not count:
            return []
        crop = self._cell_crop
        randoms = np.full((count, len(DRAWS)), 0.5)  # of several sizes of a study the middle one
        windows = crop.windows(
            randoms,
            studies=[study] * count,
            heights=np.full(count, height),
            widths=np.full(count, width),
            centroids=centroids,
            cell_sizes=sizes if crop.needs_cell_sizes else None,
        )
        return [(y, x, rows, columns) for y, x, rows, columns in windows.tolist()]


class ChunkReader(Dataset[Read]):  # type: ignore[misc,unused-ignore]
    """Reads chunks, in whatever process asks."""

    def __init__(self, selections: Sequence[Selection], on_error: Literal["raise", "skip"]) -> None:
        self._selections, self._on_error = tuple(selections), on_error

    def __getitem__(self, chunk: Chunk) -> Read:
        if not chunk.places:
            return Read(chunk, {}, [], list(chunk.failed))
        chosen = self._selections[chunk.selection]
        first = chunk.places[0]
        feature = MultiChannelImageFeature().with_storage_options(chosen.layout.storage_options)
        table = chosen.block(first, chunk.places[-1] + 1).select(["image_id", "experiment", "image"])
        images, names = {}, {}
        for place in dict.fromkeys(chunk.places):
            (row,) = table.slice(place - first, 1).to_pylist()
            image = feature.decode_example(row["image"])
            images[place] = image
            names[place] = row["image_id"], row["experiment"]["study"], tuple(image.channels), image.pixel_size_um
        groups: dict[Any, list[int]] = {}
        for number, place in enumerate(chunk.places):
            image = images[place]
            key = (len(image.channels), image.dtype.name, *chunk.windows[number][2:])
            groups.setdefault(key, []).append(number)
        pixels: list[tuple[torch.Tensor, list[int]]] = []
        failures: dict[int, str] = {}
        for numbers in groups.values():
            pixels += self._read(chunk, images, numbers, failures)
        failed = [(names[place][0], words) for place, words in sorted(failures.items())]
        return Read(chunk, names, pixels, [*chunk.failed, *failed])

    def _read(
        self, chunk: Chunk, images: dict[int, Any], numbers: list[int], failures: dict[int, str]
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """Windows of one shape; where one cannot be read and that is to be skipped, each alone."""
        try:
            planes = read_crops([images[chunk.places[n]] for n in numbers], [chunk.windows[n] for n in numbers])
        except (StoreError, ReadError) as error:
            if self._on_error == "raise":
                raise
            if len(numbers) == 1:
                failures[chunk.places[numbers[0]]] = str(error)
                return []
            return [read for n in numbers for read in self._read(chunk, images, [n], failures)]
        return [(torch.from_numpy(planes), numbers)]


def read_chunks(
    plan: CropPlan, parts: Sequence[int], workers: int, on_error: Literal["raise", "skip"]
) -> Iterator[Read]:
    """The chunks of some parts in order, read by so many worker processes; 0: by this one."""
    loader = DataLoader(
        ChunkReader(plan.selections, on_error),
        batch_size=None,
        sampler=_Sampler(plan, parts),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=None,
    )
    yield from loader


class _Sampler:
    """The chunks, planned as they are wanted: a DataLoader hands them to its workers."""

    def __init__(self, plan: CropPlan, parts: Sequence[int]) -> None:
        self._plan, self._parts = plan, parts

    def __iter__(self) -> Iterator[Chunk]:
        return self._plan.chunks(self._parts)


def _kept(types: Sequence[str | None], wanted: Sequence[str] | None) -> list[str | None]:
    return [name for name in types if wanted is None or name in wanted]
