"""Whose images these are: licences and citations of exactly the images of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chammi75.loading.subsets.pool import Pool

if TYPE_CHECKING:
    from chammi75.catalog import Cited

_ORIGIN = ("provenance.source", "experiment.study", "provenance.doi", "provenance.license", "provenance.title")


def licenses_of(pool: Pool) -> list[dict[str, Any]]:
    """Under which licences images are.

    Returns
    -------
    list of dict
        ``license`` (SPDX, None where unknown), ``images``, ``sources`` (list); those of most images first.
    """
    found: dict[str | None, dict[str, Any]] = {}
    for row in pool.count_by(_ORIGIN):
        license_ = row["provenance.license"]
        entry = found.setdefault(license_, {"license": license_, "images": 0, "sources": []})
        entry["images"] += row["images"]
        source = row["provenance.source"] or row["experiment.study"]
        if source is not None and source not in entry["sources"]:
            entry["sources"].append(source)
    return sorted(found.values(), key=lambda row: (-row["images"], row["license"] or ""))


def cited(pool: Pool) -> list[Cited]:
    """The sources of images, with how many images each has, in the order of their names."""
    from chammi75.loading import origins

    return origins.cited(
        origins.Origin(
            source=row["provenance.source"],
            study=row["experiment.study"],
            platform=None,
            license=row["provenance.license"],
            doi=row["provenance.doi"],
            title=row["provenance.title"],
            images=row["images"],
        )
        for row in pool.count_by(_ORIGIN)
    )
