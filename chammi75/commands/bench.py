"""``chammi75 bench``: what the loader reaches on this machine and store, and where the time goes."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Optional

import typer

from chammi75.commands.options import Json, Metadata
from chammi75.errors import ChammiError

_CORES = os.cpu_count() or 1
_MANY = 10**9  # the end of an epoch, where workers start anew, is not measured


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="A store, a copy of the published layout, or mini: a path or URL.")
    ],
    crop: Annotated[
        str,
        typer.Option("--crop", help="Edge in pixels, study (the sizes of each study), cell, or whole for no crop."),
    ] = "256",
    resize: Annotated[int, typer.Option("--resize", min=0, help="Edge that crops are resized to; 0: none.")] = 224,
    mode: Annotated[str, typer.Option("--mode", help="boc: single planes; mca: all channels of an image.")] = "boc",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples of a batch.")] = 64,
    shuffle: Annotated[str, typer.Option("--shuffle", help="global, window:N or none.")] = "global",
    workers: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(
            "--workers", min=0, help="Worker processes; may be given several times.", show_default="0, 1, cores"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long each measurement takes.")] = 3.0,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Measure the training loader: samples per second, and where the time goes.

    Stages are measured in one process: choosing (order, cells, windows),
    reading, decoding, resizing, collating. Needs PyTorch.
    """
    from chammi75.loading import GuidedCrop, TrainingStream
    from chammi75.loading.stream.measure import measure_rate, measure_stages
    from chammi75.terminal import human_bytes, human_duration, print_json, print_line, table

    stream = TrainingStream(
        store,
        batch_size=batch_size,
        mode=mode,  # type: ignore[arg-type]  # checked there
        crop=None if crop == "whole" else GuidedCrop(_size(crop)),
        resize=resize or None,
        shuffle=shuffle,
        samples_per_epoch=_MANY,
        metadata=metadata,
    )
    stages = measure_stages(stream, seconds)
    rates = [measure_rate(stream, number, seconds) for number in workers or sorted({0, 1, _CORES})]
    parts: dict[str, float] = {
        name: getattr(stages, name) for name in ("choose", "read", "decode", "resize", "collate")
    }
    if as_json:
        print_json(
            {
                "store": store,
                "samples": stream.units,
                "stages_ms": parts,
                "bytes_per_sample": stages.bytes,
                "requests_per_sample": stages.requests,
                "rates": [
                    {"workers": rate.workers, "samples_per_s": rate.samples_per_s, "first_batch_s": rate.first_s}
                    for rate in rates
                ],
            }
        )
        return
    rows: list[dict[str, Any]] = [
        {"stage": name, "ms per sample": f"{time:.3f}", "share": f"{time / stages.total:.0%}"}
        for name, time in parts.items()
    ]
    table(rows, title=f"Where the time goes: one process, {stages.samples} samples")
    table(
        [
            {
                "workers": rate.workers,
                "samples/s": f"{rate.samples_per_s:,.0f}",
                "first batch": f"{rate.first_s:.2f} s",
            }
            for rate in rates
        ],
        title=f"What a DataLoader reaches: batches of {batch_size}, {_CORES} cores",
    )
    print_line(
        f"A sample takes {human_bytes(stages.bytes)} of the store and {stages.requests:.2g} requests. Once through all"
        f" {stream.units:,} takes {human_duration(stream.units / max(rate.samples_per_s for rate in rates))} at best."
    )


def _size(crop: str) -> int | Literal["study", "cell"]:
    if crop.isdigit() and int(crop):
        return int(crop)
    if crop == "study":
        return "study"
    if crop == "cell":
        return "cell"
    raise ChammiError(f"--crop is a number of pixels, study, cell or whole, not {crop!r}")
