"""Who is in the picture: the cells of a culture as truth and guidance files list them."""

from __future__ import annotations

import numpy as np

from chammi75.mini.culture import Culture
from chammi75.mini.nuclei import Nucleus, chromosomes
from chammi75.mini.truth import CellTruth, place_in_picture


def visible_cells(
    culture: Culture, shift: tuple[int, int] = (0, 0), *, followed: bool = False
) -> tuple[CellTruth, ...]:
    """Cells whose chromatin has its centre in the picture, which may be shifted by ``shift`` pixels (y, x).

    Where cells are ``followed`` through a movie, a cell's track is its place in the culture.
    """
    top, left = culture.margin + shift[0], culture.margin + shift[1]
    height, width = culture.shape[0] - 2 * culture.margin, culture.shape[1] - 2 * culture.margin
    areas = culture.ground.areas(len(culture.nuclei), (slice(top, top + height), slice(left, left + width)))
    cells = []
    for number, (nucleus, area) in enumerate(zip(culture.nuclei, areas, strict=True)):
        centres = _centres(nucleus)
        for y, x in centres:
            place = place_in_picture(y - top, x - left, (height, width))
            if place is not None:
                # a cell that lies under another still has its nucleus
                size = max(int(area), round(np.pi * nucleus.outline.radius**2)) // len(centres)
                track = number if followed else None
                cells.append(CellTruth(place[1], place[0], size, nucleus.phase, track))
    return tuple(cells)


def _centres(nucleus: Nucleus) -> tuple[tuple[float, float], ...]:
    if nucleus.phase in ("anaphase", "telophase"):
        return tuple((body.y, body.x) for body in chromosomes(nucleus))
    return ((nucleus.outline.y, nucleus.outline.x),)
