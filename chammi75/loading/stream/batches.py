"""Batches: positions of an epoch in, pixels and what is known of them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.loading.guided import GuidedCrop
from chammi75.loading.stream.lent import empty
from chammi75.loading.stream.permutation import uniforms
from chammi75.loading.stream.sources import Described, Failures, Fetched, Source
from chammi75.loading.stream.units import Drawn, Units

if TYPE_CHECKING:
    from chammi75.loading.stream.order import Order

OnError = Literal["raise", "skip"]

_DRAWS = 6
"""Random numbers that a crop takes."""

_TRIES = 8
"""Other units that are tried in place of one that cannot be read."""


@dataclass(frozen=True)
class Replacement:
    """A sample that another one stands in for.

    Attributes
    ----------
    position : int
        Its position in the epoch.
    error : ChammiError
        Why it could not be read.
    """

    position: int
    error: ChammiError


@dataclass(frozen=True)
class Batch:
    """Samples of some positions; entries and first axes are in their order.

    Attributes
    ----------
    pixels : ndarray, shape (N, C, H, W)
        Windows in the upper left corners of zeros, or resized.
    positions : ndarray of int64, shape (N,)
    image_ids, studies : list
    channels : list of tuple of int
        Channels as stored.
    channel_types : list of tuple
    channel_ids : ndarray of int64, shape (N, C)
        Numbers of the channel types in the vocabulary; -1 where there is none, or no channel.
    sizes : ndarray of int64, shape (N, 2)
        Height and width that the pixels take of their (H, W).
    windows : ndarray of int64, shape (N, 4)
        y, x, height and width of what was cut out.
    dtypes : list of str
    saturations : ndarray of float32, shape (N,)
    replaced : list of Replacement
    """

    pixels: NDArray[Any]
    positions: NDArray[np.int64]
    image_ids: list[str]
    studies: list[str | None]
    channels: list[tuple[int, ...]]
    channel_types: list[tuple[str | None, ...]]
    channel_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    windows: NDArray[np.int64]
    dtypes: list[str]
    saturations: NDArray[np.float32]
    replaced: list[Replacement]


@dataclass(frozen=True)
class Choice:
    """What is to be read for a batch of N samples, and the P planes of them.

    Attributes
    ----------
    positions : ndarray of int64, shape (N,)
    drawn : Drawn
        Where the samples are.
    known : Described
        What is known of their images.
    windows : ndarray of int64, shape (N, 4)
        y, x, height and width.
    channels : list of tuple of int
        The channels of each, as stored.
    owners, slots, planes : ndarray of int64, shape (P,)
        The sample that each plane belongs to, its number among the sample's channels, and its channel as stored.
    failures : dict
        Samples of which it could not be found out.
    """

    positions: NDArray[np.int64]
    drawn: Drawn
    known: Described
    windows: NDArray[np.int64]
    channels: list[tuple[int, ...]]
    owners: NDArray[np.int64]
    slots: NDArray[np.int64]
    planes: NDArray[np.int64]
    failures: Failures


@dataclass(frozen=True)
class Part:
    """The planes of a batch that come from one source: which of the P they are, and what is stored of them."""

    source: Source
    at: NDArray[np.int64]
    fetched: Fetched

    def windows(self) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Each plane as it is stored, and the window (y, x, height, width) of it."""
        return zip(self.fetched.contents, self.fetched.windows, strict=True)


class BatchReader:
    """Reads batches: which units, which windows, and their pixels.

    Parameters
    ----------
    units : Units
    sources : sequence of Source
        One for each selection of the units.
    order : Order
    seed : int
    crop : GuidedCrop, optional
        Whole planes without.
    resize : (int, int), optional
        Height and width that all windows are brought to.
    dtype : numpy.dtype
        Of the pixels.
    on_error : {"raise", "skip"}
        What becomes of samples that cannot be read: ``skip`` puts another one in their place.
    threads : int
    """

    def __init__(
        self,
        units: Units,
        sources: Sequence[Source],
        order: Order,
        *,
        seed: int,
        crop: GuidedCrop | None,
        resize: tuple[int, int] | None,
        dtype: np.dtype[Any],
        on_error: OnError,
        threads: int,
    ) -> None:
        self._units, self._sources, self._order = units, sources, order
        self._seed, self._crop, self._resize, self._dtype = seed, crop, resize, dtype
        self._on_error, self._threads = on_error, threads

    @property
    def resizes(self) -> bool:
        """Whether windows are resized."""
        return self._resize is not None

    def read(self, epoch: int, positions: NDArray[np.int64]) -> Batch:
        """The samples at some positions of an epoch.

        Raises
        ------
        StoreError, ReadError
            If a sample cannot be read, and that is not to be skipped, or ``_TRIES`` others cannot be read either.
        """
        units = self._order.units(epoch, positions)
        return self._read(epoch, positions, units, tries=_TRIES if self._on_error == "skip" else 0)

    def choose(self, epoch: int, positions: NDArray[np.int64], units: NDArray[np.int64] | None = None) -> Choice:
        """What is to be read for some positions: which planes, and which windows of them."""
        units = self._order.units(epoch, positions) if units is None else units
        drawn = self._units.draw(units)
        count = len(units)
        known = Described(
            image_ids=[""] * count,
            studies=[None] * count,
            channel_types=[()] * count,
            heights=np.ones(count, np.int64),
            widths=np.ones(count, np.int64),
            dtypes=[self._dtype] * count,
            saturations=np.zeros(count, np.float32),
        )
        randoms = uniforms(self._seed, epoch, positions, _DRAWS)
        centroids, sizes = np.full((count, 2), np.nan), np.full(count, np.nan)
        failures: Failures = {}
        channels: list[tuple[int, ...]] = [()] * count
        for selection, at in _by_selection(drawn.selection):
            rows, source = drawn.rows[at], self._sources[selection]
            own = None if drawn.channels is None else drawn.channels[at]
            _put(source.describe(rows), at, known)
            kept = self._units.channels_of(selection, rows) if own is None else [(k,) for k in own.tolist()]
            for number, numbers in zip(at.tolist(), kept, strict=True):
                channels[number] = numbers
            if self._crop is not None:
                centroids[at], sizes[at], failed = source.choose_cells(
                    rows, own, randoms[at, 0], sizes=self._crop.needs_cell_sizes
                )
                failures.update({int(at[number]): error for number, error in failed.items()})
        if self._crop is None:
            zeros = np.zeros(count, np.int64)
            windows = np.stack([zeros, zeros, known.heights, known.widths], axis=1)
        else:
            windows = self._crop.windows(
                randoms,
                studies=known.studies,
                heights=known.heights,
                widths=known.widths,
                centroids=centroids,
                cell_sizes=sizes,
            )
        counts = np.array([len(kept) for kept in channels], np.int64)
        owners = np.repeat(np.arange(count), counts)
        return Choice(
            positions=positions,
            drawn=drawn,
            known=known,
            windows=windows,
            channels=channels,
            owners=owners,
            slots=np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts),
            planes=np.array([channel for kept in channels for channel in kept], np.int64),
            failures=failures,
        )

    def fetch(self, choice: Choice) -> list[Part]:
        """The planes that are chosen, as they are stored; a part for each selection."""
        parts = []
        for selection, at in _by_selection(choice.drawn.selection[choice.owners]):
            own = choice.owners[at]
            source = self._sources[selection]
            parts.append(Part(source, at, source.fetch(choice.drawn.rows[own], choice.planes[at], choice.windows[own])))
        return parts

    def decode(self, choice: Choice, parts: Sequence[Part]) -> tuple[NDArray[Any], Failures]:
        """The pixels, shape (N, C, H, W), and what is damaged."""
        target = self._resize
        height, width = target or (int(choice.windows[:, 2].max()), int(choice.windows[:, 3].max()))
        count, most = len(choice.channels), max(map(len, choice.channels))
        whole = len(choice.owners) == count * most
        alike = target is not None or len(np.unique(choice.windows[:, 2:], axis=0)) == 1
        pixels = empty((count, most, height, width), self._dtype)
        if not (whole and alike):
            pixels.fill(0)
        failures: Failures = {}
        for part in parts:
            direct = whole and len(parts) == 1
            planes = (
                pixels.reshape(-1, height, width) if direct else np.zeros((len(part.at), height, width), self._dtype)
            )
            failed = part.source.decode(part.fetched, planes, resize=target is not None, threads=self._threads)
            owners = choice.owners[part.at]
            if not direct:
                pixels[owners, choice.slots[part.at]] = planes
            for number, error in failed.items():
                failures.setdefault(int(owners[number]), error)
        return pixels, failures

    def described(self, choice: Choice, pixels: NDArray[Any], failures: Failures) -> Batch:
        """The batch of what was read."""
        known = choice.known
        dtype_names = {dtype: dtype.name for dtype in set(known.dtypes)}
        types = [
            tuple(words[channel] for channel in kept)
            for words, kept in zip(known.channel_types, choice.channels, strict=True)
        ]
        ids = np.full(pixels.shape[:2], -1, np.int64)
        ids[choice.owners, choice.slots] = [self._vocabulary.get(word, -1) for words in types for word in words]
        return Batch(
            pixels=pixels,
            positions=choice.positions,
            image_ids=known.image_ids,
            studies=known.studies,
            channels=choice.channels,
            channel_types=types,
            channel_ids=ids,
            sizes=np.tile(np.array(self._resize, np.int64), (len(types), 1))
            if self._resize
            else choice.windows[:, 2:].copy(),
            windows=choice.windows,
            dtypes=[dtype_names[dtype] for dtype in known.dtypes],
            saturations=known.saturations,
            replaced=[Replacement(int(choice.positions[number]), error) for number, error in sorted(failures.items())],
        )

    def _read(self, epoch: int, positions: NDArray[np.int64], units: NDArray[np.int64], tries: int) -> Batch:
        choice = self.choose(epoch, positions, units)
        parts = self.fetch(choice)
        pixels, failures = self.decode(choice, parts)
        if failures and self._are_renewed(choice, parts, failures):
            pixels, failures = self.decode(choice, self.fetch(choice))
        failures = {**failures, **choice.failures}
        named = {number: _named(error, choice.known.image_ids[number]) for number, error in failures.items()}
        if named and not tries:
            raise named[min(named)]
        batch = self.described(choice, pixels, named)
        return self._mended(epoch, batch, tries - 1) if named else batch

    def _are_renewed(self, choice: Choice, parts: Sequence[Part], failures: Failures) -> bool:
        """Whether reading again may help, since what is damaged is a copy."""
        numbers = [(part, np.flatnonzero(np.isin(choice.owners[part.at], list(failures)))) for part in parts]
        renewed = [part.source.renew(part.fetched, at.tolist()) for part, at in numbers if len(at)]
        return any(renewed)  # of all: each one that is damaged has to go

    def _mended(self, epoch: int, batch: Batch, tries: int) -> Batch:
        """The batch with other samples in the places of those that could not be read.

        Which ones depends on the position alone, not on the batch or the worker.
        """
        numbers = np.flatnonzero(np.isin(batch.positions, [replacement.position for replacement in batch.replaced]))
        positions = batch.positions[numbers]
        draws = uniforms(self._seed, epoch, positions, _DRAWS + _TRIES)[:, _DRAWS + tries]
        units = self._order.units(epoch, (draws * self._order.length).astype(np.int64))
        return _merged(batch, numbers, self._read(epoch, positions, units, tries))

    @cached_property
    def _vocabulary(self) -> dict[str | None, int]:
        from chammi75.schemas.vocabulary import vocabulary

        return {term.name: number for number, term in enumerate(vocabulary("channel_types").terms)}


def _named(error: ChammiError, image_id: str) -> ChammiError:
    """An error of one image's bytes that says which image it is."""
    if isinstance(error, ReadError):
        return ReadError(error.path, f"{error.reason} ({image_id})")
    return StoreError(f"{error} ({image_id})")


def _by_selection(selections: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each different selection, and where it stands."""
    return [(number, np.flatnonzero(selections == number)) for number in np.unique(selections).tolist()]


def _put(described: Described, at: NDArray[np.int64], known: Described) -> None:
    """Enter what is known of some images at their places in what is known of all."""
    for name in ("heights", "widths", "saturations"):
        getattr(known, name)[at] = getattr(described, name)
    for name in ("image_ids", "studies", "channel_types", "dtypes"):
        target = getattr(known, name)
        for number, value in zip(at.tolist(), getattr(described, name), strict=True):
            target[number] = value


def _merged(batch: Batch, numbers: NDArray[np.int64], others: Batch) -> Batch:
    """``batch`` with ``others`` in the places ``numbers``."""
    shape = tuple(max(a, b) for a, b in zip(batch.pixels.shape[1:], others.pixels.shape[1:], strict=True))
    pixels, ids = batch.pixels, batch.channel_ids
    if shape != pixels.shape[1:]:
        pixels = np.zeros((len(pixels), *shape), pixels.dtype)
        pixels[:, : batch.pixels.shape[1], : batch.pixels.shape[2], : batch.pixels.shape[3]] = batch.pixels
        ids = np.full((len(pixels), shape[0]), -1, np.int64)
        ids[:, : batch.channel_ids.shape[1]] = batch.channel_ids
    pixels[numbers], ids[numbers] = 0, -1
    count, height, width = others.pixels.shape[1:]
    pixels[numbers, :count, :height, :width] = others.pixels
    ids[numbers, :count] = others.channel_ids
    changed: dict[str, Any] = {}
    for name in ("image_ids", "studies", "channels", "channel_types", "dtypes"):
        changed[name] = list(getattr(batch, name))
        for number, value in zip(numbers.tolist(), getattr(others, name), strict=True):
            changed[name][number] = value
    for name in ("sizes", "windows", "saturations"):
        changed[name] = getattr(batch, name).copy()
        changed[name][numbers] = getattr(others, name)
    return replace(batch, pixels=pixels, channel_ids=ids, **changed)
