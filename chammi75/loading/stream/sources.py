"""Where a stream's pixels come from: a store's shards by byte ranges, or the files of the published layout.

Both answer the same questions for some rows at a time, in numbers: what is known of the images, where a cell is, and
what is to be seen through a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError

Rows = NDArray[np.int64]
Failures = dict[int, ChammiError]
"""What could not be read, by its number among what was asked for."""


@dataclass(frozen=True)
class Described:
    """What is known of some images without reading them; one entry each.

    Attributes
    ----------
    image_ids : list of str
    studies : list of str or None
    channel_types : list of tuple
        Types of all stored channels.
    heights, widths : ndarray of int64
    dtypes : list of numpy.dtype
    saturations : ndarray of float32
        The greatest value that the camera could give; NaN for floats.
    """

    image_ids: list[str]
    studies: list[str | None]
    channel_types: list[tuple[str | None, ...]]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    dtypes: list[np.dtype[Any]]
    saturations: NDArray[np.float32]


@dataclass(frozen=True)
class Fetched:
    """Planes as they are stored, and what is to be seen of them; one entry each.

    Attributes
    ----------
    names : list of str
        For messages.
    contents : list of bytes-like or None
        None where it cannot be read.
    windows : ndarray of int64, shape (P, 4)
        y, x, height and width.
    shapes : ndarray of int64, shape (P, 2)
    dtypes : list of numpy.dtype
    failures : dict
        Why what cannot be read cannot.
    shards : ndarray of int64, shape (P,), or None
        Number of each one's shard; None where there are none.
    """

    names: list[str]
    contents: list[Any]
    windows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    dtypes: list[np.dtype[Any]]
    failures: Failures
    shards: NDArray[np.int64] | None = None


class Source(Protocol):
    """Images of one layout. It can be pickled, and opens its files anew in each process."""

    @property
    def url(self) -> str:
        """Where it lies."""

    @property
    def channel_type_lists(self) -> list[tuple[str | None, ...]]:
        """The different lists of channel types."""

    def channel_type_codes(self, rows: Rows) -> NDArray[np.int32]:
        """Which of them each image has."""

    def studies(self) -> list[str]:
        """The different studies."""

    def study_codes(self, rows: Rows) -> NDArray[np.int32]:
        """Which of them each image belongs to; -1 if it is unknown."""

    def shards(self, rows: Rows) -> NDArray[np.int64]:
        """Number of the part of the layout that each image lies in."""

    def dtypes(self, rows: Rows) -> list[np.dtype[Any]]:
        """The different pixel types of some images."""

    def describe(self, rows: Rows) -> Described:
        """What is known of some images."""

    def choose_cells(
        self, rows: Rows, channels: NDArray[np.int64] | None, randoms: NDArray[np.float64], *, sizes: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Failures]:
        """A cell of each image.

        Parameters
        ----------
        rows : ndarray of int64, shape (N,)
        channels : ndarray of int64, shape (N,), optional
            The channel whose cells are meant; those of all channels where it has none, or none is given.
        randoms : ndarray of float64, shape (N,)
            In [0, 1): which cell.
        sizes : bool
            Whether sizes are wanted.

        Returns
        -------
        centroids : ndarray of float64, shape (N, 2)
            As (x, y); NaN where there is no cell.
        sizes : ndarray of float64, shape (N,)
            NaN where it is not known.
        failures : dict
        """

    def fetch(self, rows: Rows, channels: NDArray[np.int64], windows: NDArray[np.int64]) -> Fetched:
        """Some planes as they are stored; of each at least what its window (y, x, height, width) needs."""

    def decode(self, fetched: Fetched, out: NDArray[Any], *, resize: bool, threads: int) -> Failures:
        """What is seen through the windows, into ``out`` (P, H, W): in its upper left corner, or resized to all."""

    def renew(self, fetched: Fetched, damaged: Sequence[int]) -> bool:
        """Whether reading again may help: what is damaged is a copy, and fetched again if its origin is otherwise."""


def saturations_of(kinds: Sequence[np.dtype[Any]], bits: NDArray[Any]) -> NDArray[np.float32]:
    """The greatest value of each image: of its significant bits, else of its dtype; NaN for floats."""
    widths = np.array([0 if kind.kind == "f" else 8 * kind.itemsize for kind in kinds], np.int64)
    used = np.where((bits > 0) & (bits < widths), bits, widths)
    return np.where(widths > 0, 2.0**used - 1, np.nan).astype(np.float32)
