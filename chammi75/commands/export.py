"""``chammi75 export``: images in the formats of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from chammi75.commands.options import DEFAULT_WORKERS, Json, Metadata, Workers
from chammi75.commands.printing import SHOWN_FINDINGS, counted
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.export.report import ExportReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store, a copy of the published layout, or mini.")],
    to: Annotated[str, typer.Option("--to", help="The format: published, parquet, webdataset, croissant or ome-zarr.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the export: absent or empty. A path or any fsspec URL.")],
    where: Annotated[Optional[str], typer.Option("--where", help="Only images that meet an SQL condition.")] = None,  # noqa: UP045
    study: Annotated[Optional[list[str]], typer.Option("--study", help="Only this study; may be repeated.")] = None,  # noqa: UP045
    license_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--license", help="Only images under this licence (SPDX); may be repeated."),
    ] = None,
    channel_type: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--channel-type", help="Only images that have this channel; repeated: all of them."),
    ] = None,
    subset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--subset", metavar="FILE", help="Only images of a subset: its file, or a shipped one's name."),
    ] = None,
    split: Annotated[Optional[str], typer.Option("--split", help="Only images of this split.")] = None,  # noqa: UP045
    metadata: Metadata = None,
    zarr_version: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--zarr-version", help="OME-Zarr: 0.5 (Zarr 3), or 0.4 for older viewers.", show_default="0.5"),
    ] = None,
    workers: Workers = DEFAULT_WORKERS,
    as_json: Json = False,
) -> None:
    """Write images in a format of others.

    \b
    published    the published CHAMMI-75 layout: a table, PNG, guidance
    parquet      Parquet with pictures and a dataset card, as on the Hub
    webdataset   tar shards for sequential reading
    croissant    Parquet with a Croissant description
    ome-zarr     OME-Zarr images and plates, for viewers
    """
    from chammi75.export.choice import selections_for
    from chammi75.export.registry import export as write
    from chammi75.export.registry import export_format
    from chammi75.export.samples import images_in
    from chammi75.terminal import progress

    export_format(to)  # a slip in the name is told before a store is opened
    options: dict[str, Any] = {}
    if zarr_version is not None:
        if to != "ome-zarr":
            raise typer.BadParameter("it goes with --to ome-zarr", param_hint="--zarr-version")
        options["version"] = zarr_version
    selections = selections_for(
        store,
        split=split,
        where=where,
        subset=subset,
        metadata=metadata,
        study=study or None,
        license=license_ or None,
        channel_type=channel_type or None,
    )
    with progress(f"export to {to}", images_in(selections)) as advance:
        report = write(selections, to, out, workers=workers, advance=advance, **options)
    _show(report, as_json)
    if report.failed:
        raise ChammiError(
            f"{counted(len(report.failed), 'image')} could not be read and"
            f" {'is' if len(report.failed) == 1 else 'are'} not in {report.out}; its export.json names"
            f" {'it' if len(report.failed) == 1 else 'them'}"
        )


def _show(report: ExportReport, as_json: bool) -> None:
    from dataclasses import asdict

    from chammi75.terminal import human_bytes, print_json, print_line, table

    if as_json:
        print_json(asdict(report))
        return
    print_line(
        f"{report.out}: {counted(report.images, 'image')}, {counted(report.planes, 'plane')} as {report.format};"
        f" {counted(report.files, 'file')}, {human_bytes(report.bytes)}."
    )
    for note in report.notes:
        print_line(f"Note: {note}.")
    lacking = sum(origin.images for origin in report.origins if not origin.license)
    if lacking:
        print_line(f"{counted(lacking, 'image')} without a stated licence: settle that before you pass them on.")
    if report.failed:
        rows = [{"image": image.image_id, "reason": image.reason} for image in report.failed[:SHOWN_FINDINGS]]
        table(rows, title="Images that could not be read")
