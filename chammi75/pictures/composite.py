"""All channels of an image in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError
from chammi75.pictures.colours import GRAY_BASE, RGB, TRUE_COLOUR, channel_colours
from chammi75.pictures.contrast import Limits, channel_limits, to_unit
from chammi75.pictures.reduction import fitted_size, resized_plane

Planes = npt.NDArray[Any] | Sequence[npt.NDArray[Any] | None]
"""An image: an array (C, H, W), or one (H, W) per channel, None where a plane is missing."""


def composite(
    planes: Planes,
    channel_types: Sequence[str | None],
    *,
    limits: Sequence[Limits] | None = None,
    significant_bits: int | None = None,
    longest: int | None = None,
) -> npt.NDArray[np.uint8]:
    """All channels of an image as one picture in colour.

    Fluorescence adds up, each channel in the colour of its type, softly enough that overlaps keep a hue. Transmitted
    light and electron microscopy are a gray base, and ``r``, ``g``, ``b`` a base in true colour; fluorescence lies over
    the base by Porter and Duff's *over* (1984), as opaque as it is bright.

    Parameters
    ----------
    planes : numpy.ndarray, shape (C, H, W), or sequence of (H, W)
        All of one height and width; None for a missing plane, which adds nothing.
    channel_types : sequence of str or None
        What each channel shows.
    limits : sequence of (float, float), optional
        The values drawn black and white, one pair per channel; `channel_limits` decides if left out.
    significant_bits : int, optional
        The bits that a colour camera used.
    longest : int, optional
        The longer side of the picture in pixels; the planes' own size if left out. Planes are averaged, not skipped,
        when they shrink.

    Returns
    -------
    numpy.ndarray, shape (H, W, 3), uint8

    Raises
    ------
    ChammiError
        If there is no plane, shapes differ, or the numbers of planes, types and limits differ.

    Examples
    --------
    >>> composite(np.array([[[0, 255]]], np.uint8), ["nucleus"], limits=[(0, 255)]).tolist()
    [[[0, 0, 0], [64, 120, 255]]]
    """
    units = scaled_planes(planes, channel_types, limits=limits, significant_bits=significant_bits, longest=longest)
    return blended(units, channel_types)


def scaled_planes(
    planes: Planes,
    channel_types: Sequence[str | None],
    *,
    limits: Sequence[Limits] | None = None,
    significant_bits: int | None = None,
    longest: int | None = None,
) -> list[npt.NDArray[np.float32] | None]:
    """Each plane between its display limits, float32 from 0 to 1, in the size in which it is shown.

    Parameters, errors: as `composite`. None stays None.
    """
    present = [(position, plane) for position, plane in enumerate(planes) if plane is not None]
    _check(planes, [plane for _, plane in present], channel_types, limits)
    types = [channel_types[position] for position, _ in present]
    if limits is None:
        chosen = channel_limits([plane for _, plane in present], types, significant_bits)
    else:
        chosen = [limits[position] for position, _ in present]
    units: list[npt.NDArray[np.float32] | None] = [None] * len(channel_types)
    for (position, plane), pair in zip(present, chosen, strict=True):
        unit = to_unit(plane, pair)
        units[position] = (
            unit if longest is None else resized_plane(unit, *fitted_size(plane.shape[0], plane.shape[1], longest))
        )
    return units


def blended(
    units: Sequence[npt.NDArray[np.float32] | None], channel_types: Sequence[str | None]
) -> npt.NDArray[np.uint8]:
    """The picture of planes that are already between 0 and 1, at least one of them not None.

    Examples
    --------
    >>> gray, nuclei = np.array([[0.5, 0.5]], np.float32), np.array([[0.0, 1.0]], np.float32)
    >>> blended([gray, nuclei], ["bright-field", "nucleus"]).tolist()
    [[[128, 128, 128], [64, 120, 255]]]
    """
    shape = next(unit.shape for unit in units if unit is not None)
    base = np.zeros((*shape, 3), np.float32)
    grays = [unit for unit, kind in zip(units, channel_types, strict=True) if unit is not None and kind in GRAY_BASE]
    for gray in grays:
        base += gray[..., None] / np.float32(len(grays))
    lights: list[tuple[npt.NDArray[np.float32], RGB]] = []
    for unit, kind, colour in zip(units, channel_types, channel_colours(channel_types), strict=True):
        if unit is None or kind in GRAY_BASE:
            continue
        if kind in TRUE_COLOUR:
            base[..., "rgb".index(str(kind))] += unit
        else:
            lights.append((unit, colour))
    np.clip(base, 0.0, 1.0, out=base)
    if not lights:
        return _bytes(base)
    if not base.any():
        return _bytes(_added(lights))
    light = _added([(unit * unit, colour) for unit, colour in lights])  # squared: haze would veil the base
    light += base * (1.0 - light.max(axis=-1, keepdims=True))
    return _bytes(light)


def _added(lights: Sequence[tuple[npt.NDArray[np.float32], RGB]]) -> npt.NDArray[np.float32]:
    """Planes in their colours, added so that bright pixels keep a hue.

    A plain sum turns cells white wherever three stains overlap. Here a channel counts in proportion to its share of the
    pixel's brightest channel, and the sum is the *screen* of graphics programs, 1 - (1 - a)(1 - b), which never exceeds
    1. One channel alone is exactly its colour.
    """
    brightest = np.maximum.reduce([unit for unit, _ in lights])
    remaining = np.ones((*brightest.shape, 3), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # where all are black
        for unit, colour in lights:
            share = np.nan_to_num(unit * (unit / brightest), nan=0.0)
            for component in range(3):
                if colour[component]:
                    remaining[..., component] *= 1.0 - share * np.float32(colour[component] / 255)
    return np.subtract(1.0, remaining, out=remaining)


def tinted(unit: npt.NDArray[np.float32], colour: RGB) -> npt.NDArray[np.uint8]:
    """One plane between 0 and 1 alone in its colour.

    Examples
    --------
    >>> tinted(np.array([[0.0, 1.0]], np.float32), (255, 150, 20)).tolist()
    [[[0, 0, 0], [255, 150, 20]]]
    """
    return _bytes(unit[..., None] * (np.array(colour, np.float32) / np.float32(255)))


def _bytes(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(picture, 0.0, 1.0) * np.float32(255)), np.uint8)


def _check(
    planes: Planes,
    present: Sequence[npt.NDArray[Any]],
    channel_types: Sequence[str | None],
    limits: Sequence[Limits] | None,
) -> None:
    if len(planes) != len(channel_types) or (limits is not None and len(limits) != len(channel_types)):
        counts = f"{len(planes)} planes, {len(channel_types)} channel types"
        counts += "" if limits is None else f" and {len(limits)} pairs of limits"
        raise ChammiError(f"{counts} do not belong to one image: one of each per channel is needed")
    if not present:
        raise ChammiError("an image without a plane cannot be drawn: at least one plane is needed")
    shapes = sorted({plane.shape for plane in present})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise ChammiError(f"planes of shapes {shapes} cannot be drawn as one image: all need one (height, width)")
