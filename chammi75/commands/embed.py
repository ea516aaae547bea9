"""``chammi75 embed``: the features of a store's images, or of its cells, in a Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from chammi75.commands.options import DEFAULT_WORKERS, Json, Metadata
from chammi75.commands.printing import SHOWN_FINDINGS, counted
from chammi75.errors import ChammiError

if TYPE_CHECKING:
    from chammi75.training.embedding import EmbedReport

_Words = Optional[list[str]]  # noqa: UP045
_Text = Optional[str]  # noqa: UP045


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(embed)


def embed(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A model's folder, a checkpoint, owner/name on the Hugging Face hub, or timm:NAME.",
        ),
    ],
    store: Annotated[
        list[str], typer.Argument(metavar="STORE…", help="Stores, copies of the published layout, or mini.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE.parquet", help="The file to write.")],
    crop: Annotated[
        str,
        typer.Option("--crop", help="whole (planes), cells (a row for each), or the edge of a window in the middle."),
    ] = "whole",
    crop_size: Annotated[
        _Text,
        typer.Option(
            "--crop-size",
            help="Windows of --crop cells: an edge in pixels, study, or cell.",
            show_default="as the model was trained",
        ),
    ] = None,
    where: Annotated[_Text, typer.Option("--where", help="Only images that meet an SQL condition.")] = None,
    study: Annotated[_Words, typer.Option("--study", help="Only this study; may be repeated.")] = None,
    license_: Annotated[
        _Words, typer.Option("--license", help="Only images under this licence (SPDX); may be repeated.")
    ] = None,
    channel_type: Annotated[
        _Words, typer.Option("--channel-type", help="Only images that have this channel; repeated: all of them.")
    ] = None,
    select_channels: Annotated[
        _Words, typer.Option("--select-channels", help="Embed only planes of this type; may be repeated.")
    ] = None,
    subset: Annotated[
        _Text, typer.Option("--subset", metavar="FILE", help="Only images of a subset: its file, or a shipped name.")
    ] = None,
    split: Annotated[_Text, typer.Option("--split", help="Only images of this split.")] = None,
    which: Annotated[_Text, typer.Option("--which", help="Of DINO's networks: teacher or student.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Planes that are embedded together.")] = 64,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            help="Processes that read and decode; 0: none beside this one.",
            show_default="as many as cores, 8 at most",
        ),
    ] = DEFAULT_WORKERS,
    device: Annotated[
        _Text, typer.Option("--device", help="cpu, cuda, cuda:1 or mps.", show_default="a GPU if there is one")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Make images fit that have other pixels than the training's.")
    ] = False,
    unknown_channels: Annotated[
        str,
        typer.Option("--unknown-channels", help="Channel types that a multi-channel model lacks: refuse, or other."),
    ] = "refuse",
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave out images that cannot be read, and name them at the end.")
    ] = False,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Embed a store: one row for each image, or cell, keyed by image_id.

    Stopped, the same command goes on where it was. Under torchrun each
    process takes its share of the images, on a GPU of its own.
    """
    from chammi75.terminal import progress

    given = {
        "where": where,
        "study": study,
        "license": license_,
        "channel_type": channel_type,
        "select_channels": select_channels,
        "subset": subset,
    }
    _one_of("--unknown-channels", unknown_channels, "refuse", "other")
    _one_of("--which", which, None, "teacher", "student")
    region, size = _crop(crop), _size(crop_size)
    try:
        from chammi75.training.embedding import embed_store, own_device
        from chammi75.training.models import load_model
    except ModuleNotFoundError as error:
        from chammi75.errors import MissingDependencyError

        raise MissingDependencyError(f'embed needs {error.name}: pip install "chammi75[train]"') from error
    model = load_model(checkpoint, which=which, device=device or own_device())  # type: ignore[arg-type]
    with progress("embed") as advance:
        report = embed_store(
            model,
            store,
            out,
            selection={name: value for name, value in given.items() if value},
            split=split,
            crop=region,
            crop_size=size,
            batch_size=batch_size,
            workers=workers,
            resample=resample,
            unknown_channels=unknown_channels,  # type: ignore[arg-type]  # checked above
            on_error="skip" if skip_errors else "raise",
            metadata=metadata,
            advance=advance,
        )
    _show(report, as_json)
    if report.failed:
        many = "it" if len(report.failed) == 1 else "them"
        raise ChammiError(
            f"{counted(len(report.failed), 'image')} could not be read and {'is' if many == 'it' else 'are'} not in"
            f" {report.out}; its metadata names {many}"
        )


def _show(report: EmbedReport, as_json: bool) -> None:
    from dataclasses import asdict

    from chammi75.terminal import print_json, print_line, table

    if as_json:
        print_json(asdict(report))
        return
    if not report.finished:
        print_line(f"{report.out}: this process has done its share; the last one puts the file together.")
        return
    before = "" if report.embedded else "; it was there already"
    print_line(f"{report.out}: {counted(report.rows or 0, 'row')} of {counted(report.images, 'image')}{before}.")
    if report.failed:
        rows = [{"image": name, "reason": reason} for name, reason in report.failed[:SHOWN_FINDINGS]]
        table(rows, title="Images that could not be read")


def _crop(text: str) -> Any:
    if text.isdigit() and int(text):
        return int(text)
    known = {"whole": "whole plane", "cells": "cells"}
    if text not in known:
        raise typer.BadParameter(f"{text!r} is not whole, cells or a number of pixels", param_hint="--crop")
    return known[text]


def _size(text: str | None) -> int | Literal["study", "cell"] | None:
    if text is None or text in ("study", "cell"):
        return text  # type: ignore[return-value]
    if text.isdigit() and int(text):
        return int(text)
    raise typer.BadParameter(f"{text!r} is not a number of pixels, study or cell", param_hint="--crop-size")


def _one_of(option: str, value: str | None, *known: str | None) -> None:
    if value not in known:
        words = " or ".join(word for word in known if word)
        raise typer.BadParameter(f"{value!r} is not {words}", param_hint=option)
