"""OME-Zarr: an image pyramid for each image, HCS plates where plate and well are known.

``<study>/<image>.ome.zarr``, or ``<study>/<plate>.ome.zarr/<row>/<column>/<field>``; ``images.csv`` says which image
lies where. Version 0.5 of the specification (https://ngff.openmicroscopy.org/0.5/, Zarr 3), the current one and what
new tools write, unless 0.4 (Zarr 2) is asked for, which older viewers need. Axes are c, y, x; level 0 has the stored
pixels as they are, and larger images have halved levels, each pixel the mean of up to four of the level before. The
record and the cells are in the attributes under ``chammi75``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, MissingDependencyError
from chammi75.export.names import file_stem, folder_name
from chammi75.export.report import EXPORT, ExportReport, report_json
from chammi75.export.samples import Advance, Export, Sample, Selections
from chammi75.export.target import ExportTarget, new_export
from chammi75.files import StorageOptions
from chammi75.schemas.base import RECORD_SCHEMA_VERSION

OmeZarrVersion = Literal["0.4", "0.5"]
VERSIONS: tuple[OmeZarrVersion, ...] = ("0.4", "0.5")

LISTING = "images.csv"
_LARGEST_LAST_LEVEL = 1024
_CHUNK = 512
_WELL = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*([0-9]{1,3})")
_SHOWN_SHARE = (0.001, 0.999)


@dataclass
class _Plates:
    """Which wells and fields the plates have: given out in order, noted when they are written."""

    given: dict[tuple[str, str, str], int] = field(default_factory=dict)
    written: dict[str, dict[tuple[str, str], list[str]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def place(self, sample: Sample) -> str:
        """Path of an image: in its plate, else of its own."""
        experiment, source = sample.record["experiment"], sample.record["provenance"]["source"]
        well = _well_of(sample)
        if well is None:
            study = experiment["study"] or source
            return f"{folder_name(study)}/{file_stem(sample.image_id, source or study)}.ome.zarr"
        self.names[well[0]] = experiment["plate"]
        number = self.given[well] = self.given.get(well, -1) + 1
        return f"{'/'.join(well)}/{number}"

    def note(self, sample: Sample) -> None:
        """An image was written."""
        well = _well_of(sample)
        if well is not None:
            plate, row, column = well
            number = sample.place.rpartition("/")[2]
            self.written.setdefault(plate, {}).setdefault((row, column), []).append(number)


def _well_of(sample: Sample) -> tuple[str, str, str] | None:
    """Path of an image's plate, row and column; None where it has no plate, or its well is not named as wells are."""
    experiment = sample.record["experiment"]
    well = _WELL.fullmatch(experiment["well"] or "")
    if experiment["plate"] is None or well is None:
        return None
    study = folder_name(experiment["study"] or sample.record["provenance"]["source"])
    return f"{study}/{folder_name(experiment['plate'])}.ome.zarr", well[1].upper(), str(int(well[2]))


def export(
    selections: Selections,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    version: OmeZarrVersion = "0.5",
) -> ExportReport:
    """Write images as OME-Zarr.

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
    version : {"0.5", "0.4"}
        Of the OME-Zarr specification.

    Returns
    -------
    ExportReport

    Raises
    ------
    MissingDependencyError
        If zarr is not installed.
    ChammiError
        If the version is unknown, the target is not new or empty, or not one image could be read.
    """
    if version not in VERSIONS:
        raise ChammiError(f"OME-Zarr {version!r} is not written; known versions are {', '.join(VERSIONS)}")
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('export to OME-Zarr needs zarr: pip install "chammi75[formats]"') from error
    with new_export(out, storage_options) as target:
        work: Export[dict[str, bytes]] = Export("ome-zarr", selections, target, workers, advance)
        plates = _Plates()

        def write(sample: Sample, files: dict[str, bytes]) -> None:
            for name, content in files.items():
                target.write(f"{sample.place}/{name}", content)

        listing = io.StringIO(newline="")
        lines = csv.writer(listing, lineterminator="\n")
        lines.writerow(("image_id", "path"))
        for sample, _ in work.made(lambda sample: image_files(sample, version), write, plates.place):
            plates.note(sample)
            lines.writerow((sample.image_id, sample.place))
        for plate, wells in plates.written.items():
            _write_plate(target, plate, plates.names[plate], wells, version)
        report = work.report()
        target.write_last(LISTING, listing.getvalue().encode())
        target.write_last(EXPORT, report_json(report))
    return report


def image_files(sample: Sample, version: OmeZarrVersion) -> dict[str, bytes]:
    """The files of an image's Zarr group, by their paths in it."""
    import zarr
    from zarr.storage import MemoryStore

    pixels = np.asarray(sample.image)
    levels = pyramid(pixels)
    store = MemoryStore()
    attributes = _image_attributes(sample, levels, version)
    group = zarr.create_group(store, zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    for number, level in enumerate(levels):
        _, height, width = level.shape
        array = group.create_array(
            str(number),
            shape=level.shape,
            chunks=(1, min(height, _CHUNK), min(width, _CHUNK)),
            dtype=level.dtype,
            compressors=_compressor(version),
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "default" if version == "0.5" else "v2", "separator": "/"},
            dimension_names=("c", "y", "x") if version == "0.5" else None,
        )
        array[...] = level
    return {name: buffer.to_bytes() for name, buffer in sorted(store._store_dict.items())}


def _compressor(version: OmeZarrVersion) -> Any:
    """One that is the same for any number of threads (Blosc is not) and that readers of the version have."""
    if version == "0.5":
        from zarr.codecs import ZstdCodec

        return ZstdCodec(level=3, checksum=True)
    from numcodecs import Zlib

    return Zlib(level=6)


def pyramid(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """The pixels, and halved copies until the larger edge is at most 1024 pixels.

    Parameters
    ----------
    pixels : ndarray, shape (C, H, W), uint8, uint16 or float32

    Returns
    -------
    list of ndarray, shape (C, ceil(H / 2**k), ceil(W / 2**k)), of the same dtype
        A pixel is the mean of the four that it stands for (of those that are there, at an odd edge), rounded half up.

    Examples
    --------
    >>> [level.shape for level in pyramid(np.zeros((1, 2001, 900), np.uint8))]
    [(1, 2001, 900), (1, 1001, 450)]
    """
    levels = [pixels]
    while max(levels[-1].shape[1:]) > _LARGEST_LAST_LEVEL:
        levels.append(_halved(levels[-1]))
    return levels


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    height, width = pixels.shape[1:]
    if height % 2 or width % 2:  # the last row or column twice: the mean of what is there
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    wide = np.float64 if pixels.dtype.kind == "f" else np.uint32
    total = sum(pixels[:, y::2, x::2].astype(wide) for y in (0, 1) for x in (0, 1))
    mean = total / 4 if pixels.dtype.kind == "f" else (total + 2) >> 2  # type: ignore[operator]
    halved: NDArray[Any] = np.asarray(mean).astype(pixels.dtype)
    return halved


def _image_attributes(sample: Sample, levels: list[NDArray[Any]], version: OmeZarrVersion) -> dict[str, Any]:
    size = sample.image.pixel_size_um
    unit = {} if size is None else {"unit": "micrometer"}
    datasets = []
    for number in range(len(levels)):
        edge = (1.0 if size is None else size) * 2**number
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, edge, edge]}]
        if number:  # a pixel's place is its middle: that of the first one moves
            shift = (edge - edge / 2**number) / 2
            steps.append({"type": "translation", "translation": [0.0, shift, shift]})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    multiscale: dict[str, Any] = {
        "name": sample.image_id,
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", **unit},
            {"name": "x", "type": "space", **unit},
        ],
        "datasets": datasets,
    }
    if len(levels) > 1:
        multiscale |= {"type": "mean", "metadata": {"description": "each pixel is the mean of up to 2 x 2 pixels"}}
    own = {"schema_version": RECORD_SCHEMA_VERSION, "record": _known(sample.record)}
    cells = sample.cells()
    if cells is not None:
        own["annotation"] = {
            "centroids": [None if entry is None else entry.centroids.tolist() for entry in cells],
            "sizes": [None if entry is None else entry.sizes.tolist() for entry in cells],
        }
    omero = _omero(sample, levels)
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **multiscale}], "omero": omero, "chammi75": own}
    return {"ome": {"version": "0.5", "multiscales": [multiscale], "omero": omero}, "chammi75": own}


def _omero(sample: Sample, levels: list[NDArray[Any]]) -> dict[str, Any]:
    """Names, colours and windows of the channels, for viewers."""
    from chammi75.pictures.colours import COLOURS

    image = sample.image
    channels = []
    for number, (kind, panel) in enumerate(zip(image.channels, image.panels, strict=True)):
        small = levels[-1][number]
        finite = small[np.isfinite(small)] if small.dtype.kind == "f" else small
        start, end = (float(value) for value in np.quantile(finite, _SHOWN_SHARE)) if finite.size else (0.0, 1.0)
        if small.dtype.kind == "f":
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        else:
            bits = image.significant_bits or 8 * small.dtype.itemsize
            low, high = 0.0, float(2**bits - 1)
        red, green, blue = COLOURS.get(kind, COLOURS[None])
        channels.append(
            {
                "active": True,
                "color": f"{red:02X}{green:02X}{blue:02X}",
                "label": panel or kind or f"channel {number + 1}",
                "window": {"min": low, "max": high, "start": start, "end": end if end > start else start + 1},
            }
        )
    return {"name": sample.image_id, "channels": channels, "rdefs": {"model": "color"}}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """A record without what says nothing."""
    kept = {name: _known(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value not in (None, [], {})}


def _write_plate(
    target: ExportTarget, plate: str, name: str, wells: dict[tuple[str, str], list[str]], version: OmeZarrVersion
) -> None:
    """The groups of a plate, its rows and its wells."""
    rows = sorted({row for row, _ in wells}, key=lambda row: (len(row), row))
    columns = sorted({column for _, column in wells}, key=int)
    stated: dict[str, Any] = {
        "name": name,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for row, column in sorted(wells, key=lambda well: (rows.index(well[0]), int(well[1])))
        ],
        "field_count": max(len(fields) for fields in wells.values()),
    }
    for row in rows:
        _write_group(target, f"{plate}/{row}", {}, version)
    for (row, column), fields in wells.items():
        well: dict[str, Any] = {"images": [{"path": path} for path in fields]}
        _write_group(target, f"{plate}/{row}/{column}", {"well": well}, version)
    if version == "0.5":
        stated["version"] = version  # as the specification's text has it, and ome-zarr-py writes it
    _write_group(target, plate, {"plate": stated}, version)


def _write_group(target: ExportTarget, path: str, attributes: dict[str, Any], version: OmeZarrVersion) -> None:
    if version == "0.5":
        stated = {"ome": {"version": version, **attributes}} if attributes else {}
        target.write(f"{path}/zarr.json", _json({"zarr_format": 3, "node_type": "group", "attributes": stated}))
        return
    target.write(f"{path}/.zgroup", _json({"zarr_format": 2}))
    if attributes:
        versioned = {name: {"version": version, **value} for name, value in attributes.items()}
        target.write(f"{path}/.zattrs", _json(versioned))


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
