"""The store's manifest: what a build has written. It is written last; its presence is the commit."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from chammi75.errors import StoreError
from chammi75.schemas.base import RECORD_SCHEMA_VERSION, STORE_FORMAT_VERSION, Model

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Codec = Literal["zstd", "deflate"]


class FileEntry(Model):
    """A file of the store."""

    path: str = Field(description="Path below the store, with forward slashes.")
    bytes: int = Field(ge=0, description="Size of the file.")
    sha256: Sha256 = Field(description="SHA-256 of the file.")


class ShardEntry(FileEntry):
    """A shard: an Arrow IPC stream file of images."""

    split: str = Field(description="The split that its images belong to.")
    rows: int = Field(gt=0, description="Images in the shard.")


class IndexEntry(Model):
    """The two index files."""

    parquet: FileEntry = Field(description="One row per image, for people, DuckDB and polars.")
    arrow: FileEntry = Field(description="One row per image, memory-mapped by the loader.")


class ManifestPart(Model):
    """Another store that belongs to this one."""

    url: str = Field(description="URL of the other store's manifest, relative to this one where it can be.")
    sha256: Sha256 = Field(description="SHA-256 of that manifest file.")


class StoreManifest(Model):
    """What a store holds: images of its own in shards, images of other stores that belong to it, or both."""

    format: Literal["chammi75-store"] = "chammi75-store"
    format_version: int = Field(STORE_FORMAT_VERSION, description="Version of the layout on disk.")
    schema_version: int = Field(RECORD_SCHEMA_VERSION, description="Version of the record.")
    created_by: str = Field(description="Program and version that wrote the store.")
    codec: Codec | None = Field(description="How planes are compressed; null where parts differ.")
    images: int = Field(ge=0, description="Images in all shards and parts.")
    planes: int = Field(ge=0, description="Planes in all shards and parts.")
    pixel_bytes: int = Field(ge=0, description="Size of the decoded planes.")
    shards: list[ShardEntry] = Field(description="The shards, in the order of the index.")
    index: IndexEntry | None = Field(None, description="The index files; null where there are parts and no shards.")
    recipes: dict[str, Sha256] = Field({}, description="SHA-256 of each source's recipe.")
    cards: dict[str, Sha256] = Field({}, description="SHA-256 of each source's card.")
    content_sha256: Sha256 = Field(description="Hash over pixels and records; the same for every codec.")
    parts: list[ManifestPart] = Field([], description="Other stores that belong to this one.")
    manifest_sha256: Sha256 | None = Field(None, description="SHA-256 of this manifest without this line.")

    @model_validator(mode="after")
    def _images_have_an_index(self) -> StoreManifest:
        if self.index is None and (self.shards or not self.parts):
            raise ValueError("index: only a store that consists of parts has none")
        return self

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The store's own files: shards, then the index files."""
        index = () if self.index is None else (self.index.parquet, self.index.arrow)
        return (*self.shards, *index)

    @property
    def own_images(self) -> int:
        """Images in the store's own shards, without those of its parts."""
        return sum(shard.rows for shard in self.shards)

    def to_bytes(self) -> bytes:
        """The manifest file: indented JSON with its own hash in it."""
        bare = self.model_dump(mode="json", exclude={"manifest_sha256"})
        digest = hashlib.sha256(_canonical(bare)).hexdigest()
        return (json.dumps({**bare, "manifest_sha256": digest}, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, url: str) -> StoreManifest:
        """Read a manifest file.

        Parameters
        ----------
        content : bytes
            The file.
        url : str
            Where it comes from, for messages.

        Raises
        ------
        StoreError
            If it is no manifest, is damaged, or is of a version that this library cannot read.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{url}: the manifest is damaged (not JSON: {error})") from error
        if not isinstance(values, dict) or values.get("format") != "chammi75-store":
            raise StoreError(f"{url}: this is not the manifest of a chammi75 store")
        for key, supported in (("format_version", STORE_FORMAT_VERSION), ("schema_version", RECORD_SCHEMA_VERSION)):
            version = values.get(key)
            if version != supported:
                newer = isinstance(version, int) and version > supported
                advice = "install a newer chammi75" if newer else "build the store again with this chammi75"
                raise StoreError(f"{url}: the store has {key} {version!r}, this chammi75 reads {supported}: {advice}")
        try:
            manifest = cls.model_validate(values)
        except ValidationError as error:
            raise StoreError(f"{url}: the manifest is damaged: {_first_problem(error)}") from error
        stated = values.pop("manifest_sha256", None)
        if stated != hashlib.sha256(_canonical(values)).hexdigest():
            raise StoreError(f"{url}: the manifest is damaged: its content does not have the hash that it states")
        return manifest


def _canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
