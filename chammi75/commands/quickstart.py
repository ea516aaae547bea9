"""``chammi75 quickstart``: everything once, on the embedded dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chammi75.commands.options import DEFAULT_WORKERS, Workers
from chammi75.commands.printing import held, stored_bytes, summary_rows
from chammi75.errors import ChammiError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder to work in; new or empty.")] = Path("chammi75-quickstart"),
    size: Annotated[float, typer.Option("--size", min=0.01, help="Factor on the number of images.")] = 1.0,
    workers: Workers = DEFAULT_WORKERS,
) -> None:
    """Build, check, filter, stream and picture the embedded dataset, offline."""
    from time import perf_counter

    from chammi75.loading import load_dataset
    from chammi75.loading.gallery import shown_count, write_gallery
    from chammi75.loading.stores import open_stores
    from chammi75.loading.summary import summarise
    from chammi75.mini.dataset import build_mini
    from chammi75.store.verify import verify as verify_store
    from chammi75.terminal import human_bytes, print_line, progress, table

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ChammiError(f"{out} is not empty: give another folder with --out, or remove this one")
    start = perf_counter()
    with progress("simulate and build mini") as advance:
        report = build_mini(out / "sources", out / "store", size=size, workers=workers, advance=advance)
    manifest = report.manifest
    print_line(
        f"Built {out / 'store'}: {held(manifest)},"
        f" {human_bytes(manifest.pixel_bytes)} of pixels in {human_bytes(stored_bytes(manifest))}"
        f" ({perf_counter() - start:.1f} s)."
    )
    checked = verify_store(str(out / "store"))
    if not checked.is_sound:
        raise ChammiError(
            f"{out / 'store'} was damaged while it was written: {checked.damages[0].reason}; is the disk sound?"
        )
    print_line(f"Verified {checked.files} files, {human_bytes(checked.bytes)}: every byte is as the manifest says.")
    layouts = open_stores(str(out / "store"))
    table(summary_rows(summarise(layouts[0])), title="Images by study, organism and channels")
    filtered = load_dataset(str(out / "store"), streaming=True, organism="Homo sapiens", channel_type=["nucleus", "er"])
    sample = next(iter(filtered))
    crop = sample["image"].crop(0, 0, 256, 256)
    print_line(f"Streamed the human images with a nucleus and an er channel; the first is {sample['image_id']}:")
    print_line(f"  {sample['image']!r}")
    print_line(f"  a 256 x 256 crop of all its channels: {crop.shape}, {crop.dtype}, mean {crop.mean():.1f}")
    with progress("draw the gallery", shown_count(layouts, 6)) as advance:
        lead = "Simulated microscopy: every image was computed, and its true cell positions are known."
        write_gallery(layouts, out / "gallery.html", title="mini", lead=lead, per_study=6, advance=advance)
    print_line(f"Gallery: {out / 'gallery.html'} (open it in a browser).")
    print_line(f"The source files with their recipes are in {out / 'sources'}; mini is simulated, not measured.")
    print_line("Next, in Python:")
    print_line("  from chammi75 import load_dataset")
    print_line(f"  dataset = load_dataset({str(out / 'store')!r}, streaming=True, channel_type='nucleus')")
    print_line("Or your own images: chammi75 build FOLDER --plan shows what would be built of them.")
