"""The manifest's own rules."""

from __future__ import annotations

import json

import pytest

from chammi75.errors import StoreError
from chammi75.schemas import FileEntry, IndexEntry, StoreManifest

ZERO = "0" * 64


def manifest() -> StoreManifest:
    entry = FileEntry(path="index.parquet", bytes=1, sha256=ZERO)
    return StoreManifest(
        created_by="test",
        codec="zstd",
        images=0,
        planes=0,
        pixel_bytes=0,
        shards=[],
        index=IndexEntry(parquet=entry, arrow=entry),
        content_sha256=ZERO,
    )


def test_a_manifest_reads_back_with_its_hash() -> None:
    read = StoreManifest.from_bytes(manifest().to_bytes(), "m")
    assert read.model_copy(update={"manifest_sha256": None}) == manifest()
    assert read.manifest_sha256 is not None


def test_any_flipped_byte_of_a_manifest_is_found() -> None:
    content = manifest().to_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        try:
            read = StoreManifest.from_bytes(bytes(damaged), "m")
        except StoreError:
            continue
        assert read == StoreManifest.from_bytes(content, "m")  # white space between values


@pytest.mark.parametrize("key", ["format_version", "schema_version"])
@pytest.mark.parametrize(("version", "advice"), [(99, "install a newer chammi75"), (0, "build the store again")])
def test_another_version_is_refused_with_advice(key: str, version: int, advice: str) -> None:
    values = {**json.loads(manifest().to_bytes()), key: version}
    with pytest.raises(StoreError, match=advice):
        StoreManifest.from_bytes(json.dumps(values).encode(), "m")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "other"}'])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="m: "):
        StoreManifest.from_bytes(content, "m")
