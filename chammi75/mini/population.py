"""Who is in the picture: the cells of a culture as truth and guidance files list them."""

from __future__ import annotations

import numpy as np

from chammi75.mini.culture import Culture
from chammi75.mini.nuclei import Nucleus, chromosomes
from chammi75.mini.truth import CellTruth


def visible_cells(culture: Culture, shift: tuple[int, int] = (0, 0)) -> tuple[CellTruth, ...]:
    """Cells whose chromatin has its centre in the picture, which may be shifted by ``shift`` pixels (y, x)."""
    top, left = culture.margin + shift[0], culture.margin + shift[1]
    height, width = culture.shape[0] - 2 * culture.margin, culture.shape[1] - 2 * culture.margin
    areas = culture.ground.areas(len(culture.nuclei), (slice(top, top + height), slice(left, left + width)))
    cells = []
    for nucleus, area in zip(culture.nuclei, areas, strict=True):
        centres = _centres(nucleus)
        for y, x in centres:
            inside = 0 <= round(y - top) < height and 0 <= round(x - left) < width
            if inside:
                # a cell that lies under another still has its nucleus
                size = max(int(area), round(np.pi * nucleus.outline.radius**2)) // len(centres)
                cells.append(CellTruth(round(x - left, 2), round(y - top, 2), size, nucleus.phase))
    return tuple(cells)


def _centres(nucleus: Nucleus) -> tuple[tuple[float, float], ...]:
    if nucleus.phase in ("anaphase", "telophase"):
        return tuple((body.y, body.x) for body in chromosomes(nucleus))
    return ((nucleus.outline.y, nucleus.outline.x),)
