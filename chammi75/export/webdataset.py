"""WebDataset: tar shards that are read from beginning to end, ``<split>-000000.tar``.

The files of an image share a key (its number in the export, nine digits): ``<key>.json`` is its record,
``<key>.ch0.png`` its first channel, ``<key>.cells.json`` its cells, where there are any. Channels of 16 bits and of
floats are TIFF (``<key>.ch0.tif``), as a store has them. Decode them with a handler of your own: the picture decoders
of the library webdataset (``"pil"``, ``"l8"``) make 8 bits of whatever they get. Headers hold no time and no user, so
the same images make the same bytes. Shards follow one another without a gap, so ``train-{000000..000012}.tar`` names
them all.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import ExitStack
from typing import Any

import numpy as np

from chammi75.export.parquet import as_deflate_tiff
from chammi75.export.png import encode_png
from chammi75.export.report import EXPORT, ExportReport, report_json
from chammi75.export.samples import Advance, Export, Sample, Selections
from chammi75.export.target import ExportTarget, new_export
from chammi75.files import StorageOptions

SHARD_BYTES = 10**9
"""A shard holds at most this many bytes (but one image at least)."""

_BLOCK = 512  # of tar


def export(
    selections: Selections,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ExportReport:
    """Write images as tar shards.

    Parameters
    ----------
    selections : Selection or sequence of Selection
    out : str or path
        A new or empty folder, or any fsspec URL.
    storage_options : mapping, optional
        For the filesystem of ``out``.
    workers : int
        Threads; the files do not depend on it.
    advance : callable, optional
        Called with 1 for each image.
    shard_bytes : int
        Bytes in a shard, at most (one image at least).

    Returns
    -------
    ExportReport

    Raises
    ------
    ChammiError
        If the target is not new or empty, or not one image could be read.
    """
    with new_export(out, storage_options) as target:
        work: Export[list[tuple[str, bytes]]] = Export("webdataset", selections, target, workers, advance)
        _write_shards(work, target, shard_bytes)
        report = work.report()
        target.write_last(EXPORT, report_json(report))
    return report


def _write_shards(work: Export[list[tuple[str, bytes]]], target: ExportTarget, shard_bytes: int) -> None:
    split, number, size = None, 0, 0
    with ExitStack() as stack:
        archive: tarfile.TarFile | None = None
        for sample, files in work.made(members):
            length = sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for _, content in files)
            if archive is None or sample.split != split or size + length > shard_bytes:
                stack.close()  # the shard before
                number = 0 if sample.split != split else number + 1
                split, size = sample.split, 0
                file: Any = stack.enter_context(target.create(f"{split}-{number:06d}.tar"))
                archive = stack.enter_context(tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT))
            for name, content in files:
                archive.addfile(_header(name, len(content)), io.BytesIO(content))
            size += length


def members(sample: Sample) -> list[tuple[str, bytes]]:
    """The files of an image: its record, its channels, its cells."""
    key = f"{sample.number:09d}"
    files = [(f"{key}.json", _json({"split": sample.split, **sample.record}))]
    for channel, content in enumerate(sample.image.encoded_planes()):
        pixels = sample.image[channel]  # decoded in any case: what is damaged must not go on
        if pixels.dtype != np.uint8:
            files.append((f"{key}.ch{channel}.tif", as_deflate_tiff(content, pixels)))
        elif content[:4] == b"\x89PNG":
            files.append((f"{key}.ch{channel}.png", content))
        else:
            files.append((f"{key}.ch{channel}.png", encode_png(pixels)))
    cells = sample.cells()
    if cells is not None:
        listed = {
            "centroids": [None if entry is None else entry.centroids.tolist() for entry in cells],
            "sizes": [None if entry is None else entry.sizes.tolist() for entry in cells],
        }
        files.append((f"{key}.cells.json", _json(listed)))
    return files


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o644
    return header  # its time is 0, its user and group are 0 and without a name
