"""An image as a row of tiles: all channels together, then each alone with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chammi75.errors import ChammiError
from chammi75.pictures.colours import RGB, channel_colours
from chammi75.pictures.composite import Planes, blended, scaled_planes, tinted
from chammi75.pictures.contrast import Limits
from chammi75.pictures.lettering import draw_line, shortened
from chammi75.pictures.reduction import fitted_size
from chammi75.pictures.scale_bar import with_scale_bar

BACKGROUND: RGB = (13, 15, 20)
"""Behind tiles and captions: near black, as fluorescence needs it."""

_TEXT: RGB = (236, 239, 244)
_MUTED: RGB = (150, 158, 172)
_GAP = 6


def channel_strip(
    planes: Planes,
    channel_types: Sequence[str | None],
    *,
    captions: Sequence[str | None] | None = None,
    thumb: int = 160,
    columns: int = 8,
    with_composite: bool = True,
    pixel_size_um: float | None = None,
    font_size: int | None = None,
    limits: Sequence[Limits] | None = None,
    significant_bits: int | None = None,
) -> npt.NDArray[np.uint8]:
    """The channels of an image side by side, each in its colour with its name under it.

    Parameters
    ----------
    planes : numpy.ndarray, shape (C, H, W), or sequence of (H, W) or None
        A missing plane (None) is shown as a tile that says so.
    channel_types : sequence of str or None
        What each channel shows; written under the name.
    captions : sequence of str or None, optional
        The name of each channel, as its source calls it; shortened where it is too long.
    thumb : int
        The longer side of a tile in pixels.
    columns : int
        Tiles in a row; more go to further rows.
    with_composite : bool
        Whether the first tile shows all channels together; an image of one channel is drawn once.
    pixel_size_um : float, optional
        The size of a pixel of ``planes`` in micrometres, for a scale bar on the first tile.
    font_size : int, optional
        The size of the names in pixels; chosen by the size of the tiles if left out.
    limits, significant_bits
        As `chammi75.pictures.composite.composite` takes them.

    Returns
    -------
    numpy.ndarray, shape (h, w, 3), uint8

    Raises
    ------
    ChammiError
        As `composite`; if captions do not match the channels, or ``thumb`` or ``columns`` is not positive.

    Examples
    --------
    >>> strip = channel_strip(np.zeros((2, 50, 100), np.uint16), ["nucleus", "er"], thumb=100)
    >>> strip.shape[1]  # three tiles and four gaps
    324
    """
    names = [None] * len(channel_types) if captions is None else list(captions)
    if len(names) != len(channel_types):
        raise ChammiError(f"{len(names)} captions for {len(channel_types)} channels: one for each is needed")
    if thumb < 1 or columns < 1:
        raise ChammiError(f"thumb = {thumb} and columns = {columns} are refused: both must be 1 or more")
    units = scaled_planes(planes, channel_types, limits=limits, significant_bits=significant_bits, longest=thumb)
    shape = next(plane.shape for plane in planes if plane is not None)
    shown_pixel_um = None if pixel_size_um is None or not all(shape) else pixel_size_um * max(shape) / thumb

    size = fitted_size(shape[0], shape[1], thumb)
    tiles: list[_Tile] = []
    with_composite = with_composite and len(units) > 1  # one channel is the whole image
    if with_composite:
        together = with_scale_bar(blended(units, channel_types), shown_pixel_um)
        tiles.append(_Tile(together, "all channels", f"{len(channel_types)} channels", None))
    for unit, kind, name, colour in zip(units, channel_types, names, channel_colours(channel_types), strict=True):
        picture = _absent(*size) if unit is None else tinted(unit, colour)
        label = name if name and name.strip() else kind
        under = kind if label != kind and (label or "").casefold() != (kind or "").casefold() else None
        tiles.append(_Tile(picture, label or "unknown", under, colour))
    if not with_composite:
        tiles[0] = replace(tiles[0], picture=with_scale_bar(tiles[0].picture, shown_pixel_um))
    return _arranged(tiles, *size, columns, font_size)


@dataclass(frozen=True)
class _Tile:
    """A picture, the two lines under it, and the colour of its mark."""

    picture: npt.NDArray[np.uint8]
    name: str
    kind: str | None
    colour: RGB | None


def _arranged(
    tiles: Sequence[_Tile], height: int, width: int, columns: int, font_size: int | None
) -> npt.NDArray[np.uint8]:
    """``tiles`` of ``height`` x ``width`` in rows, captions under them."""
    from PIL import Image, ImageDraw

    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    name_size = font_size or (13 if width >= 100 else 11)
    kind_size = max(10, round(name_size * 0.85))
    has_kinds = any(tile.kind for tile in tiles)
    caption = name_size + 9 + (kind_size + 5 if has_kinds else 0)
    canvas = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, rows * (height + caption + _GAP) + _GAP), color=BACKGROUND
    )
    draw = ImageDraw.Draw(canvas)
    for position, tile in enumerate(tiles):
        left = _GAP + (position % columns) * (width + _GAP)
        top = _GAP + (position // columns) * (height + caption + _GAP)
        if tile.picture.size:
            canvas.paste(Image.fromarray(tile.picture), (left, top))
        indent = 0
        baseline = top + height + 5 + name_size
        if tile.colour is not None:
            mark = name_size - 4
            draw.rounded_rectangle((left + 1, baseline - mark, left + mark, baseline - 1), radius=2, fill=tile.colour)
            indent = mark + 5
        name = shortened(tile.name, width - indent, name_size)
        draw_line(draw, (left + indent, baseline), name, name_size, _TEXT)
        if tile.kind:
            kind = shortened(tile.kind, width - indent, kind_size)
            draw_line(draw, (left + indent, baseline + kind_size + 5), kind, kind_size, _MUTED)
    return np.array(canvas)


def _absent(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A hatched tile that says that the plane is missing; never to be mistaken for a dark plane."""
    rows, columns = np.indices((height, width))
    hatched = np.where(((rows + columns) // 6 % 2 == 0)[..., None], np.uint8(34), np.uint8(48))
    tile = np.repeat(hatched, 3, axis=2).astype(np.uint8)
    if height < 16 or width < 48:
        return tile
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(tile)
    draw = ImageDraw.Draw(canvas)
    draw_line(draw, (width / 2, height / 2 + 4), "missing", 12, _TEXT, middle=True)
    return np.array(canvas)
