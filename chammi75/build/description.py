"""Shows a plan to people: rows for tables, before anything is built."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from chammi75.build.planned import BuildPlan, Finding, PlannedImage, Reconciliation

Rows = list[dict[str, Any]]

_KINDS = (
    *("unreadable", "unmatched", "conflict", "mismatch", "missing_channel"),
    *("unlabelled", "unused_row", "unresolved", "note"),
)


def describe(plan: BuildPlan, limit: int = 20) -> dict[str, Rows]:
    """A plan as tables.

    Parameters
    ----------
    plan : BuildPlan
    limit : int
        How many groups, and how many findings of each kind, are shown one by one.

    Returns
    -------
    dict
        From a table's name to its rows: ``images`` (study, channels, size, dtype, images, bytes), ``groups`` (the files
        of an image), ``reconciliations`` (how each table met the images), ``kinds`` (kind of finding and its count),
        ``findings`` (kind, path, reason).
    """
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in plan.findings:
        by_kind[finding.kind].append(finding)
    kinds = sorted(by_kind, key=lambda kind: _KINDS.index(kind) if kind in _KINDS else len(_KINDS))
    shown = [finding for kind in kinds for finding in by_kind[kind][:limit]]
    return {
        "images": _images(plan),
        "groups": [{"group": line} for line in plan.groups[:limit]],
        "reconciliations": [_reconciliation(entry) for entry in plan.reconciliations],
        "kinds": [{"finding": kind, "count": len(by_kind[kind])} for kind in kinds],
        "findings": [{"finding": entry.kind, "path": entry.path, "reason": entry.reason} for entry in shown],
    }


def _reconciliation(entry: Reconciliation) -> dict[str, Any]:
    return {
        "table": entry.table,
        "images": entry.images,
        "with a row": entry.labelled,
        "without": entry.unlabelled,
        "rows": entry.rows,
        "used": entry.rows_used,
        "unused": entry.rows_unused,
        "contradictions": len(entry.contradictions),
        "images without a row": ", ".join(entry.without_row),
        "rows without an image": ", ".join(entry.unused),
        "above limits": "; ".join(entry.problems),
    }


def _images(plan: BuildPlan) -> Rows:
    """Images that are alike, counted, in order of appearance."""
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for image, size in zip(plan.images, plan.pixel_bytes, strict=True):
        entry = counts[_alike(image)]
        entry[0] += 1
        entry[1] += int(size)
    names = ("study", "channels", "size", "dtype")
    return [
        {**dict(zip(names, key, strict=True)), "images": count, "bytes": size} for key, (count, size) in counts.items()
    ]


def _alike(image: PlannedImage) -> tuple[str, str, str, str]:
    record = image.record
    imaging, geometry = record.imaging, record.geometry
    named = zip(imaging.channel, imaging.panel, imaging.channel_type, strict=True)
    channels = ", ".join(_channel_words(number, panel, kind) for number, panel, kind in named)
    return record.experiment.study or "", channels, f"{geometry.width} x {geometry.height}", geometry.dtype


def _channel_words(number: int, panel: str | None, kind: str | None) -> str:
    if panel is None or kind is None or panel == kind:
        return panel or kind or f"channel {number}"
    return f"{panel} ({kind})"
