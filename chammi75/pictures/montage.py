"""Many pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError
from chammi75.pictures.colours import RGB


def montage(
    pictures: Sequence[npt.NDArray[np.uint8]],
    columns: int | None = None,
    gap: int = 4,
    background: RGB = (255, 255, 255),
) -> npt.NDArray[np.uint8]:
    """``pictures`` in rows, in order, each in the middle of a cell as large as the largest.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, shape (H, W, 3), uint8
        They may differ in size.
    columns : int, optional
        Pictures in a row; about as many as there are rows if left out.
    gap : int
        Pixels between cells; none around them.
    background : (int, int, int)
        What shows between them.

    Returns
    -------
    numpy.ndarray, shape (h, w, 3), uint8
        (0, 0, 3) if there are no pictures.

    Raises
    ------
    ChammiError
        If ``columns`` is below 1, ``gap`` below 0, or a picture is not (H, W, 3) of uint8.

    Examples
    --------
    >>> dark = np.zeros((2, 3, 3), np.uint8)
    >>> montage([dark, dark, dark], columns=2, gap=1).shape
    (5, 7, 3)
    """
    if (columns is not None and columns < 1) or gap < 0:
        raise ChammiError(f"columns = {columns} and gap = {gap} are refused: at least 1 column and a gap of 0 or more")
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ChammiError(
                f"an array of shape {picture.shape} and dtype {picture.dtype} is no picture: "
                "shape (height, width, 3) and dtype uint8 are needed"
            )
    if not pictures:
        return np.zeros((0, 0, 3), np.uint8)
    across = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    down = -(-len(pictures) // across)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    sheet = np.full(
        (down * (height + gap) - gap, across * (width + gap) - gap, 3), np.array(background, np.uint8), np.uint8
    )
    for position, picture in enumerate(pictures):
        top = position // across * (height + gap) + (height - picture.shape[0]) // 2
        left = position % across * (width + gap) + (width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
