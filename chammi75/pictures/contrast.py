"""Which pixel values are drawn black and which white.

Microscopes use a fraction of their bit depth, so a plane is stretched between robust percentiles of its own values
before it is shown. Nothing here touches stored pixels: limits are for looking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError
from chammi75.pictures.colours import TRANSMITTED_LIGHT, TRUE_COLOUR

Limits = tuple[float, float]
"""The pixel values that are drawn black and white; the second is always the larger."""

_SAMPLE_PIXELS = 65_536  # the 99.7th percentile of so many rests on 200 values
_NOISE_SPAN = 10.0  # a plane of pure noise spans 5 of its standard deviations and shall not fill the range
_LARGEST = 3.0e38  # within float32, so that no difference of two limits overflows


def display_limits(
    plane: npt.NDArray[Any],
    low: float = 0.5,
    high: float = 99.7,
    *,
    channel_type: str | None = None,
    significant_bits: int | None = None,
) -> Limits:
    """The pixel values of ``plane`` to draw black and white.

    Fluorescence and everything else dark-grounded: the percentiles ``low`` and ``high``, at least ten standard
    deviations of the pixel noise apart, so that an empty plane stays dark. Transmitted light: symmetric around the
    median, so that the background is mid-gray. ``r``, ``g`` and ``b``: the full range, so that white stays white.

    Parameters
    ----------
    plane : numpy.ndarray, shape (H, W)
        Any integer, floating or boolean dtype. NaN and infinities are left out.
    low, high : float
        Percentiles, 0 to 100.
    channel_type : str or None
        What the channel shows, for example ``"bright-field"``.
    significant_bits : int or None
        The bits that the camera used, for ``r``, ``g`` and ``b``.

    Returns
    -------
    (float, float)
        Finite, the second larger than the first, also for constant and empty planes.

    Raises
    ------
    ChammiError
        If ``plane`` is not two-dimensional or not of real numbers, or the percentiles are out of order.

    Notes ----- Values are taken on a regular grid of at most about 65,536 pixels: fast, and the same each time. Where
    those are all alike, the whole plane's extremes decide, so that a few bright spots on black are seen. The noise is
    the median absolute difference of horizontal neighbours, scaled to a standard deviation (Rousseeuw and Croux 1993).

    Examples
    --------
    >>> display_limits(np.arange(1001, dtype=np.uint16).reshape(7, 143), low=0, high=100)
    (0.0, 1000.0)
    >>> display_limits(np.full((4, 4), 7, np.uint8))
    (7.0, 8.0)
    >>> display_limits(np.array([[90, 100, 100, 100, 130]], np.uint8), 0, 100, channel_type="bright-field")
    (70.0, 130.0)
    """
    _check(plane)
    if not 0 <= low < high <= 100:
        raise ChammiError(f"percentiles {low} and {high} are refused: 0 <= low < high <= 100 is needed")
    if channel_type in TRUE_COLOUR:
        return _full_range([plane], significant_bits)
    sample = _finite(_grid(plane))
    if sample.size == 0:
        sample = _finite(plane)  # NaN on the whole grid
        if sample.size == 0:
            return (0.0, 1.0)
    noise = _noise(plane)
    if channel_type in TRANSMITTED_LIGHT:
        return _around_median(plane, sample, low, high, noise)
    lower, upper = (float(value) for value in np.percentile(sample, (low, high)))
    if upper <= lower:
        return _apart(*_extremes(plane))
    return _apart(lower, max(upper, lower + _least_span(upper - lower, noise)))


def channel_limits(
    planes: Sequence[npt.NDArray[Any]], channel_types: Sequence[str | None], significant_bits: int | None = None
) -> list[Limits]:
    """The display limits of all channels of one image.

    As `display_limits` for each, except that ``r``, ``g`` and ``b`` share one scale: otherwise the stain of a
    histological section would change its hue.

    Examples
    --------
    >>> red, green = np.full((2, 2), 900, np.uint16), np.full((2, 2), 100, np.uint16)
    >>> channel_limits([red, green], ["r", "g"])
    [(0.0, 1023.0), (0.0, 1023.0)]
    """
    colour_planes = [plane for plane, kind in zip(planes, channel_types, strict=True) if kind in TRUE_COLOUR]
    for plane in planes:
        _check(plane)
    common = _full_range(colour_planes, significant_bits) if colour_planes else (0.0, 1.0)
    return [
        common if kind in TRUE_COLOUR else display_limits(plane, channel_type=kind)
        for plane, kind in zip(planes, channel_types, strict=True)
    ]


def to_unit(plane: npt.NDArray[Any], limits: Limits) -> npt.NDArray[np.float32]:
    """``plane`` as float32 from 0 (at or below the lower limit, and NaN) to 1 (at or above the upper limit).

    Examples
    --------
    >>> to_unit(np.array([[0, 10, 15, 99]], np.uint8), (10, 20)).tolist()
    [[0.0, 0.0, 0.5, 1.0]]
    """
    lower, upper = _checked_limits(limits)
    if plane.dtype.kind in "bu" and plane.dtype.itemsize <= 2:  # a look-up is three times faster than arithmetic
        values = np.arange(256 if plane.dtype.itemsize == 1 else 65_536, dtype=np.float64)
        table = np.clip((values - lower) / (upper - lower), 0.0, 1.0).astype(np.float32)
        return np.asarray(table[plane.astype(np.uint8) if plane.dtype.kind == "b" else plane], np.float32)
    clipped = np.clip(np.nan_to_num(plane.astype(np.float64), nan=lower, posinf=upper, neginf=lower), lower, upper)
    return ((clipped - lower) / (upper - lower)).astype(np.float32)


def to_8bit(plane: npt.NDArray[Any], limits: Limits) -> npt.NDArray[np.uint8]:
    """``plane`` as uint8: linear between ``limits``, rounded, clipped outside; NaN is 0.

    Parameters
    ----------
    plane : numpy.ndarray
        Any shape; integer, floating or boolean dtype.
    limits : (float, float)
        The values that become 0 and 255.

    Raises
    ------
    ChammiError
        If the limits are not finite or not in order.

    Examples
    --------
    >>> to_8bit(np.array([[0.0, 0.5, 1.0, 2.0, np.nan, -np.inf]], np.float32), (0, 1)).tolist()
    [[0, 128, 255, 255, 0, 0]]
    """
    return np.asarray(np.rint(to_unit(plane, limits) * np.float32(255)), np.uint8)


def _check(plane: npt.NDArray[Any]) -> None:
    if plane.ndim != 2 or plane.dtype.kind not in "buif":
        raise ChammiError(
            f"an array of shape {plane.shape} and dtype {plane.dtype} cannot be shown as a plane: "
            "a two-dimensional array (height, width) of real numbers is needed"
        )


def _checked_limits(limits: Limits) -> Limits:
    lower, upper = float(limits[0]), float(limits[1])
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper and math.isfinite(upper - lower)):
        raise ChammiError(
            f"display limits ({lower}, {upper}) are refused: two finite numbers, the lower first, are needed"
        )
    return lower, upper


def _step(plane: npt.NDArray[Any]) -> int:
    return max(1, math.ceil(math.sqrt(plane.size / _SAMPLE_PIXELS)))


def _grid(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    step = _step(plane)
    return plane[::step, ::step]


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    flat = values.astype(np.float64).ravel()
    if values.dtype.kind == "f":
        flat = np.clip(flat[np.isfinite(flat)], -_LARGEST, _LARGEST)
    return flat


def _extremes(plane: npt.NDArray[Any]) -> Limits:
    """The smallest and largest finite value of the whole ``plane``, which has one."""
    if plane.dtype.kind != "f":
        return float(plane.min()), float(plane.max())
    values = _finite(plane)
    return float(values.min()), float(values.max())


def _noise(plane: npt.NDArray[Any]) -> float:
    """The standard deviation of the pixel noise, from differences of horizontal neighbours."""
    if plane.shape[1] < 2:
        return 0.0
    step = _step(plane)
    first, second = (half.astype(np.float64) for half in (plane[::step, :-1:step], plane[::step, 1::step]))
    width = min(first.shape[1], second.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: dropped in the next line
        differences = np.abs(second[:, :width] - first[:, :width])
    differences = differences[np.isfinite(differences)]
    return 0.0 if differences.size == 0 else float(np.median(differences)) * 1.4826 / math.sqrt(2)


def _least_span(span: float, noise: float) -> float:
    """The range below which a plane would be nothing but amplified noise.

    A fine texture (a checkerboard, say) has such neighbours too, but not the tails of noise: it spans less than 4
    deviations.
    """
    return _NOISE_SPAN * noise if span > 4 * noise else 0.0


def _around_median(
    plane: npt.NDArray[Any], sample: npt.NDArray[np.float64], low: float, high: float, noise: float
) -> Limits:
    lower, middle, upper = (float(value) for value in np.percentile(sample, (low, 50, high)))
    half = max(upper - middle, middle - lower)
    if half == 0:
        smallest, largest = _extremes(plane)
        half = max(largest - middle, middle - smallest) or 1.0
    half = max(half, _least_span(upper - lower, noise) / 2)
    return _apart(middle - half, middle + half)


def _apart(lower: float, upper: float) -> Limits:
    """``lower`` and ``upper``, pulled apart where they are one number or nearly so."""
    lower, upper = max(lower, -_LARGEST), min(upper, _LARGEST)
    least = max(abs(lower) * 1e-12, 1e-30)  # below that, float64 division loses all steps in between
    return (lower, upper) if upper - lower > least else (lower, lower + max(1.0, abs(lower) * 1e-6))


def _full_range(planes: Sequence[npt.NDArray[Any]], significant_bits: int | None) -> Limits:
    """0 and the largest value that the camera could give, for the planes of one colour image."""
    if significant_bits is not None:
        if not 1 <= significant_bits <= 64:
            raise ChammiError(f"significant_bits = {significant_bits} is refused: 1 to 64 are possible")
        return (0.0, float(2**significant_bits - 1))
    tops = [_extremes(plane)[1] for plane in planes if _finite(plane).size]
    top = max(tops, default=0.0)
    if any(plane.dtype.kind == "f" for plane in planes) and top <= 1.0:
        return (0.0, 1.0)
    depths = (1,) if all(plane.dtype.kind == "b" for plane in planes) else (8, 10, 12, 14, 16)
    return (0.0, next((float(2**bits - 1) for bits in depths if top <= 2**bits - 1), top))
