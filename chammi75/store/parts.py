"""Stores that consist of other stores: a dataset grows by a new store beside the old ones, and nothing is rewritten.

A store's manifest names its parts by URL and by the hash of their manifests. A store that has only parts is one file,
its manifest; the parts stay where they are.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chammi75.errors import StoreError
from chammi75.files import StorageOptions, absolute_url, filesystem_of, is_local, join_url, local_path, write_atomically
from chammi75.schemas.manifest import ManifestPart, StoreManifest
from chammi75.store.reader import Store, open_store, read_manifest
from chammi75.store.writer import MANIFEST, content_hash, folder_names, plain_errors
from chammi75.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 3


def expand(store: Store) -> list[Store]:
    """The stores that a store consists of: itself for the images of its own, then its parts, and theirs.

    Each has an index and shards of its own, and no parts; a store without parts is the only one.

    Raises
    ------
    StoreError
        If a part is missing or damaged, is another store than when it was made a part, is named twice, or is its own
        part.
    """
    if not store.manifest.parts:
        return [store]
    return _expanded(store, seen=set(), above=())


def combine(part_urls: Sequence[str], out_url: str, *, storage_options: StorageOptions | None = None) -> Store:
    """Write a store that consists of others: one manifest.

    Parts are named relative to it where they can be, so that all can be moved together. Its ``content_sha256`` is that
    of a copy of all images in one store.

    Parameters
    ----------
    part_urls : sequence of str
        Folders of finished stores, which may have parts themselves.
    out_url : str
        Folder of the new store: absent or empty.
    storage_options : mapping, optional
        For all of them.

    Raises
    ------
    StoreError
        If there is no part, a part cannot be opened, two images have one id, or the target is taken.
    """
    if not part_urls:
        raise StoreError("there is nothing to combine: name at least one store")
    out_url = absolute_url(out_url)
    parts, named, leaves = [], [], []
    for url in part_urls:
        content = read_manifest(absolute_url(url), storage_options)
        digest = hashlib.sha256(content).hexdigest()
        part = open_store(url, storage_options, manifest_sha256=digest)
        if is_local(part.url) and not is_local(out_url):
            raise StoreError(f"{out_url}: a store there cannot have {part.url} as a part, which others do not see")
        named.append(ManifestPart(url=_relative(out_url, join_url(part.url, MANIFEST)), sha256=digest))
        parts.append(part.manifest)
        leaves.extend(expand(part))
    ids = _chunks(leaves, "image_id")
    _refuse_repeated(ids)
    codecs = {part.codec for part in parts}
    manifest = StoreManifest(
        created_by=f"chammi75 {__version__}",
        codec=codecs.pop() if len(codecs) == 1 else None,
        images=sum(part.images for part in parts),
        planes=sum(part.planes for part in parts),
        pixel_bytes=sum(part.pixel_bytes for part in parts),
        shards=[],
        recipes=merged([part.recipes for part in parts]),
        cards=merged([part.cards for part in parts]),
        content_sha256=content_hash(ids.to_pylist(), _chunks(leaves, "content_sha256").to_pylist()),
        parts=named,
    )
    content = manifest.to_bytes()
    with plain_errors(out_url, "make room and combine again"):
        _check_new(out_url, storage_options)
        write_atomically(join_url(out_url, MANIFEST), content, storage_options)
    return Store(out_url, StoreManifest.from_bytes(content, out_url), storage_options)


def merged(hashes: Sequence[dict[str, str]]) -> dict[str, str]:
    """Hashes by source, of several stores; where they differ on a source, none is right for all, and it is left out.

    Examples
    --------
    >>> merged([{"a": "1", "b": "2"}, {"b": "3", "c": "4"}])
    {'a': '1', 'c': '4'}
    """
    found: dict[str, str] = {}
    differing = set()
    for mapping in hashes:
        for source, digest in mapping.items():
            if found.setdefault(source, digest) != digest:
                differing.add(source)
    return {source: digest for source, digest in found.items() if source not in differing}


def _expanded(store: Store, seen: set[str], above: tuple[str, ...]) -> list[Store]:
    if store.url in seen:
        raise StoreError(f"{above[0]}: {store.url} is a part of it twice")
    seen.add(store.url)
    collections = (*store.collections, (store.url, store.storage_options))
    parts = []
    for part in store.manifest.parts:
        url = _part_url(store.url, part.url)
        if url in (*above, store.url):
            raise StoreError(f"{url}: the store is a part of itself")
        same_protocol = _protocol(url) == _protocol(store.url)
        try:
            opened = open_store(url, store.storage_options if same_protocol else None, manifest_sha256=part.sha256)
        except StoreError as error:
            raise StoreError(f"{store.url}: a part of it cannot be used: {error}") from error
        parts.append(Store(opened.url, opened.manifest, opened.storage_options, collections))
    leaves = [leaf for part in parts for leaf in _expanded(part, seen, (*above, store.url))]
    return [_own(store, parts), *leaves] if store.manifest.shards else leaves


def _own(store: Store, parts: Sequence[Store]) -> Store:
    """A store for the images of its own alone."""
    if not store.manifest.parts:
        return store
    manifest = store.manifest
    table = store.index.table
    ids, digests = (table.column(name).to_pylist() for name in ("image_id", "content_sha256"))
    alone = {
        "images": manifest.own_images,
        "planes": manifest.planes - sum(part.manifest.planes for part in parts),
        "pixel_bytes": manifest.pixel_bytes - sum(part.manifest.pixel_bytes for part in parts),
        "content_sha256": content_hash(ids, digests),
        "parts": [],
        "manifest_sha256": None,
    }
    return Store(store.url, manifest.model_copy(update=alone), store.storage_options, store.collections)


def _part_url(folder: str, url: str) -> str:
    """Folder of a part, as the manifest in ``folder`` names it."""
    directory, _, name = url.rpartition("/")
    if name != MANIFEST:
        raise StoreError(f"{folder}: a part is named by the URL of its {MANIFEST}, not {url!r}")
    if "://" in url or "::" in url or url.startswith("/") or re.match(r"^[A-Za-z]:", url):
        if is_local(directory) and not is_local(folder):
            raise StoreError(f"{folder}: a store from elsewhere must not name a folder of this machine ({url!r})")
        return absolute_url(directory)
    if is_local(folder):
        return absolute_url(os.path.normpath(local_path(folder) / directory))
    head, path, tail = _split(folder)
    place = posixpath.normpath(posixpath.join(path.strip("/"), directory))
    if place == ".." or place.startswith("../"):
        raise StoreError(f"{folder}: the part {url!r} lies outside of what this URL can reach")
    return f"{head}{'' if place == '.' else place}{tail}"


def _relative(folder: str, url: str) -> str:
    """``url`` relative to ``folder``, where one filesystem has both."""
    if is_local(folder) and is_local(url):
        try:
            return os.path.relpath(local_path(url), local_path(folder)).replace(os.sep, "/")
        except ValueError:  # another drive
            return url
    if is_local(folder) or is_local(url):
        return url
    (head, path, tail), (other_head, other_path, other_tail) = _split(folder), _split(url)
    if (head, tail) != (other_head, other_tail):
        return url
    return posixpath.relpath(posixpath.join("/", other_path), posixpath.join("/", path))


def _split(url: str) -> tuple[str, str, str]:
    """A URL in three: up to its host or bucket, the path there, and what it is chained to.

    Examples
    --------
    >>> _split("s3://bucket/a/b"), _split("zip://a::s3://bucket/b.zip")
    (('s3://bucket/', 'a/b', ''), ('zip://', 'a', '::s3://bucket/b.zip'))
    """
    first, chain, rest = url.partition("::")
    protocol, _, place = first.partition("://")
    if chain:
        return f"{protocol}://", place, f"::{rest}"
    host, _, path = place.partition("/")
    return f"{protocol}://{host}/", path, ""


def _protocol(url: str) -> str:
    return "file" if is_local(url) else url.partition("://")[0]


def _chunks(stores: Sequence[Store], name: str) -> pa.ChunkedArray:
    """A column of the indexes of several stores, one after the other."""
    import pyarrow as pa

    return pa.chunked_array([chunk for store in stores for chunk in store.index.table.column(name).chunks])


def _refuse_repeated(ids: Any) -> None:
    import pyarrow.compute as pc

    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    names = ", ".join(repr(name) for name in repeated[:_SHOWN]) + (" …" if len(repeated) > _SHOWN else "")
    raise StoreError(
        f"the stores share {len(repeated)} images ({names}): each image may be there once; copy one of the stores"
        " without them, and combine that"
    )


def _check_new(url: str, storage_options: StorageOptions | None) -> None:
    filesystem, path = filesystem_of(url, storage_options, writing=True)
    filesystem.invalidate_cache()
    if filesystem.isfile(path) or folder_names(filesystem, path):
        raise StoreError(f"{url} is not empty: a new store is a new folder")
