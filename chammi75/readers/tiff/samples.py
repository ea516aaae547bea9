"""What the samples of a TIFF page mean: which are channels, which is alpha, and what is left as the file stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chammi75.readers.tiff.libtiff import is_left_to_libtiff
from chammi75.readers.tiff.palette import expand_map, shows_intensities

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_NAMES: dict[int, tuple[str, ...]] = {
    _RGB: ("r", "g", "b"),
    _CMYK: ("c", "m", "y", "k"),
    _YCBCR: ("y", "cb", "cr"),
    _LAB: ("l", "a", "b"),
}
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_UNSPECIFIED = 0
_DECODED_TO_RGB = (6, 7, 33007, 34892)  # JPEG: tifffile asks for RGB
_LOSSY = {6: "JPEG", 7: "JPEG", 33007: "JPEG", 34892: "JPEG"}


@dataclass(frozen=True)
class Samples:
    """How the samples of one page become channels.

    Parameters
    ----------
    kept : tuple of int
        The samples that are channels, in order.
    names : tuple of (str or None)
        Their names.
    rgb : bool
        Whether they are red, green and blue.
    steps, notes : tuple of str
        As in ``Series``.
    palette : ndarray of uint8 or uint16, shape (n, 1 or 3), optional
        What the first sample's values stand for, where they are numbers of colours; ``kept`` counts its columns then.
    """

    kept: tuple[int, ...]
    names: tuple[str | None, ...]
    rgb: bool
    steps: tuple[str, ...]
    notes: tuple[str, ...]
    palette: np.ndarray | None = None


def describe_samples(page: Any, *, from_microscope: bool) -> Samples:
    """What the samples of a ``tifffile.TiffPage`` mean.

    Parameters
    ----------
    page : tifffile.TiffPage
    from_microscope : bool
        Whether the file is of a dialect that microscopy software writes, where a colour map is always a display's.
    """
    photometric, count, compression = int(page.photometric), int(page.samplesperpixel), int(page.compression)
    steps: list[str] = []
    notes: list[str] = []
    colors: tuple[str | None, ...] = _NAMES.get(photometric, ())
    if photometric == _YCBCR and compression in _DECODED_TO_RGB:
        colors = _NAMES[_RGB]
        steps.append("JPEG YCbCr -> RGB")
    elif photometric == _YCBCR and is_left_to_libtiff(page):
        colors = _NAMES[_RGB]
        steps.append("YCbCr -> RGB")
        notes.append("its colours are subsampled")
    elif photometric in (_CMYK, _YCBCR, _LAB):
        notes.append(f"its colours are {'-'.join(name for name in colors if name)}, kept as stored")
    if len(colors) > count:
        colors = ()
    rgb = colors == _NAMES[_RGB]
    colors = colors or (None,)

    # Samples beyond the colours are described from the last one backwards: ExtraSamples lists only the extra ones.
    extra = [int(kind) for kind in page.extrasamples][-(count - len(colors)) :] if count > len(colors) else []
    kept, names = list(range(len(colors))), list(colors)
    for sample in range(len(colors), count):
        place = sample - (count - len(extra))
        kind = extra[place] if place >= 0 else None
        if kind in _ALPHA or (kind is None and rgb and count == 4):
            steps.append("alpha dropped")
            continue
        kept.append(sample)
        names.append(None)
        if kind == _UNSPECIFIED and len(colors) > 1:
            notes.append(f"sample {sample} is of no stated meaning; it is kept as a channel")
    rgb = rgb and len(kept) == 3

    palette: np.ndarray | None = None
    if photometric == _PALETTE:
        stored = page.colormap
        if stored is None or from_microscope or shows_intensities(stored.T):
            notes.append("pseudo-coloured: the stored values are the grey values, the colour map is only for display")
        else:
            palette = expand_map(stored.T)
            rgb = palette.shape[1] == 3
            kept, names = list(range(palette.shape[1])), list(_NAMES[_RGB] if rgb else (None,))
            steps.append("palette expanded to red, green, blue" if rgb else "palette expanded to grey")
    if photometric == _WHITE_IS_ZERO and "PhotometricInterpretation" in page.tags:
        notes.append("0 is white in this file; the values are kept as stored")
    orientation = page.tags.valueof(274, 1)
    if orientation != 1:
        notes.append(f"the file asks to be shown turned or mirrored (Orientation {orientation}); it is read as stored")
    if compression in _LOSSY:
        notes.append(f"compressed with loss ({_LOSSY[compression]})")
    bits = page.bitspersample
    if palette is not None:
        pass
    elif bits == 1:
        steps.append("bits 1 -> uint8 0/1")
    elif bits not in (8, 16, 32, 64):
        steps.append(f"bits {bits} -> {page.dtype}")
    return Samples(tuple(kept), tuple(names), rgb, tuple(steps), tuple(notes), palette)
