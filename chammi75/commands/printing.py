"""What several commands print in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chammi75.build.execute import BuildReport
    from chammi75.schemas.manifest import StoreManifest

SHOWN_FINDINGS = 20


def stored_bytes(manifest: StoreManifest) -> int:
    return sum(shard.bytes for shard in manifest.shards)


def held(manifest: StoreManifest) -> str:
    return f"{counted(manifest.images, 'image')}, {counted(manifest.planes, 'plane')}"


def counted(number: int, word: str) -> str:
    return f"1 {word}" if number == 1 else f"{number} {word}s"


def summary_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "channels": ", ".join(word or "unknown" for word in row["channels"])} for row in rows]


def show_report(report: BuildReport, as_json: bool) -> None:
    from dataclasses import asdict

    from chammi75.terminal import human_bytes, print_json, print_line

    manifest = report.manifest
    if as_json:
        print_json(
            {
                "store": report.store,
                "images": manifest.images,
                "planes": manifest.planes,
                "failed_images": report.failed_images,
                "content_sha256": manifest.content_sha256,
                "findings": [asdict(finding) for finding in report.findings],
            }
        )
        return
    print_line(
        f"{report.store}: {held(manifest)}, {human_bytes(manifest.pixel_bytes)}"
        f" of pixels in {human_bytes(stored_bytes(manifest))}, {counted(len(manifest.shards), 'shard')}."
    )
    _show_findings(report)


def _show_findings(report: BuildReport) -> None:
    from collections import Counter

    from chammi75.build.execute import REPORT
    from chammi75.files import join_url
    from chammi75.terminal import print_line, table

    findings = report.findings
    if not findings:
        return
    counts = Counter(finding.kind for finding in findings)
    words = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    print_line(f"{counted(len(findings), 'finding')} ({words}), told in full in {join_url(report.store, REPORT)}")
    serious = [finding for finding in findings if finding.kind != "note"] or list(findings)
    rows = [{"kind": finding.kind, "file or image": finding.path, "reason": finding.reason} for finding in serious]
    table(
        rows[:SHOWN_FINDINGS],
        title="Findings" if len(rows) <= SHOWN_FINDINGS else f"The first {SHOWN_FINDINGS} findings",
    )
