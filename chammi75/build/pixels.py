"""How planes of any dtype become uint8, uint16 or float32: by a stated rule that keeps every value, or not at all.

| dtype of the file | stored as |
|---|---|
| uint8, uint16, float32 | as it is |
| bool | uint8 (0 and 1) |
| int8, int16 without negative values | uint8, uint16 |
| other integers, all values in 0 … 65535 | uint16 |
| other integers, all values within ±2^24 | float32, which has them all exactly |
| float16 | float32, which has them all exactly |
| float64 | float32, rounded to the nearest; refused where a value is beyond its range |
| anything else | refused |

Values are never scaled, shifted or wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError

Plane = NDArray[Any]
_EXACT_FLOAT32 = 2**24


def to_stored(plane: Plane) -> tuple[Plane, str | None]:
    """A plane in a dtype that a store holds, and the step that it took (None if it was in one already).

    Parameters
    ----------
    plane : ndarray, shape (H, W)

    Returns
    -------
    plane : ndarray, shape (H, W), uint8, uint16 or float32
    step : str or None

    Raises
    ------
    ChammiError
        If no rule keeps its values.

    Examples
    --------
    >>> import numpy as np
    >>> plane, step = to_stored(np.array([[0, 300]], np.int16))
    >>> plane.dtype.name, step
    ('uint16', 'int16 stored as uint16, values unchanged')
    """
    name = plane.dtype.name
    if name in ("uint8", "uint16", "float32"):
        return plane, None
    if name == "bool":
        return plane.astype(np.uint8), "bool stored as uint8, 0 and 1"
    if name == "float16":
        return plane.astype(np.float32), "float16 stored as float32, values unchanged"
    if name == "float64":
        return _from_float64(plane)
    if plane.dtype.kind in "iu":
        return _from_integers(plane)
    raise ChammiError(f"pixels of dtype {name} cannot be stored; integers and real floats can")


def _from_integers(plane: Plane) -> tuple[Plane, str]:
    name = plane.dtype.name
    lowest, highest = int(plane.min()), int(plane.max())
    if lowest >= 0 and name == "int8":
        target: Any = np.uint8
    elif lowest >= 0 and highest <= np.iinfo(np.uint16).max:
        target = np.uint16
    elif lowest >= -_EXACT_FLOAT32 and highest <= _EXACT_FLOAT32:
        target = np.float32
    else:
        raise ChammiError(
            f"{name} pixels from {lowest} to {highest} cannot be stored exactly: uint16 takes 0 to 65535, float32 whole"
            f" numbers within ±{_EXACT_FLOAT32}"
        )
    return plane.astype(target), f"{name} stored as {np.dtype(target).name}, values unchanged"


def _from_float64(plane: Plane) -> tuple[Plane, str]:
    with np.errstate(over="ignore"):
        stored = plane.astype(np.float32)
    if bool((np.isinf(stored) & ~np.isinf(plane)).any()):
        raise ChammiError("float64 pixels beyond the range of float32 (±3.4e38) cannot be stored")
    exact = bool(((stored == plane) | (np.isnan(stored) & np.isnan(plane))).all())
    return stored, f"float64 stored as float32, {'values unchanged' if exact else 'rounded to the nearest'}"


def to_one_dtype(planes: Sequence[Plane]) -> tuple[list[Plane], list[str]]:
    """The planes of one image in one dtype, the smallest that has all their values; and the steps that it took.

    Raises
    ------
    ChammiError
        If no rule keeps the values of a plane.
    """
    stored, steps = [], []
    for plane in planes:
        converted, step = to_stored(plane)
        stored.append(converted)
        if step is not None and step not in steps:
            steps.append(step)
    common = np.result_type(*(plane.dtype for plane in stored))
    for number, plane in enumerate(stored):
        if plane.dtype != common:
            stored[number] = plane.astype(common)
            steps.append(f"plane {number + 1}: {plane.dtype.name} stored as {common.name}, values unchanged")
    return stored, steps
