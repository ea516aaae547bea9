"""``chammi75 info``, ``verify`` and ``gallery``: what a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    from chammi75.loading.layouts import StoreLayout
    from chammi75.loading.names import resolve_name
    from chammi75.loading.stores import open_stores
    from chammi75.loading.summary import channel_counts, summarise
    from chammi75.store.reader import open_store
    from chammi75.terminal import human_bytes, print_json, print_line, table

    layouts = open_stores(store, metadata=metadata)
    rows = [row for layout in layouts for row in summarise(layout)]
    if as_json:
        print_json(rows)
        return
    parts = [layout.store for layout in layouts if isinstance(layout, StoreLayout)]
    if parts:
        whole = open_store(resolve_name(store))
        manifest = whole.manifest
        print_line(whole.url)
        number = f"{held(manifest)}, {counted(sum(len(part.shards) for part in parts), 'shard')}"
        print_line(f"{number}; written by {manifest.created_by}")
        size = sum(stored_bytes(part.manifest) for part in parts)
        codec = manifest.codec or "zstd and deflate"
        print_line(
            f"{human_bytes(manifest.pixel_bytes)} of pixels in {human_bytes(size)} ({codec});"
            f" content {manifest.content_sha256[:16]}…"
        )
        if manifest.parts:
            table([{"part": part.url, "images": len(part)} for part in parts], title="Its parts")
        _show_withdrawn(layouts)
    else:
        print_line(layouts[0].url)
        _show_published(layouts[0])
    table(summary_rows(rows), title="Images by study, organism and channels")
    counts = sum((channel_counts(layout) for layout in layouts), Counter())
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

    from chammi75.store.parts import expand
    from chammi75.store.reader import open_store
    from chammi75.store.verify import verify as verify_store
    from chammi75.terminal import human_bytes, print_json, print_line, progress, table

    stores = expand(open_store(store))
    with progress("verify", sum(entry.bytes for part in stores for entry in part.manifest.files), "B") as advance:
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
    from chammi75.loading.stores import open_stores
    from chammi75.terminal import print_line, progress

    layouts = open_stores(store, metadata=metadata)
    with progress("draw the gallery", shown_count(layouts, per_study)) as advance:
        shown = write_gallery(layouts, out, title=Path(store).name or store, per_study=per_study, advance=advance)
    print_line(f"{out}: {shown} of {sum(map(len, layouts))} images.")


def _show_withdrawn(layouts: Sequence[Layout]) -> None:
    from chammi75.loading.withdrawn import withdrawn
    from chammi75.terminal import print_line

    masks = [mask for mask in map(withdrawn, layouts) if mask is not None]
    gone = sum(int(mask.sum()) for mask in masks)
    if gone:
        print_line(f"{counted(gone, 'image')} withdrawn: neither loaded nor copied.")


def _show_published(layout: Layout) -> None:
    from chammi75.terminal import print_line

    found = layout.table  # type: ignore[attr-defined]
    print_line(f"The published layout; {len(layout)} images by {found.metadata_url}")
    unresolved = found.counts["unresolved_images"]
    if unresolved:
        print_line(
            f"{counted(unresolved, 'image')} of the table unresolved ({found.counts['unresolved_rows']} rows): no table"
            " states where their files are. They are left out."
        )
