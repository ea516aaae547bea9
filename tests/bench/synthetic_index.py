"""A generated store of the published dataset's size, without its shards, and its metadata table, for the index bench.

Studies, channel configurations and their words are those of a table of CHAMMI-75's shape: 75 studies, 16 organisms, 1
to 7 channels.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from chammi75.schemas.arrow import record_schema
from chammi75.schemas.manifest import FileEntry, IndexEntry, ShardEntry, StoreManifest
from chammi75.store.facets import facet_columns
from chammi75.store.index import ROW_GROUP, index_schema
from chammi75.store.writer import MANIFEST, shard_path

_SHARD_IMAGES = 2000
_PLANE_BYTES = 300_000

CHANNEL_TYPES = [
    "nucleus",
    "er",
    "rna",
    "agp",
    "mitochondria",
    "protein",
    "microtubules",
    "cytoskeleton",
    "bright-field",
    "r",
    "g",
    "b",
]
ORGANISMS = [
    "Homo sapiens",
    "Mus musculus",
    "Drosophila melanogaster",
    "Saccharomyces cerevisiae",
    *(f"Species {k}" for k in range(12)),
]


def make(folder: Path, images: int, seed: int = 0) -> tuple[Path, Path, Path]:
    """Write ``index.parquet``, ``index.arrow``, ``metadata.csv`` and a manifest for ``images`` images.

    Returns the paths of the first three. The shards that the manifest names are not there: filters read none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    studies = 75
    sizes = rng.dirichlet(np.ones(studies) * 0.6)
    study = np.sort(rng.choice(studies, images, p=sizes))
    configurations = [sorted(rng.choice(len(CHANNEL_TYPES), rng.integers(1, 6), replace=False)) for _ in range(studies)]
    organism = rng.choice(len(ORGANISMS), studies, p=np.array([40, 10, 6, 5, *[1] * 12]) / 73)
    counts = np.array([len(configuration) for configuration in configurations])[study]
    ends = np.concatenate(([0], np.cumsum(counts)))
    flat = np.concatenate([configurations[k] for k in range(studies)])
    starts = np.concatenate(([0], np.cumsum([len(configuration) for configuration in configurations])))
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
    channel = flat[np.repeat(starts[study], counts) + within]
    number = within + 1

    study_names = pa.array([f"idr{k:04d}" for k in range(studies)])
    offsets = pa.array(ends, pa.int32())
    one = lambda values, index: values.take(pa.array(index))  # noqa: E731
    names = one(study_names, study)
    serial = pa.array(np.arange(images)).cast(pa.string())
    image_id = pa.compute.binary_join_element_wise(names, pa.compute.utf8_lpad(serial, 8, "0"), "/")
    word = one(pa.array(CHANNEL_TYPES), channel)
    width = pa.array(np.full(images, 1080, np.int32))
    wells = one(
        pa.array([f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]),
        rng.integers(0, 384, images),
    )
    plates = one(pa.array([f"plate{k:04d}" for k in range(1000)]), (np.arange(images) // 3000) % 1000)
    schema = record_schema()

    def struct(name: str, **columns: pa.Array) -> pa.Array:
        fields = list(schema.field(name).type)
        return pa.StructArray.from_arrays(
            [columns.get(field.name, pa.nulls(images, field.type)).cast(field.type) for field in fields], fields=fields
        )

    path = pa.compute.binary_join_element_wise(
        one(image_id, np.repeat(np.arange(images), counts)), pa.array(within).cast(pa.string()), "-ch"
    )
    paths = pa.ListArray.from_arrays(offsets, path)
    table = pa.table(
        {
            "image_id": image_id,
            "experiment": struct("experiment", study=names, plate=plates, well=wells),
            "biology": struct("biology", organism=one(pa.array(ORGANISMS), organism[study])),
            "imaging": struct(
                "imaging",
                multi_channel_id=image_id,
                channel=pa.ListArray.from_arrays(offsets, pa.array(number, pa.int32())),
                channel_type=pa.ListArray.from_arrays(offsets, word),
                panel=pa.ListArray.from_arrays(offsets, word),
            ),
            "microscopy": struct(
                "microscopy",
                type=pa.repeat("fluorescence", images),
                magnification=one(pa.array([10.0, 20.0, 40.0, 63.0]), study % 4),
            ),
            "geometry": struct(
                "geometry",
                width=width,
                height=width,
                channels=pa.array(counts, pa.int32()),
                dtype=pa.repeat("uint8", images),
            ),
            "storage": struct("storage", filename=paths, path=paths),
            "provenance": struct("provenance", source=names, license=pa.repeat("CC-BY-4.0", images)),
            "quality": struct("quality"),
            "curation": struct("curation"),
        },
        schema=schema,
    )
    parquet, arrow, csv = folder / "index.parquet", folder / "index.arrow", folder / "metadata.csv"
    with pq.ParquetWriter(parquet, schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    lengths = pa.array(np.full(ends[-1], _PLANE_BYTES, np.int64))
    digest = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), images, [None, pa.py_buffer(rng.bytes(32 * images))])
    index = {
        "image_id": image_id,
        "shard": pa.array((np.arange(images) // _SHARD_IMAGES).astype(np.int32)),
        "plane_offsets": pa.ListArray.from_arrays(
            offsets, pa.array(np.arange(ends[-1], dtype=np.int64) * _PLANE_BYTES)
        ),
        "plane_lengths": pa.ListArray.from_arrays(offsets, lengths),
        "cells": pa.ListArray.from_arrays(offsets, pa.array(np.full(ends[-1], 50, np.int32))),
        "centroids_offset": pa.array(np.arange(images, dtype=np.int64)),
        "sizes_offset": pa.array(np.arange(images, dtype=np.int64)),
        "stored_sha256": digest,
        "content_sha256": digest,
        **facet_columns(table.combine_chunks()),
        "height": width,
        "width": width,
        "dtype": pa.DictionaryArray.from_arrays(pa.array(np.zeros(images, np.int32)), pa.array(["uint8"])),
        "significant_bits": pa.array(np.full(images, 8, np.int32)),
    }
    table_index = pa.Table.from_arrays([index[name] for name in index_schema().names], schema=index_schema())
    with pa.ipc.new_file(arrow, table_index.schema) as file:
        file.write_table(table_index, max_chunksize=images)
    rows = np.repeat(np.arange(images), counts)
    unknown = pa.repeat("unknown", len(rows))
    text = lambda values: one(values, rows)  # noqa: E731
    metadata = pa.table(
        {
            "experiment.study": text(names),
            "experiment.plate": text(plates),
            "experiment.well": text(wells),
            "experiment.reagent": unknown,
            "experiment.control": pa.repeat("no", len(rows)),
            "biology.organism": text(one(pa.array(ORGANISMS), organism[study])),
            "biology.cell_line": unknown,
            "biology.cell_type": unknown,
            "imaging.multi_channel_id": text(image_id),
            "imaging.panel": word,
            "imaging.channel": pa.array(number),
            "imaging.channel_type": word,
            "microscopy.type": pa.repeat("fluorescence", len(rows)),
            "microscopy.magnification": one(one(pa.array(["10", "20", "40", "63"]), study % 4), rows),
            "microscopy.fov": unknown,
            "geometry.width": text(width),
            "geometry.height": text(width),
            "geometry.depth": unknown,
            "geometry.channels": text(pa.array(counts)),
            "geometry.z_slice": unknown,
            "geometry.timepoint": unknown,
            "storage.filename": text(names),
            "storage.path": path,
        }
    )
    pa.csv.write_csv(metadata, csv, pa.csv.WriteOptions(quoting_style="needed"))
    write_manifest(folder, images, int(ends[-1]))
    return parquet, arrow, csv


def write_manifest(folder: Path, images: int, planes: int) -> None:
    """Write the manifest, so that ``open_store`` takes the folder for a store."""
    entries = []
    for name in ("index.parquet", "index.arrow"):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries.append(FileEntry(path=name, bytes=(folder / name).stat().st_size, sha256=digest))
    shards = [
        ShardEntry(
            path=shard_path("train", number),
            bytes=_SHARD_IMAGES * _PLANE_BYTES,
            sha256="0" * 64,
            split="train",
            rows=min(_SHARD_IMAGES, images - number * _SHARD_IMAGES),
        )
        for number in range(-(-images // _SHARD_IMAGES))
    ]
    manifest = StoreManifest(
        created_by="synthetic_index.py",
        codec="zstd",
        images=images,
        planes=planes,
        pixel_bytes=planes * 1080 * 1080,
        shards=shards,
        index=IndexEntry(parquet=entries[0], arrow=entries[1]),
        content_sha256=entries[1].sha256,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_800_000)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.images)
