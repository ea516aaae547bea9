"""How large things are: a bar of a round length."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError
from chammi75.pictures.lettering import draw_line, font

_SMALLEST_SIDE = 48  # below that a label covers what it should explain
_SHARE = 0.2


def round_length_um(width_um: float) -> float:
    """The 1, 2 or 5 times a power of ten that is nearest, on a logarithmic scale, to a fifth of ``width_um``.

    Examples
    --------
    >>> [round_length_um(width) for width in (4.0, 100.0, 660.0)]
    [1.0, 20.0, 100.0]
    """
    target = width_um * _SHARE
    power = math.floor(math.log10(target))
    lengths = [float(f"{digit}e{exponent}") for exponent in (power, power + 1) for digit in (1, 2, 5)]
    return min(lengths, key=lambda length: abs(math.log(length / target)))


def length_text(length_um: float) -> str:
    """A length with the unit that people use for it.

    Examples
    --------
    >>> length_text(0.5), length_text(20.0), length_text(2000.0)
    ('500 nm', '20 µm', '2 mm')
    """
    if length_um < 1:
        return f"{length_um * 1000:g} nm"
    return f"{length_um:g} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"


def with_scale_bar(
    rgb: npt.NDArray[np.uint8], pixel_size_um: float | None, *, margin: int | None = None
) -> npt.NDArray[np.uint8]:
    """A copy of ``rgb`` with a scale bar in its lower right corner.

    The bar is white with a dark outline, about a fifth of the width, its length a round number that is written over it.

    Parameters
    ----------
    rgb : numpy.ndarray, shape (H, W, 3), uint8
    pixel_size_um : float or None
        The size in micrometres of one pixel *of this picture*: after it was reduced, larger than the microscope's. None
        where it is unknown: then there is no bar.
    margin : int, optional
        Pixels between the bar and the edges.

    Returns
    -------
    numpy.ndarray, shape (H, W, 3), uint8
        Unchanged where the pixel size is None or a side is below 48 pixels.

    Raises
    ------
    ChammiError
        If the pixel size is not a positive number.

    Examples
    --------
    >>> picture = np.zeros((200, 200, 3), np.uint8)
    >>> bool(with_scale_bar(picture, 0.5).any()), bool(with_scale_bar(picture, None).any())
    (True, False)
    """
    if pixel_size_um is None:
        return rgb
    if not (math.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ChammiError(f"pixel size {pixel_size_um} µm is refused: a positive number is needed, or None if unknown")
    height, width = rgb.shape[:2]
    if min(height, width) < _SMALLEST_SIDE:
        return rgb
    from PIL import Image, ImageDraw

    length_um = round_length_um(width * pixel_size_um)
    length = max(1, round(length_um / pixel_size_um))
    thickness = max(3, round(min(height, width) / 90))
    size = max(10, min(round(max(height, width) / 26), height // 8, 32))
    inset = max(6, round(min(height, width) / 40)) if margin is None else margin

    canvas = Image.fromarray(np.ascontiguousarray(rgb))
    draw = ImageDraw.Draw(canvas)
    right, bottom = width - inset, height - inset
    left, top = right - length, bottom - thickness
    draw.rectangle((left - 1, top - 1, right, bottom), fill=(0, 0, 0))
    draw.rectangle((left, top, right - 1, bottom - 1), fill=(255, 255, 255))

    text = length_text(length_um)
    half = font(size).getlength(text) / 2 + 3
    middle = min((left + right) / 2, width - half)  # a label wider than its bar stays in the picture
    draw_line(draw, (middle, top - max(4, size // 3)), text, size, (255, 255, 255), middle=True, outline=(0, 0, 0))
    return np.array(canvas)
