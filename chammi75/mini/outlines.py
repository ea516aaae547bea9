"""Outlines of cells and nuclei, and how neighbouring cells share the ground.

An outline is an ellipse whose radius wobbles with the angle. Cells that would overlap meet where both are equally far
along their own radius (a multiplicatively weighted Voronoi border), in space that a smooth noise has warped: so borders
are curved, cells pack where they are crowded, and keep their own lobes where they are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from chammi75.mini.textures import Image, band_limited_noise

#: Directions per quarter turn in the table of an outline's radii; a power of two.
_STEPS = 256


@dataclass(frozen=True)
class Outline:
    """A closed smooth curve around (y, x), in pixels.

    ``radius`` is the mean radius, ``elongation`` the ratio of the axes, ``angle`` the direction of the long one in
    radians from the x axis towards y, ``lobes`` are (number around the circle, amplitude as a share of the radius,
    phase).
    """

    y: float
    x: float
    radius: float
    elongation: float = 1.0
    angle: float = 0.0
    lobes: tuple[tuple[int, float, float], ...] = ()

    def reach(self, y: Image, x: Image) -> Image:
        """How far along its radius each point (y, x) lies: 0 in the centre, 1 on the outline, above 1 outside."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        across, along = y - self.y, x - self.x
        u = (along * cosine + across * sine) / np.sqrt(self.elongation)
        v = (across * cosine - along * sine) * np.sqrt(self.elongation)
        distance = np.hypot(u, v)
        if not self.lobes:
            return np.asarray(distance / self.radius)
        # the wobble is read from a fine table, by a stand-in for the angle that runs from 0 to 4 without an arc tangent
        share = v / np.maximum(np.abs(u) + np.abs(v), 1e-12)
        stand_in = np.where(u >= 0.0, share, 2.0 - share)
        where = (stand_in * _STEPS + (4 * _STEPS + 0.5)).astype(np.int64) & (4 * _STEPS - 1)
        return np.asarray(distance / self._radii()[where])

    def _radii(self) -> Image:
        """Radius at each of the table's directions."""
        wobble = np.ones(4 * _STEPS)
        for order, amplitude, phase in self.lobes:
            cosine, sine = _harmonic(order)
            wobble += (amplitude * np.cos(phase)) * cosine - (amplitude * np.sin(phase)) * sine
        return np.asarray(self.radius * np.maximum(wobble, 0.25))

    def window(self, shape: tuple[int, int], margin: float = 0.0) -> tuple[slice, slice]:
        """The part of an image of ``shape`` that the outline, and ``margin`` px around it, can touch.

        The slices are empty where the outline lies outside.
        """
        swelling = 1.0 + sum(abs(amplitude) for _, amplitude, _ in self.lobes)
        long = self.radius * swelling * np.sqrt(self.elongation)
        short = self.radius * swelling / np.sqrt(self.elongation)
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        half_y = np.hypot(long * sine, short * cosine) + margin + 2.0
        half_x = np.hypot(long * cosine, short * sine) + margin + 2.0
        return _clip(self.y, half_y, shape[0]), _clip(self.x, half_x, shape[1])


def _clip(centre: float, half: float, length: int) -> slice:
    start = min(max(int(np.floor(centre - half)), 0), length)
    return slice(start, max(min(int(np.ceil(centre + half)) + 1, length), start))


@lru_cache(maxsize=32)
def _harmonic(order: int) -> tuple[Image, Image]:
    """Cosine and sine of ``order`` times the angle of each entry of a table of radii; see `Outline.reach`."""
    stand_in = np.arange(4 * _STEPS) / _STEPS
    # (1, 0), (0, 1), (-1, 0), (0, -1) lie at 0, 1, 2, 3, with straight lines between them
    u = np.abs(stand_in - 2.0) - 1.0
    v = np.where(stand_in < 3.0, 1.0 - np.abs(stand_in - 1.0), stand_in - 4.0)
    turn = order * np.arctan2(v, u)
    cosine, sine = np.cos(turn), np.sin(turn)
    cosine.setflags(write=False)
    sine.setflags(write=False)
    return cosine, sine


def random_lobes(
    rng: np.random.Generator, orders: Sequence[int], *, strength: float
) -> tuple[tuple[int, float, float], ...]:
    """Lobes of the given orders around the circle; higher orders are weaker, as on real outlines."""
    amplitudes = strength * rng.standard_normal(len(orders)) / np.sqrt(np.asarray(orders, dtype=float) / min(orders))
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    return tuple((order, float(a), float(p)) for order, a, p in zip(orders, amplitudes, phases, strict=True))


def scatter(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    spacing_px: float,
    coverage: float,
    colony_px: float,
    margin_px: float,
    tries: int = 6,
) -> NDArray[np.float64]:
    """Positions of cells that keep a distance and sit in colonies: float64 of shape (n, 2), as (y, x).

    Parameters
    ----------
    spacing_px : float
        Smallest distance of two cells.
    coverage : float
        Share of the ground where cells may sit, 0 to 1.
    colony_px : float
        Typical size of colonies and gaps.
    margin_px : float
        How far outside the image cells are placed too, so that some reach into it.
    tries : int
        Candidates per place; more fill the ground more tightly.
    """
    height, width = shape[0] + 2 * margin_px, shape[1] + 2 * margin_px
    # the ground on a coarse grid: colonies are smooth
    grid = 16.0
    cells = (int(np.ceil(height / grid)) + 1, int(np.ceil(width / grid)) + 1)
    ground = band_limited_noise(rng, cells, period_px=max(colony_px / grid, 2.0), octaves=0.6)
    threshold = np.quantile(ground, 1.0 - coverage) if coverage < 1.0 else -np.inf
    count = int(tries * height * width / spacing_px**2) + 1
    candidates = rng.uniform((0.0, 0.0), (height, width), size=(count, 2))
    kept = np.empty_like(candidates)
    found = 0
    for y, x in candidates:
        if ground[int(y / grid), int(x / grid)] < threshold:
            continue
        if found and np.min((kept[:found, 0] - y) ** 2 + (kept[:found, 1] - x) ** 2) < spacing_px**2:
            continue
        kept[found] = y, x
        found += 1
    return kept[:found] - margin_px


@dataclass(frozen=True)
class Ground:
    """Who owns each pixel.

    ``label`` (int32) is 0 on bare ground, else the cell's index + 1; ``reach`` (float64) how far out in its cell a
    pixel lies, 0 to 1; ``edge_px`` (float64) about how far it is from the cell's border, in pixels.
    """

    label: NDArray[np.int32]
    reach: Image
    edge_px: Image

    def areas(self, count: int, view: tuple[slice, slice]) -> NDArray[np.int64]:
        """Pixels of each of ``count`` cells inside ``view``."""
        return np.bincount(self.label[view].ravel(), minlength=count + 1)[1 : count + 1].astype(np.int64)


def warp(rng: np.random.Generator, shape: tuple[int, int], waves: Sequence[tuple[float, float]]) -> tuple[Image, Image]:
    """Coordinates (y, x) of each pixel, displaced by smooth noise: ``waves`` are (period_px, amplitude_px)."""
    y, x = np.mgrid[0.0 : shape[0], 0.0 : shape[1]]
    for period, amplitude in waves:
        y += amplitude * band_limited_noise(rng, shape, period_px=period)
        x += amplitude * band_limited_noise(rng, shape, period_px=period)
    return y, x


def share_ground(
    cells: Sequence[Outline], taut: Sequence[bool], shape: tuple[int, int], coordinates: tuple[Image, Image]
) -> Ground:
    """Give each pixel to the cell along whose radius it lies least far, if it lies inside any.

    Parameters
    ----------
    cells : sequence of Outline
        The cells as they would be if alone.
    taut : sequence of bool
        Which cells keep their outline in warped space too, such as those that are rounded for mitosis.
    shape : tuple of int
        Height and width of the image.
    coordinates : tuple of numpy.ndarray
        From `warp`.
    """
    best = np.full(shape, np.inf)
    second = np.full(shape, np.inf)
    label = np.zeros(shape, dtype=np.int32)
    radius = np.ones(shape)
    slack = max(
        float(np.abs(part - grid).max())
        for part, grid in zip(coordinates, np.ogrid[: shape[0], : shape[1]], strict=True)
    )
    for index, cell in enumerate(cells):
        window = cell.window(shape, margin=0.0 if taut[index] else slack)
        y, x = np.mgrid[window] if taut[index] else (coordinates[0][window], coordinates[1][window])
        if y.size == 0:
            continue
        reach = cell.reach(y, x)
        closer = reach < best[window]
        second[window] = np.where(closer, best[window], np.minimum(second[window], reach))
        best[window] = np.where(closer, reach, best[window])
        label[window] = np.where(closer, index + 1, label[window])
        radius[window] = np.where(closer, cell.radius, radius[window])
    outside = best >= 1.0
    label[outside] = 0
    edge = np.minimum(1.0 - best, 0.5 * (np.minimum(second, 1e6) - best)) * radius
    edge[outside] = 0.0
    return Ground(label=label, reach=np.minimum(best, 1.0), edge_px=edge)
