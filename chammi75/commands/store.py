"""``chammi75 info``, ``verify`` and ``gallery``: what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chammi75.commands.options import Json, Metadata
from chammi75.commands.printing import counted, held, stored_bytes, summary_rows
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.loading.layouts import Layout


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)
    app.command()(verify)
    app.command()(gallery)


def info(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, or a copy of the published layout.")],
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Say what a store holds."""
    from chammi75.loading.layouts import StoreLayout, open_layout
    from chammi75.loading.summary import channel_counts, summarise
    from chammi75.terminal import human_bytes, print_json, print_line, table

    layout = open_layout(store, metadata=metadata)
    rows = summarise(layout)
    if as_json:
        print_json(rows)
        return
    print_line(layout.url)
    if isinstance(layout, StoreLayout):
        manifest = layout.store.manifest
        size = stored_bytes(manifest)
        number = f"{held(manifest)}, {counted(len(manifest.shards), 'shard')}"
        print_line(f"{number}; written by {manifest.created_by}")
        stored = f"{human_bytes(manifest.pixel_bytes)} of pixels in {human_bytes(size)} ({manifest.codec})"
        print_line(f"{stored}; content {manifest.content_sha256[:16]}…")
    else:
        _show_published(layout)
    table(summary_rows(rows), title="Images by study, organism and channels")
    counts = channel_counts(layout)
    table(
        [{"channel type": name, "planes": number} for name, number in counts.most_common()],
        title="Planes by channel",
    )


def verify(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store.")],
    as_json: Json = False,
) -> None:
    """Check every byte of a store, and name the images that a damage hits."""
    from dataclasses import asdict

    from chammi75.store.reader import open_store
    from chammi75.store.verify import verify as verify_store
    from chammi75.terminal import human_bytes, print_json, print_line, progress, table

    manifest = open_store(store).manifest
    entries = (*manifest.shards, manifest.index.parquet, manifest.index.arrow)
    with progress("verify", sum(entry.bytes for entry in entries), "B") as advance:
        report = verify_store(store, advance=advance)
    if as_json:
        print_json([asdict(damage) for damage in report.damages])
    elif report.is_sound:
        print_line(
            f"{store}: sound. {counted(report.images, 'image')}, {report.files} files, {human_bytes(report.bytes)}."
        )
    else:
        table([asdict(damage) for damage in report.damages], title=f"{store} is damaged")
    if not report.is_sound:
        images = {damage.image_id for damage in report.damages if damage.image_id}
        raise ChammiError(f"{store} is damaged: {len(report.damages)} findings, {len(images)} images are hit")


def gallery(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, or a copy of the published layout.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")],
    metadata: Metadata = None,
    per_study: Annotated[int, typer.Option("--per-study", min=1, help="Images shown of each study.")] = 6,
) -> None:
    """Write a self-contained page with pictures of every study."""
    from chammi75.loading.gallery import shown_count, write_gallery
    from chammi75.loading.layouts import open_layout
    from chammi75.terminal import print_line, progress

    layout = open_layout(store, metadata=metadata)
    with progress("draw the gallery", shown_count(layout, per_study)) as advance:
        shown = write_gallery(layout, out, title=Path(store).name or store, per_study=per_study, advance=advance)
    print_line(f"{out}: {shown} of {len(layout)} images.")


def _show_published(layout: Layout) -> None:
    from chammi75.terminal import print_line

    found = layout.table  # type: ignore[attr-defined]
    print_line(f"The published layout; {len(layout)} images by {found.metadata_url}")
    if found.counts["unresolved_rows"]:
        print_line(
            f"{found.counts['unresolved_rows']} rows of the table have no file that is stated anywhere;"
            " they are left out."
        )
