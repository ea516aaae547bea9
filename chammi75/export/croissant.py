"""Croissant (https://docs.mlcommons.org/croissant/docs/croissant-spec.html): a Parquet export, and ``croissant.json``.

``croissant.json`` is JSON-LD that names each file with its size and SHA-256, the licences, what to cite, and each
column of the record with its type, so that libraries and search engines that speak Croissant read the dataset. It is
written after the data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError
from chammi75.export.card import WrittenSplit, dataset_card
from chammi75.export.parquet import CARD, SHARD_BYTES, default_title, split_files, write_shards
from chammi75.export.report import EXPORT, ExportReport, report_json
from chammi75.export.samples import Advance, Export, Selections
from chammi75.export.target import new_export
from chammi75.files import StorageOptions
from chammi75.loading.licenses import license_url
from chammi75.loading.origins import citation, licenses_of, without_license
from chammi75.schemas.manifest import FileEntry

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic.fields import FieldInfo

CROISSANT = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
"""1.0 and not 1.1: what the validators and hosts in use understand."""

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification gives for version 1.0."""


def export(
    selections: Selections,
    out: str | os.PathLike[str],
    *,
    storage_options: StorageOptions | None = None,
    workers: int = 1,
    advance: Advance | None = None,
    title: str | None = None,
    license: str | None = None,
    url: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ExportReport:
    """Write images as Parquet with a Croissant description.

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
    title : str, optional
        Name of the dataset.
    license : str, optional
        SPDX licence of the images whose records state none.
    url : str, optional
        Web page of the dataset, if it has one.
    shard_bytes : int
        Bytes of planes in a file, at most (one image at least).

    Returns
    -------
    ExportReport

    Raises
    ------
    ChammiError
        If the target is not new or empty, or not one image could be read.
    """
    with new_export(out, storage_options) as target:
        work: Export[Any] = Export("croissant", selections, target, workers, advance)
        splits = write_shards(work, target, shard_bytes=shard_bytes)
        report = work.report()
        name = title or default_title(report)
        target.write_last(CARD, dataset_card(report, splits, name, license))
        described = describe(report, splits, target.entries, name, license, url)
        target.write_last(CROISSANT, (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode())
        target.write_last(EXPORT, report_json(report))
    return report


def describe(
    report: ExportReport,
    splits: Sequence[WrittenSplit],
    entries: Sequence[FileEntry],
    title: str,
    license: str | None = None,
    url: str | None = None,
) -> dict[str, Any]:
    """The Croissant description of a Parquet export.

    Parameters
    ----------
    report : ExportReport
    splits : sequence of WrittenSplit
    entries : sequence of FileEntry
        The Parquet files, with paths below the export.
    title : str
    license : str, optional
        SPDX licence of the images whose records state none.
    url : str, optional
        Web page of the dataset.
    """
    known = licenses_of(report.origins)
    if license is not None and without_license(report.origins):
        known = sorted({*known, license})
    licenses = [license_url(name) or name for name in known]
    cited = citation(report.origins)
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": title,
        "description": (
            f"{report.images} multi-channel microscopy images ({report.planes} planes): pixels without loss, one"
            " picture for each channel, with what is known of each image."
        ),
    }
    if licenses:
        described["license"] = licenses[0] if len(licenses) == 1 else licenses
    if url:
        described["url"] = url
    if cited:
        described["citeAs"] = cited
    described["keywords"] = ["microscopy", "biology", "multi-channel imaging"]
    described["distribution"] = [
        *(_file_object(entry) for entry in entries),
        *(
            {
                "@type": "cr:FileSet",
                "@id": f"{split}-files",
                "name": f"{split}-files",
                "description": f"The images of the split {split}.",
                "encodingFormat": "application/x-parquet",
                "includes": f"data/{split}-*.parquet",  # below the folder of croissant.json
            }
            for split in split_files([entry.path for entry in entries])
        ),
    ]
    described["recordSet"] = [_record_set(split.name, split.rows) for split in splits]
    return described


def _file_object(entry: FileEntry) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": entry.path,
        "name": entry.path.rsplit("/", 1)[-1],
        "contentUrl": entry.path,
        "contentSize": f"{entry.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": entry.sha256,
    }


def _record_set(split: str, rows: int) -> dict[str, Any]:
    from chammi75.schemas.arrow import planes_type

    set_id = split
    planes = _field(set_id, split, ("planes",), planes_type(), "One picture for each channel, in the order of imaging.")
    return {
        "@type": "cr:RecordSet",
        "@id": set_id,
        "name": split,
        "description": f"{rows} images, one in each row.",
        "key": {"@id": f"{set_id}/image_id"},
        "field": [*_fields(set_id, split), planes],
    }


def _fields(set_id: str, split: str) -> Iterator[dict[str, Any]]:
    """A field for each leaf of the record and of the cells."""
    from chammi75.schemas.arrow import arrow_type
    from chammi75.schemas.record import Annotation, ImageRecord

    models: list[tuple[tuple[str, ...], dict[str, FieldInfo]]] = [
        ((), dict(ImageRecord.model_fields)),
        (("annotation",), dict(Annotation.model_fields)),
    ]
    while models:
        path, fields = models.pop(0)
        for name, info in fields.items():
            inner = getattr(info.annotation, "model_fields", None)
            if inner is not None:
                models.append(((*path, name), dict(inner)))
                continue
            kind = arrow_type(info.annotation, tuple(info.metadata))
            yield _field(set_id, split, (*path, name), kind, info.description or name)


def _field(set_id: str, split: str, path: tuple[str, ...], kind: pa.DataType, description: str) -> dict[str, Any]:
    """A field whose values stand in the first part of ``path``, a column, below the others."""
    import pyarrow as pa

    repeated = pa.types.is_list(kind)
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    is_picture = pa.types.is_struct(kind)
    source: dict[str, Any] = {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": path[0]}}
    inside = "bytes" if is_picture else ".".join(path[1:])
    if inside:
        source["transform"] = {"jsonPath": inside}
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{set_id}/{'.'.join(path)}",
        "name": ".".join(path),
        "description": description,
        "dataType": "sc:ImageObject" if is_picture else _data_type(kind),
        "source": source,
    }
    if repeated:
        found["repeated"] = True
    return found


def _data_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_string(kind):
        return "sc:Text"
    raise ChammiError(f"there is no Croissant type for a column of {kind}")
