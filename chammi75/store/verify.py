"""Checking a store byte by byte, and saying which image a damage hits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from chammi75.files import join_url, open_url, read_bytes
from chammi75.store.damage import Damage, images_of, locate_damage
from chammi75.store.parts import expand
from chammi75.store.reader import Store, open_store
from chammi75.store.writer import MANIFEST

_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes
    ----------
    files, images, bytes : int
        What was checked.
    damages : tuple of Damage
        Empty for a sound store.
    """

    files: int
    images: int
    bytes: int
    damages: tuple[Damage, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


def verify(
    url: str, storage_options: dict[str, Any] | None = None, advance: Callable[[int], None] | None = None
) -> VerifyReport:
    """Check every byte of a store against its manifest; where a file differs, find the images that it hits.

    The parts of a store are checked too; their files are named by their URLs.

    Parameters
    ----------
    url : str
        The store.
    storage_options : mapping, optional
    advance : callable, optional
        Called with the number of bytes checked, for progress.

    Raises
    ------
    StoreError
        If there is no store to check, its manifest is damaged, or a part is missing or another one than it was.
    """
    store = open_store(url, storage_options)
    damages: list[Damage] = []
    if not _is_as_written(read_bytes(join_url(store.url, MANIFEST), storage_options)):
        reason = "its spaces or line ends differ from what was written; what it says is right"
        damages.append(Damage(MANIFEST, None, reason))
    files = checked = 0
    for part in expand(store):
        size, found = _check(part, advance)
        files += len(part.manifest.files)
        checked += size
        damages.extend(
            found
            if part.url == store.url
            else [replace(damage, file=join_url(part.url, damage.file)) for damage in found]
        )
    return VerifyReport(files, store.manifest.images, checked, tuple(damages))


def _check(store: Store, advance: Callable[[int], None] | None) -> tuple[int, list[Damage]]:
    """The files of one store: how many bytes were read, and what is wrong."""
    damages: list[Damage] = []
    checked = 0
    absent, differing = {}, []
    for entry in store.manifest.files:
        try:
            size, digest = _hash(join_url(store.url, entry.path), store, advance)
        except OSError as error:
            absent[entry] = f"the file cannot be read ({error})"
            continue
        checked += size
        if size != entry.bytes or digest != entry.sha256:
            differing.append(entry)
    damaged = frozenset(entry.path for entry in (*absent, *differing))
    for entry, reason in absent.items():
        damages.append(Damage(entry.path, None, reason))
        damages.extend(images_of(store, entry, damaged, "its shard cannot be read"))
    for entry in differing:
        found = list(locate_damage(store, entry, damaged))
        unlocated = "its bytes differ from the manifest's hash, but no image is hit"
        damages.extend(found or [Damage(entry.path, None, unlocated)])
    return checked, damages


def _is_as_written(manifest: bytes) -> bool:
    """Whether a manifest that says the right thing also says it byte for byte as ``StoreManifest.to_bytes`` does."""
    return manifest == (json.dumps(json.loads(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def _hash(url: str, store: Store, advance: Callable[[int], None] | None) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_url(url, storage_options=store.storage_options) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if advance is not None:
                advance(len(chunk))
    return size, digest.hexdigest()
