"""A self-contained page of a dataset: what is in it, and pictures of every study."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chammi75.files import write_atomically
from chammi75.loading.feature import MultiChannelImageFeature
from chammi75.loading.layouts import Layout
from chammi75.loading.summary import summarise
from chammi75.loading.withdrawn import withdrawn
from chammi75.version import __version__


def write_gallery(
    layouts: Sequence[Layout],
    out: str | os.PathLike[str],
    *,
    title: str,
    lead: str = "",
    per_study: int = 6,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Write a gallery. Withdrawn images are not shown.

    Parameters
    ----------
    layouts : sequence of Layout
    out : str or path
        The HTML file.
    title : str
        What the dataset is called.
    lead : str
        A sentence under the title.
    per_study : int
        Images shown of each study, evenly spread over it.
    advance : callable, optional
        Called with a number of images when they are drawn.

    Returns
    -------
    int
        Images shown.
    """
    from chammi75.pictures.gallery import GalleryItem, gallery_page

    sections: dict[str, list[GalleryItem]] = {}
    for layout, name, picked in _picked(layouts, per_study):
        for sample in layout.samples(picked).to_pylist():
            sections.setdefault(name, []).append(_item(layout, sample, name))
            if advance is not None:
                advance(1)
    rows = [row for layout in layouts for row in summarise(layout)]
    images = sum(len(layout) for layout in layouts)
    organisms = sorted({row["organism"] for row in rows if row["organism"]})
    licenses = sorted({row["license"] for row in rows if row["license"]})
    facts = {
        "images": images,
        "studies": len(sections),
        "organisms": ", ".join(organisms) or None,
        "licences": ", ".join(licenses) or None,
    }
    shown = sum(len(items) for items in sections.values())
    footer = (
        f"{shown} of {images:,} images. Contrast is stretched for the eye; stored pixels are unchanged."
        f" chammi75 {__version__}"
    )
    page = gallery_page(title, facts, sections, rows, footer, lead=lead)
    write_atomically(out, page.encode())
    return shown


def shown_count(layouts: Sequence[Layout], per_study: int) -> int:
    """How many images a gallery will show."""
    return sum(len(picked) for _, _, picked in _picked(layouts, per_study))


def _picked(layouts: Sequence[Layout], per_study: int) -> Iterator[tuple[Layout, str, NDArray[np.int64]]]:
    """Of each study in each layout, its name and the rows that are shown, evenly spread over it."""
    for layout in layouts:
        study = layout.facet("study")
        gone = withdrawn(layout)
        there = np.ones(len(layout), bool) if gone is None else ~gone
        for code in dict.fromkeys(study.codes.tolist()):
            rows = np.flatnonzero((study.codes == code) & there)
            if len(rows):
                places = np.linspace(0, len(rows) - 1, min(per_study, len(rows))).round().astype(int)
                yield layout, study.values[code] if code >= 0 else "study unknown", rows[np.unique(places)]


def _item(layout: Layout, sample: dict[str, Any], section: str) -> Any:
    from chammi75.pictures.gallery import gallery_item

    image = MultiChannelImageFeature().with_storage_options(layout.storage_options).decode_example(sample["image"])
    experiment, microscopy, geometry = sample["experiment"], sample["microscopy"], sample["geometry"]
    place = [experiment["plate"], experiment["well"], microscopy["fov"] and f"field {microscopy['fov']}"]
    for axis, key in (("t", "timepoint"), ("z", "z_slice")):
        if geometry[key] is not None:
            place.append(f"{axis} {geometry[key]}")
    magnification, pixel_size = microscopy["magnification"], geometry["pixel_size_um"]
    facts = {
        "organism": sample["biology"]["organism"],
        "cell line": sample["biology"]["cell_line"],
        "reagent": experiment["reagent"],
        "microscopy": microscopy["type"],
        "magnification": None if magnification is None else f"{magnification:g}x",
        "pixel size": None if pixel_size is None else f"{pixel_size:g} µm",
        "size": f"{geometry['width']} x {geometry['height']}, {geometry['dtype']}",
        "licence": sample["provenance"]["license"],
    }
    return gallery_item(
        np.asarray(image),
        image.channels,
        title=" · ".join(part for part in place if part) or sample["image_id"],
        section=section,
        subtitle=sample["image_id"],
        facts=facts,
        captions=[panel or name for panel, name in zip(image.panels, image.channels, strict=True)],
        pixel_size_um=pixel_size,
        significant_bits=image.significant_bits,
    )
