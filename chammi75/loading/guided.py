"""Guided crops: windows around cells, of a size that suits the study, the cell, or whatever is wanted.

The rule is the one that MorphEm was trained with (CaicedoLab/CHAMMI-75@b84a4ec, ``GuidedCrop`` and ``get_crop_size``):
one of the study's sizes is drawn, height and width vary about it independently, and the window is centred on the cell
and shifted to stay inside the plane. Where that code went astray, this does not:

- a window larger than the plane takes the whole side, never a thin strip of it;
- an image without cells is cut at a uniform place; it is not left out;
- a window of odd size has all its pixels;
- positions may be floats, and lie outside of the plane;
- random numbers come from outside, so other epochs see other cells, sizes and places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import RecipeError

WholePlane = Literal["whole plane"]
Size = int | tuple[int, int] | WholePlane
"""Edge of a window, or its height and width, in pixels; or all of the plane."""

DRAWS = ("cell", "size", "height", "width", "y", "x")
"""What each of a sample's random numbers decides, in their order; it is part of what makes a run repeatable."""

_RULE = 1
"""Raised when the same random numbers give other windows than before."""


def choose_cells(randoms: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of its cells each sample is cut around, all with equal chances.

    Parameters
    ----------
    randoms : ndarray of float64, shape (N,)
        In [0, 1): the samples' first random numbers.
    counts : ndarray of int, shape (N,)
        Cells that there are.

    Returns
    -------
    ndarray of int64, shape (N,)
        Numbers of the cells, from 0; -1 where there is none.

    Examples
    --------
    >>> choose_cells(np.array([0.0, 0.5, 0.99, 0.3]), np.array([4, 4, 4, 0])).tolist()
    [0, 2, 3, -1]
    """
    counts = np.asarray(counts, np.int64)
    return np.minimum(np.floor(randoms * counts).astype(np.int64), counts - 1)


@dataclass(frozen=True)
class GuidedCrop:
    """How windows are chosen.

    Parameters
    ----------
    size : {"study", "cell", "whole plane"}, int, (int, int) or mapping
        ``"study"``: one of the sizes that ``catalog/crop_sizes.yaml`` has for the image's study. ``"cell"``: ``factor``
        times the diameter of the cell; as for ``"study"`` where its size is not known. A number: the edge, in pixels. A
        pair: height and width. A mapping: a table of one's own, from studies to lists of edges or ``"whole plane"``.
    jitter : float
        Height and width are, independently, uniform whole numbers from ``floor((1 - jitter) size)`` to
        ``floor((1 + jitter) size)``, both included. A whole plane does not vary.
    factor : float
        Edge of the window over the cell's diameter, with ``size="cell"``.
    other : int, (int, int) or "whole plane"
        Size where the table does not have the study.

    Raises
    ------
    RecipeError
        If a value is none of these.

    Examples
    --------
    >>> crop = GuidedCrop(64, jitter=0)
    >>> crop.windows(
    ...     np.zeros((2, 6)),
    ...     studies=[None, None],
    ...     heights=np.array([100, 100]),
    ...     widths=np.array([200, 50]),
    ...     centroids=np.array([[190.0, 50.0], [20.0, 20.0]]),
    ... ).tolist()
    [[18, 136, 64, 64], [0, 0, 64, 50]]
    """

    size: Literal["study", "cell"] | Size | Mapping[str, Sequence[int | WholePlane]] = "study"
    jitter: float = 0.1
    factor: float = 2.0
    other: Size = "whole plane"

    def __post_init__(self) -> None:
        if isinstance(self.size, Mapping):
            object.__setattr__(self, "size", _own_table(self.size))
        elif not isinstance(self.size, str) or self.size not in ("study", "cell"):
            object.__setattr__(self, "size", _size(self.size, "size", '"study", "cell", a mapping of studies, '))
        object.__setattr__(self, "other", _size(self.other, "other", ""))
        object.__setattr__(self, "jitter", _number(self.jitter, "jitter", least=0, below=1))
        object.__setattr__(self, "factor", _number(self.factor, "factor", least=0.01, below=1000))

    @property
    def needs_cell_sizes(self) -> bool:
        """Whether `windows` makes use of the cells' sizes."""
        return self.size == "cell"

    @property
    def settings(self) -> dict[str, Any]:
        """All that windows depend on beside their images, as JSON has it: the table of sizes too."""
        table = {study: list(sizes) for study, sizes in sorted(self._studies.items())}
        size = "table" if isinstance(self.size, Mapping) else self.size
        return {
            "rule": _RULE,
            "size": list(size) if isinstance(size, tuple) else size,
            "jitter": self.jitter,
            "factor": self.factor if size == "cell" else None,
            "other": (list(self.other) if isinstance(self.other, tuple) else self.other) if table else None,
            "studies": table,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings, in hexadecimal: equal where the same random numbers give the same windows."""
        content = json.dumps(self.settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def largest_window(self, height: int, width: int, studies: Sequence[str | None] | None = None) -> tuple[int, int]:
        """Height and width that no window exceeds in planes of this size.

        Parameters
        ----------
        height, width : int
            Of the largest planes.
        studies : sequence of (str or None), optional
            The studies that occur: at least one. Any by default.

        Examples
        --------
        >>> GuidedCrop().largest_window(2048, 2048, ["idr0001", "idr0003"])
        (385, 385)
        >>> GuidedCrop().largest_window(2048, 2048)
        (2048, 2048)
        """
        if self.size == "cell":
            return height, width
        table = self._table
        rows = range(len(table.counts)) if studies is None else sorted(set(self._rows(studies).tolist()))
        edges = np.concatenate([table.edges[table.starts[row] :][: table.counts[row]] for row in rows])
        most = np.where(edges > 0, np.maximum(np.floor((1 + self.jitter) * edges), 1), (height, width)).max(axis=0)
        return min(height, int(most[0])), min(width, int(most[1]))

    def windows(
        self,
        randoms: NDArray[np.float64],
        *,
        studies: Sequence[str | None],
        heights: NDArray[np.int64],
        widths: NDArray[np.int64],
        centroids: NDArray[Any],
        cell_sizes: NDArray[Any] | None = None,
    ) -> NDArray[np.int64]:
        """The window of each sample.

        Parameters
        ----------
        randoms : ndarray of float64, shape (N, 6)
            In [0, 1): for cell (see `choose_cells`), size, height, width, y and x, in this order; the last two count
            only where there is no cell.
        studies : sequence of (str or None), length N
        heights, widths : ndarray of int, shape (N,)
            Of the planes, in pixels.
        centroids : ndarray of float, shape (N, 2)
            Positions (x, y) of the chosen cells, in pixels, a whole number being the centre of a pixel; NaN where there
            is no cell.
        cell_sizes : ndarray of float, shape (N,), optional
            Areas of the chosen cells, in square pixels, as the published dataset has them; NaN or 0 where not known.

        Returns
        -------
        ndarray of int64, shape (N, 4)
            y, x, height and width: inside of the plane, and at least one pixel.

        Raises
        ------
        RecipeError
            If the arrays are not as long as one another, or a plane is empty.
        """
        count = len(studies)
        shapes = [np.shape(array) for array in (randoms, heights, widths, centroids)]
        if shapes != [(count, len(DRAWS)), (count,), (count,), (count, 2)]:
            raise RecipeError(
                f"{count} studies need {len(DRAWS)} random numbers, a height, a width and a centroid (x, y) each, not"
                f" arrays of the shapes {', '.join(map(str, shapes))}"
            )
        planes = np.stack([heights, widths], axis=1).astype(np.int64)
        centroids = np.asarray(centroids, np.float64)
        if count and planes.min() < 1:
            raise RecipeError("a plane has a height and a width of at least 1, none can be cut out of this one")
        edges = self._edges(randoms[:, 1], studies, cell_sizes)
        least, most = np.floor((1 - self.jitter) * edges), np.floor((1 + self.jitter) * edges)
        sizes = least + np.minimum(np.floor(randoms[:, 2:4] * (most - least + 1)), most - least)
        whole = (edges == 0) | (sizes > planes)
        sizes = np.where(whole, planes, np.maximum(sizes, 1)).astype(np.int64)
        slack = planes - sizes
        anywhere = np.floor(randoms[:, 4:] * (slack + 1))
        around = np.floor(centroids[:, ::-1] + 0.5) - sizes // 2
        starts = np.where(np.isnan(centroids).any(axis=1, keepdims=True), anywhere, around)
        return np.concatenate([np.clip(starts, 0, slack).astype(np.int64), sizes], axis=1)

    def _edges(
        self, randoms: NDArray[np.float64], studies: Sequence[str | None], cell_sizes: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        """Height and width of each window before they vary, shape (N, 2); 0 is the whole plane."""
        table, rows = self._table, self._rows(studies)
        counts = table.counts[rows]
        edges = table.edges[table.starts[rows] + np.minimum(np.floor(randoms * counts).astype(np.int64), counts - 1)]
        if not self.needs_cell_sizes or cell_sizes is None:
            return edges
        areas = np.asarray(cell_sizes, np.float64)
        if areas.shape != (len(studies),):
            raise RecipeError(f"{len(studies)} samples need the size of a cell each, not sizes of shape {areas.shape}")
        known = np.isfinite(areas) & (areas > 0)
        diameters = 2 * np.sqrt(np.where(known, areas, 0) / np.pi)
        return np.where(known[:, None], (self.factor * diameters)[:, None], edges)

    def _rows(self, studies: Sequence[str | None]) -> NDArray[np.int64]:
        """Each study's row of the table."""
        rows = self._table.rows
        return np.fromiter((rows.get(study, 0) for study in studies), np.int64, len(studies))

    @property
    def _studies(self) -> Mapping[str, Sequence[int | WholePlane]]:
        if isinstance(self.size, Mapping):
            return self.size
        if self.size not in ("study", "cell"):
            return {}
        from chammi75.schemas.crop_sizes import crop_sizes

        return crop_sizes().studies

    @cached_property
    def _table(self) -> _Table:
        named = self._studies
        only: Any = self.other if named else self.size
        choices: list[Sequence[Size]] = [(only,), *named.values()]
        counts = np.array([len(choice) for choice in choices], np.int64)
        edges = [_edges_of(size) for choice in choices for size in choice]
        rows: dict[str | None, int] = {study: number for number, study in enumerate(named, 1)}
        return _Table(rows, np.cumsum(counts) - counts, counts, np.array(edges, np.float64))


@dataclass(frozen=True)
class _Table:
    """Sizes of studies: those of row k are ``edges[starts[k] : starts[k] + counts[k]]``; row 0 is for all others."""

    rows: dict[str | None, int]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


def _edges_of(size: Size) -> tuple[int, int]:
    if isinstance(size, str):
        return 0, 0
    return size if isinstance(size, tuple) else (size, size)


def _size(value: Any, name: str, also: str) -> Size:
    """A size, checked, and its numbers as plain ones."""
    if isinstance(value, str) and value == "whole plane":
        return "whole plane"
    if _is_edge(value):
        return int(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(map(_is_edge, value)):
        return int(value[0]), int(value[1])
    raise RecipeError(
        f'{name} of a guided crop is {also}"whole plane", an edge or (height, width) in whole pixels, not {value!r}'
    )


def _own_table(given: Mapping[Any, Any]) -> dict[str, tuple[int | WholePlane, ...]]:
    table: dict[str, tuple[int | WholePlane, ...]] = {}
    for study, sizes in given.items():
        if not isinstance(study, str) or not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
            raise RecipeError(f"sizes of studies are lists by the study's name, not {study!r}: {sizes!r}")
        wrong = [size for size in sizes if size != "whole plane" and not _is_edge(size)]
        if wrong:
            raise RecipeError(f'a size of study {study} is an edge in whole pixels or "whole plane", not {wrong[0]!r}')
        table[study] = tuple("whole plane" if isinstance(size, str) else int(size) for size in sizes)
    if not table:
        raise RecipeError('the mapping of studies is empty: name a study, or give "whole plane" as the size')
    return table


def _is_edge(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def _number(value: Any, name: str, least: float, below: float) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not least <= float(value) < below:
        raise RecipeError(f"{name} of a guided crop is a number from {least} to below {below}, not {value!r}")
    return float(value)
