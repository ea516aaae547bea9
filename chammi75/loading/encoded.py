"""The encoded planes of images: from memory, mapped from shards of this machine, or read from files and servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi75.errors import ReadError, StoreError
from chammi75.files import (
    StorageOptions,
    explain,
    is_local,
    join_url,
    read_bytes,
    read_files,
    reading_errors,
)

if TYPE_CHECKING:
    from chammi75.loading.image import MultiChannelImage

Window = tuple[int, int, int, int]


def read_encoded(
    images: Sequence[MultiChannelImage], channels: Sequence[int], windows: Sequence[Window | None]
) -> list[Any]:
    """One encoded plane for each of ``images``: its channel ``channels[k]``.

    Of a remote store only what a window needs is read; the rest of the plane is zeros then.

    Parameters
    ----------
    images : sequence of MultiChannelImage
        The same image may stand there several times, best side by side.
    channels : sequence of int
    windows : sequence of (y, x, height, width) or None
        What of each plane will be decoded; None is all.

    Returns
    -------
    list of bytes-like

    Raises
    ------
    StoreError, ReadError
        If a file is missing, cut short, or cannot be read.
    """
    planes: list[Any] = [None] * len(images)
    groups: dict[Callable[..., list[Any]], list[int]] = {}
    for k, image in enumerate(images):
        if image["planes"] is not None:
            planes[k] = image["planes"][channels[k]]
            continue
        if image["paths"] is not None:
            read: Callable[..., list[Any]] = _read_files
        else:
            read = _map_shards if is_local(image["uri"]) else _fetch_shards
        groups.setdefault(read, []).append(k)
    for read, numbers in groups.items():
        arguments = ([values[k] for k in numbers] for values in (images, channels, windows))
        for k, plane in zip(numbers, read(*arguments), strict=True):
            planes[k] = plane
    return planes


def plane_url(image: MultiChannelImage, channel: int) -> str:
    """Where the pixels of a channel are, as its user knows it."""
    paths = image["paths"]
    base: str = image["uri"] or image.image_id or "image"
    return join_url(base, paths[channel]) if paths else base


def is_plane_of_store(image: MultiChannelImage, content: Any) -> bool:
    """Whether an encoded plane of an image is of this library's own encoding, or some other image file."""
    in_shard = image["planes"] is None and image["paths"] is None
    return in_shard or bytes(memoryview(content)[:4]) == b"II*\0"


def _place(image: MultiChannelImage, channel: int) -> tuple[int, int]:
    return int(image["offsets"][channel]), int(image["lengths"][channel])


def _map_shards(
    images: Sequence[MultiChannelImage], channels: Sequence[int], windows: Sequence[Window | None]
) -> list[Any]:
    from chammi75.store.reader import map_file

    views: dict[str, memoryview] = {}
    planes = []
    for image, channel in zip(images, channels, strict=True):
        url = image["uri"]
        view = views.get(url)
        if view is None:
            view = views[url] = memoryview(map_file(url))
        offset, length = _place(image, channel)
        plane = view[offset : offset + length]
        if len(plane) != length:
            raise StoreError(f"{url}: cut short: {image.image_id} should be at bytes {offset} to {offset + length}")
        planes.append(plane)
    return planes


def _fetch_shards(
    images: Sequence[MultiChannelImage], channels: Sequence[int], windows: Sequence[Window | None]
) -> list[Any]:
    """Planes of remote shards, those of one store together."""
    from chammi75.loading.remote_planes import PlanePlace, fetch_windows

    planes: list[Any] = [None] * len(images)
    for numbers in _by_place(images, [image["uri"].rpartition("/")[0] for image in images]):
        places = [PlanePlace(images[k]["uri"], *_place(images[k], channels[k]), *images[k].shape[1:]) for k in numbers]
        parts = np.array([windows[k] or (0, 0, *images[k].shape[1:]) for k in numbers], np.int64)
        options = images[numbers[0]].storage_options
        failures: dict[int, Exception] = {}
        fetched = fetch_windows(places, parts, options, failures=failures)
        for number, error in sorted(failures.items()):
            url, image_id = places[number].url, images[numbers[number]].image_id
            if not isinstance(error, reading_errors()):
                raise error
            reason = explain(error, url, options)
            raise StoreError(f"{url}: the file cannot be read: {reason} ({image_id})") from error
        for k, plane in zip(numbers, fetched, strict=True):
            planes[k] = plane
    return planes


def _by_place(images: Sequence[MultiChannelImage], folders: Sequence[str]) -> list[list[int]]:
    """Numbers of images whose files are on one filesystem: in the same folder, with the same options."""
    places: dict[tuple[str, str], list[int]] = {}
    for k, (image, folder) in enumerate(zip(images, folders, strict=True)):
        places.setdefault((folder, repr(image.storage_options)), []).append(k)
    return list(places.values())


def _read_files(
    images: Sequence[MultiChannelImage], channels: Sequence[int], windows: Sequence[Window | None]
) -> list[Any]:
    """Whole files, those of one place together."""
    planes: list[Any] = [None] * len(images)
    for numbers in _by_place(images, [image["uri"] for image in images]):
        options = images[numbers[0]].storage_options
        urls = [plane_url(images[k], channels[k]) for k in numbers]
        ids = [images[k].image_id for k in numbers]
        for k, content in zip(numbers, _read_together(urls, ids, options), strict=True):
            planes[k] = content
    return planes


def _read_together(urls: list[str], ids: list[str | None], options: StorageOptions) -> list[Any]:
    """Files of one place; where that fails one by one, to tell which it is."""
    with suppress(ReadError, *reading_errors()):
        return list(read_files(urls, options))
    return [_read_file(url, image_id, options) for url, image_id in zip(urls, ids, strict=True)]


def _read_file(url: str, image_id: str | None, options: StorageOptions) -> bytes:
    try:
        return read_bytes(url, options)
    except FileNotFoundError as error:
        raise ReadError(url, f"the file is not there ({image_id})") from error
    except reading_errors() as error:
        raise ReadError(url, f"the file cannot be read: {explain(error, url, options)} ({image_id})") from error
