"""The published CHAMMI-75 layout: a metadata table, one PNG per channel, guidance files with the cells.

``CHAMMI-75_train/<study>/<image>-ch<N>.png`` with N from 0, ``CHAMMI-75_guidance/…`` beside it, and
``CHAMMI-75_train_metadata.csv`` with one row per channel file, written last. 8 bits stay 8 bits; 16 bits become 16-bit
PNG, which the published dataset itself does not have: then the table says so in two columns more,
``geometry.dtype`` and ``geometry.significant_bits``. Where the catalog does not say of a study what its records say,
four more have that: ``provenance.platform``, ``title``, ``license`` and ``doi``. Floats have no place in a PNG and are
refused.
"""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chammi75.errors import ChammiError
from chammi75.export.names import file_stem, folder_name
from chammi75.export.png import encode_png
from chammi75.export.report import EXPORT, ExportReport, report_json
from chammi75.export.samples import Advance, Export, Sample, Selections, as_selections, origins_of
from chammi75.export.target import ExportTarget, new_export
from chammi75.files import StorageOptions
from chammi75.loading.selection import Selection
from chammi75.readers.published.csv_rows import (
    PIXEL_COLUMNS,
    PUBLISHED_COLUMNS,
    SOURCE_COLUMNS,
    magnification_number,
)
from chammi75.readers.published.files import GUIDANCE_FOLDER, PLANES_FOLDER
from chammi75.store.shard import Cells

METADATA = "CHAMMI-75_train_metadata.csv"

_UNKNOWN = "unknown"
_BLOCK = 10_000
_PER_IMAGE = tuple(
    name
    for name in PUBLISHED_COLUMNS
    if not name.startswith("storage.") and name not in ("imaging.panel", "imaging.channel", "imaging.channel_type")
)


_WITH_COLUMNS = {*PUBLISHED_COLUMNS, *PIXEL_COLUMNS, *SOURCE_COLUMNS}
_SAID_OTHERWISE = {
    *("image_id", "imaging.missing_channel", "microscopy.magnification_text"),
    *("biology.organism_id", "biology.cell_line_id", "microscopy.type_id"),
    *("provenance.source", "provenance.reader", "provenance.reader_version", "provenance.format"),
}
"""Fields without a column of which the layout or its reader says the same, or which are about the files of before."""


@dataclass(frozen=True)
class _Image:
    """The files of an image, and its rows of the table."""

    files: list[tuple[str, bytes]]
    rows: list[dict[str, str]]
    rounded: bool
    left_out: set[str]
    """Fields that are known and that the table has no column for."""


def export(
    selections: Selections,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
) -> ExportReport:
    """Write images in the published layout.

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

    Returns
    -------
    ExportReport

    Raises
    ------
    ChammiError
        If images are of float32, the target is not new or empty, or not one image could be read.
    """
    chosen = as_selections(selections)
    kinds = _pixel_types(chosen)
    _refuse_floats(kinds)
    is_8_bit = set(kinds) <= {("uint8", 8), ("uint8", None)}
    columns = (
        *PUBLISHED_COLUMNS,
        *(() if is_8_bit else PIXEL_COLUMNS),
        *(() if _cards_say_it(chosen) else SOURCE_COLUMNS),
    )
    with new_export(out, storage_options) as target:
        work: Export[_Image] = Export("published", chosen, target, workers, advance)
        with target.create(f".{METADATA}.part") as table:
            rounded, left_out = _write_rows(work, target, table, columns)
        target.rename(f".{METADATA}.part", METADATA)
        if rounded:
            work.notes.append(
                f"cell positions of {rounded} images were rounded to whole pixels: guidance files hold integers"
            )
        if left_out:
            work.notes.append(f"the published table has no column for {', '.join(sorted(left_out))}")
        report = work.report()
        target.write_last(EXPORT, report_json(report))
    return report


def _pixel_types(selections: Sequence[Selection]) -> Counter[tuple[str, int | None]]:
    """How many of the selected images are of each dtype and number of significant bits; no pixel is read."""
    import pyarrow.compute as pc

    counts: Counter[tuple[str, int | None]] = Counter()
    for selection in selections:
        for start in range(0, len(selection), _BLOCK):
            geometry = selection.samples(start, start + _BLOCK).column("geometry").combine_chunks()
            pairs = zip(
                pc.struct_field(geometry, "dtype").to_pylist(),
                pc.struct_field(geometry, "significant_bits").to_pylist(),
                strict=True,
            )
            counts.update(pairs)
    return counts


def _cards_say_it(selections: Sequence[Selection]) -> bool:
    """Whether who reads the table finds all that the records say of their sources in the catalog."""
    from chammi75.catalog import Catalog

    catalog = Catalog()
    for origin in origins_of(selections):
        card = catalog.provenance(origin.study or origin.source)
        if any(getattr(origin, name) not in (None, getattr(card, name)) for name in card._fields):
            return False
    return True


def _refuse_floats(kinds: Counter[tuple[str, int | None]]) -> None:
    found = sum(images for (dtype, _), images in kinds.items() if dtype == "float32")
    if found:
        raise ChammiError(
            f"{found} images are of float32, which no PNG holds without loss: the published layout has none. Export"
            " them as ome-zarr, parquet or webdataset, or leave them out with where=\"geometry.dtype <> 'float32'\""
        )


def _write_rows(work: Export[_Image], target: ExportTarget, table: Any, columns: Sequence[str]) -> tuple[int, set[str]]:
    """Write the images and the table's rows; how many had cell positions that are not whole, and what has no column."""

    def write(sample: Sample, made: _Image) -> None:
        for path, content in made.files:
            target.write(path, content)

    rounded, left_out = 0, set[str]()
    names = array("Q")  # eight bytes for each image, not its text
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    lines.writeheader()
    for _, made in work.made(_made, write):
        rounded += made.rounded
        left_out |= made.left_out
        names.append(hash(made.rows[0]["imaging.multi_channel_id"]) & (2**64 - 1))
        lines.writerows(made.rows)
        table.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
    if len(np.unique(np.frombuffer(names, np.uint64))) != len(names):
        raise ChammiError(
            f"{target.url}: two images have one imaging.multi_channel_id, which ties the rows of an image together"
            " here: export their sources apart"
        )
    return rounded, left_out


def _made(sample: Sample) -> _Image:
    record = sample.record
    experiment, imaging, storage = record["experiment"], record["imaging"], record["storage"]
    source = record["provenance"]["source"]
    study = experiment["study"] or source
    stem = f"{folder_name(study)}/{file_stem(sample.image_id, study if study == source else source or study)}"
    stored = sample.image.encoded_planes()
    bits = record["geometry"]["significant_bits"]
    common = {name: _word(_value(record, name)) for name in _PER_IMAGE}
    common["imaging.multi_channel_id"] = _tie(sample)
    common["microscopy.magnification"] = _magnification(record["microscopy"])
    common["geometry.channels"] = str(len(stored) + len(imaging["missing_channel"] or ()))
    common.update({PIXEL_COLUMNS[0]: record["geometry"]["dtype"], PIXEL_COLUMNS[1]: _word(bits)})
    common.update({name: _word(_value(record, name)) for name in SOURCE_COLUMNS})
    panels = _panels(imaging["panel"], imaging["channel"], int(common["geometry.channels"]))
    cells = sample.cells() or [None] * len(stored)
    files, rows, rounded = [], [], False
    for k, content in enumerate(stored):
        pixels = sample.image[k]  # decoded in any case: what is damaged must not go on
        path = f"{stem}-ch{imaging['channel'][k] - 1}"
        plane = f"{PLANES_FOLDER}/{path}.png"
        files.append((plane, content if content[:4] == b"\x89PNG" and _is_grey(content) else encode_png(pixels)))
        entry = cells[k]
        if entry is not None:
            guidance, lossy = _guidance(entry)
            files.append((f"{GUIDANCE_FOLDER}/{path}.safetensors", guidance))
            rounded |= lossy
        own = {
            "imaging.panel": _word(panels[k]),
            "imaging.channel": str(imaging["channel"][k]),
            "imaging.channel_type": _word(imaging["channel_type"][k]),
            "storage.filename": _word(storage["filename"][k]),
            "storage.path": plane,
        }
        rows.append({**common, **own})
    return _Image(files, rows, rounded, set(_known_fields(record)) - _WITH_COLUMNS - _SAID_OTHERWISE)


def _is_grey(png: bytes) -> bool:
    """Whether a PNG has one channel of 8 or 16 bits: others (a palette, one bit) are written anew."""
    return png[25] == 0 and png[24] in (8, 16) and png[28] == 0


def _known_fields(record: dict[str, Any]) -> Iterator[str]:
    """The fields that say something."""
    for group, fields in record.items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if _says_something(value):
                yield f"{group}.{name}"


def _says_something(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_says_something, value.values() if isinstance(value, dict) else value))
    return value is not None


def _value(record: dict[str, Any], name: str) -> Any:
    group, field = name.split(".")
    return record[group].get(field)


def _word(value: Any) -> str:
    """A value in the table: what is not known is the text "unknown"."""
    if value is None or value == "":
        return _UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def _magnification(microscopy: dict[str, Any]) -> str:
    """As the source wrote it, if that is read as the same number."""
    number, text = microscopy["magnification"], microscopy["magnification_text"]
    if number is None or (text and magnification_number(text) == number):
        return _word(text)
    return _word(float(number))


def _tie(sample: Sample) -> str:
    """What ties the rows of an image together: the published id where it comes from there, else our own."""
    published: str | None = sample.record["imaging"]["multi_channel_id"]
    return published if published and sample.image_id.endswith("-ch*.png") else sample.image_id


def _panels(words: Sequence[str | None], numbers: Sequence[int], channels: int) -> list[str | None]:
    """The panel in each row: all its words where the channels are complete, as published, else the channel's own."""
    complete = list(numbers) == list(range(1, channels + 1))
    if complete and len(words) > 1 and any(words) and not any("," in (word or "") for word in words):
        return [", ".join(word or "" for word in words)] * len(words)
    # A word that has as many parts as the image has channels would be read as the whole panel.
    return [word.replace(",", ";") if word and word.count(",") + 1 == channels else word for word in words]


def _guidance(cells: Cells) -> tuple[bytes, bool]:
    """A guidance file, and whether positions had to be rounded; sizes stay as they are."""
    from safetensors.numpy import save

    xy = np.rint(cells.centroids).astype(np.int64).reshape(-1, 2)
    whole = np.rint(cells.sizes).astype(np.int64)
    sizes = whole if np.array_equal(whole, cells.sizes) else np.ascontiguousarray(cells.sizes, np.float32)
    return save({"data": xy, "sizes": sizes}), not np.array_equal(xy, cells.centroids)
