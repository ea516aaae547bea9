"""A self-contained page of a dataset: what is in it, and pictures of every study."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from chammi75.files import write_atomically
from chammi75.loading.feature import MultiChannelImageFeature
from chammi75.loading.layouts import Layout
from chammi75.loading.summary import summarise
from chammi75.version import __version__


def write_gallery(
    layout: Layout,
    out: str | os.PathLike[str],
    *,
    title: str,
    lead: str = "",
    per_study: int = 6,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Write a gallery.

    Parameters
    ----------
    layout : Layout
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

    study = layout.facet("study")
    sections: dict[str, list[GalleryItem]] = {}
    for code in dict.fromkeys(study.codes.tolist()):
        name = study.values[code] if code >= 0 else "study unknown"
        sections[name] = []
        for sample in _shown(layout, np.flatnonzero(study.codes == code), per_study):
            sections[name].append(_item(layout, sample, name))
            if advance is not None:
                advance(1)
    rows = summarise(layout)
    organisms = sorted({row["organism"] for row in rows if row["organism"]})
    licenses = sorted({row["license"] for row in rows if row["license"]})
    facts = {
        "images": len(layout),
        "studies": len(sections),
        "organisms": ", ".join(organisms) or None,
        "licences": ", ".join(licenses) or None,
    }
    shown = sum(len(items) for items in sections.values())
    footer = (
        f"{shown} of {len(layout):,} images. Contrast is stretched for the eye; stored pixels are unchanged."
        f" chammi75 {__version__}"
    )
    page = gallery_page(title, facts, sections, rows, footer, lead=lead)
    write_atomically(out, page.encode())
    return shown


def shown_count(layout: Layout, per_study: int) -> int:
    """How many images a gallery will show."""
    study = layout.facet("study")
    _, counts = np.unique(study.codes, return_counts=True)
    return int(np.minimum(counts, per_study).sum())


def _shown(layout: Layout, rows: Any, count: int) -> list[dict[str, Any]]:
    picked = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    samples: list[dict[str, Any]] = layout.samples(picked).to_pylist()
    return samples


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
