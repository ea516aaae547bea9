"""The images of an export, one after the other: read by several threads, given in order, failures noted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from chammi75.errors import ChammiError
from chammi75.export.report import ExportReport, FailedImage
from chammi75.export.target import ExportTarget
from chammi75.files import reading_errors
from chammi75.loading.layouts import Layout
from chammi75.loading.origins import Origin, OriginCounter
from chammi75.loading.selection import Selection
from chammi75.store.shard import Cells

if TYPE_CHECKING:
    from chammi75.loading.image import MultiChannelImage

Advance = Callable[[int], object]
Selections = Selection | Sequence[Selection]
Made = TypeVar("Made")

_ROWS = 32
"""Samples whose records are turned into Python values at once."""
_BLOCK = 10_000
"""Records that are counted at once."""


@dataclass(frozen=True)
class Sample:
    """An image to export.

    Attributes
    ----------
    number : int
        Its place in the export, from 0.
    split : str
    record : dict
        ``image_id`` and the groups of the record.
    image : MultiChannelImage
    place : str
        Where its exporter puts it, if that depends on the images before.
    """

    number: int
    split: str
    record: dict[str, Any]
    image: MultiChannelImage
    _cells: dict[str, Any] | None
    _options: dict[str, Any]
    place: str = ""

    @property
    def image_id(self) -> str:
        """Identity of the image."""
        return str(self.record["image_id"])

    def cells(self) -> list[Cells | None] | None:
        """Read the cells of each channel; None where the image has no annotation."""
        from chammi75.loading.feature import CellsFeature

        if self._cells is None:
            return None
        found = CellsFeature().with_storage_options(self._options).decode_example(self._cells)
        if found is None:
            return None
        pairs = zip(found["centroids"], found["sizes"], strict=True)
        return [None if xy is None or size is None else Cells(xy, size) for xy, size in pairs]


@dataclass
class Export(Generic[Made]):
    """An export at work: it counts what is done and notes what fails.

    Parameters
    ----------
    format : str
    selections : Selection or sequence of Selection
    target : ExportTarget
    workers : int
        Threads that read and encode. The result does not depend on it.
    advance : callable, optional
        Called with 1 for each image.
    """

    format: str
    selections: Selections
    target: ExportTarget
    workers: int = 1
    advance: Advance | None = None
    images: int = 0
    planes: int = 0
    failed: list[FailedImage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    origins: OriginCounter = field(default_factory=OriginCounter)

    def made(
        self,
        prepare: Callable[[Sample], Made],
        write: Callable[[Sample, Made], None] | None = None,
        place: Callable[[Sample], str] | None = None,
    ) -> Iterator[tuple[Sample, Made]]:
        """What ``prepare`` makes of each image, in order, whatever thread made it.

        Parameters
        ----------
        prepare : callable
            Reads an image; if it raises, the image is noted as failed and left out.
        write : callable, optional
            Writes what was prepared, in the same thread; if it raises, the export ends.
        place : callable, optional
            Called for each image in order, before it is read: what it says becomes the sample's ``place``.

        Raises
        ------
        ChammiError
            If two images have one id, or not one image could be exported.
        """
        several = not isinstance(self.selections, Selection) and len(self.selections) > 1
        seen: set[str] = set()
        waiting: deque[tuple[Sample, Future[Made | FailedImage]]] = deque()

        failures: tuple[type[Exception], ...] = (ChammiError, *reading_errors())

        def work(sample: Sample) -> Made | FailedImage:
            try:
                made = prepare(sample)
            except failures as error:
                return FailedImage(sample.image_id, str(error))
            if write is not None:
                write(sample, made)
            return made

        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            try:
                for sample in samples_of(self.selections):
                    if several:
                        if sample.image_id in seen:
                            raise ChammiError(
                                f"two images have the id {sample.image_id!r}: these stores overlap, export them apart"
                            )
                        seen.add(sample.image_id)
                    if place is not None:
                        sample = replace(sample, place=place(sample))
                    waiting.append((sample, pool.submit(work, sample)))
                    if len(waiting) > self.workers + 1:
                        yield from self._done(*waiting.popleft())
                while waiting:
                    yield from self._done(*waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if not self.images:
            reason = f" ({self.failed[0].image_id}: {self.failed[0].reason})" if self.failed else ""
            raise ChammiError(f"{self.target.url}: not one image could be exported{reason}")

    def _done(self, sample: Sample, future: Future[Made | FailedImage]) -> Iterator[tuple[Sample, Made]]:
        made = future.result()
        if self.advance is not None:
            self.advance(1)
        if isinstance(made, FailedImage):
            self.failed.append(made)
            return
        self.images += 1
        self.planes += sample.image.shape[0]
        self.origins.add(sample.record)
        yield sample, made

    def report(self) -> ExportReport:
        """What was done so far."""
        return ExportReport(
            format=self.format,
            out=self.target.url,
            images=self.images,
            planes=self.planes,
            files=self.target.files,
            bytes=self.target.bytes,
            failed=tuple(self.failed),
            notes=tuple(self.notes),
            origins=self.origins.origins,
        )


def as_selections(selections: Selections) -> list[Selection]:
    """The selections that hold an image.

    Raises
    ------
    ChammiError
        If there is none.
    """
    found = [selections] if isinstance(selections, Selection) else list(selections)
    kept = [selection for selection in found if len(selection)]
    if not kept:
        raise ChammiError("there is no image to export: the selection is empty")
    return kept


def images_in(selections: Selections) -> int:
    """How many images there are to export."""
    return sum(len(selection) for selection in as_selections(selections))


def origins_of(selections: Selections) -> tuple[Origin, ...]:
    """Where the selected images come from, and under which licences; no pixel is read."""
    counter = OriginCounter()
    for selection in as_selections(selections):
        for start in range(0, len(selection), _BLOCK):
            samples = selection.samples(start, start + _BLOCK).select(["experiment", "provenance"])
            counter.add_table(samples.combine_chunks())
    return counter.origins


def samples_of(selections: Selections) -> Iterator[Sample]:
    """The images, split by split, in the order of their stores; only a few of their records are in memory."""
    from chammi75.loading.feature import MultiChannelImageFeature

    number = 0
    for split, selection in by_split(as_selections(selections)):
        options = selection.layout.storage_options
        feature = MultiChannelImageFeature().with_storage_options(options)
        for table in selection.stream(0, len(selection)):
            for start in range(0, table.num_rows, _ROWS):
                for row in table.slice(start, _ROWS).to_pylist():
                    image, cells = feature.decode_example(row.pop("image")), row.pop("annotation")
                    yield Sample(number, split, row, image, cells, options)
                    number += 1


def by_split(selections: Sequence[Selection]) -> list[tuple[str, Selection]]:
    """The selections, cut where the split of their images changes; those of one split side by side."""
    parts: list[tuple[str, Selection]] = []
    for selection in selections:
        rows = np.asarray(selection.rows, np.int64)
        for split in splits_of(selection.layout):
            within = np.zeros(len(rows), bool)
            for part in selection.layout.rows_of_split(split):
                within |= (rows >= part.start) & (rows < part.stop)
            if within.any():
                parts.append((split, Selection(selection.layout, rows[within], selection.channel_types)))
    order = list(dict.fromkeys(split for split, _ in parts))
    return sorted(parts, key=lambda part: order.index(part[0]))


def splits_of(layout: Layout) -> list[str]:
    """The splits of a layout, in the order in which they are stored."""
    store = getattr(layout, "store", None)
    if store is None:
        return ["train"]
    return list(dict.fromkeys(shard.split for shard in store.shards))
