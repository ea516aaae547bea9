"""What a dataset holds, as rows for a table."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from chammi75.loading.layouts import Layout


def summarise(layout: Layout) -> list[dict[str, Any]]:
    """Images by study, organism, microscopy and channels, in the order in which they are stored.

    Returns
    -------
    list of dict
        ``study``, ``organism``, ``microscopy``, ``magnification``, ``channels`` (list), ``images``, ``license``; None
        where unknown.
    """
    names = ("study", "organism", "microscopy_type", "magnification", "channel_types", "license")
    facets = [layout.facet(name) for name in names]
    if not len(layout):
        return []
    codes = np.stack([facet.codes for facet in facets], axis=1)
    kinds, first, counts = np.unique(codes, axis=0, return_index=True, return_counts=True)
    rows = []
    for k in np.argsort(first):
        values = [facet.values[code] if code >= 0 else None for facet, code in zip(facets, kinds[k], strict=True)]
        study, organism, microscopy, magnification, channels, license_ = values
        rows.append(
            {
                "study": study,
                "organism": organism,
                "microscopy": microscopy,
                "magnification": magnification,
                "channels": json.loads(channels) if channels else [],
                "images": int(counts[k]),
                "license": license_,
            }
        )
    return rows


def channel_counts(layout: Layout) -> Counter[str]:
    """How many planes show each channel type."""
    facet = layout.facet("channel_types")
    counts: Counter[str] = Counter()
    for code, images in enumerate(np.bincount(facet.codes[facet.codes >= 0], minlength=len(facet.values))):
        for word in json.loads(facet.values[code]):
            counts[word or "unknown"] += int(images)
    return counts
