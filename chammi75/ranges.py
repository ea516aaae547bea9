"""Many byte ranges of many files of one place: local, remote, or inside a zip archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from chammi75.errors import ChammiError, FetchError
from chammi75.files import StorageOptions, filesystem_of, is_local, local_path
from chammi75.transfer import GAP_BYTES, Patience, Traffic, errors_in, fetch

__all__ = ["Patience", "Traffic", "fetch_ranges"]

Range = tuple[str, int, int]
"""URL of a file, first byte, number of bytes."""


def fetch_ranges(
    requests: Sequence[Range],
    storage_options: StorageOptions | None = None,
    *,
    traffic: Traffic | None = None,
    gap_bytes: int = GAP_BYTES,
    patience: Patience | None = None,
    failures: dict[int, Exception] | None = None,
) -> list[memoryview]:
    """Byte ranges of files of one filesystem, all of them, each of the length that was asked for.

    Remote ranges are asked for concurrently; those near one another in one file are one request, and what is asked for
    twice is fetched once. Requests that break, stall or are turned away for the moment are made again
    (``chammi75.transfer``). Local files are read where they are, one after the other.

    It may be used before a fork and after it, in parent and children.

    Parameters
    ----------
    requests : sequence of (url, offset, length)
        In bytes.
    storage_options : mapping, optional
        For the filesystem.
    traffic : Traffic, optional
        Is added to: requests, bytes and retries.
    gap_bytes : int
        Remote ranges nearer than this are one request.
    patience : Patience, optional
        How long a server is waited for; 10 seconds without a byte, 2 minutes altogether, unless told otherwise.
    failures : dict, optional
        Takes the errors of ranges that cannot be read, by number, and their answers are empty; without it the first
        of them is raised.

    Returns
    -------
    list of memoryview
        In the order of ``requests``; those that were joined share their memory.

    Raises
    ------
    FetchError
        If a file ends before a range does, or a server did not give it in time.
    FileNotFoundError, PermissionError, OSError
        As of ``chammi75.files.reading_errors``; not asked for again.
    ChammiError
        If a range has a negative offset or length, or the URLs are not of one filesystem.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.bin")
    ...     _ = path.write_bytes(b"0123456789")
    ...     [bytes(part) for part in fetch_ranges([(str(path), 4, 3), (str(path), 0, 2)])]
    [b'456', b'01']
    """
    if not requests:
        return []
    for url, offset, length in requests:
        if offset < 0 or length < 0:
            raise ChammiError(f"{url}: there are no {length} bytes at {offset}: both must be 0 or more")
    traffic = traffic if traffic is not None else Traffic()
    if all(is_local(url) for url, _, _ in requests):
        parts = _read_local(requests, traffic)
    else:
        parts = _read_remote(requests, storage_options, traffic, gap_bytes, patience, failures is None)
    for k, ((url, offset, length), part) in enumerate(zip(requests, parts, strict=True)):
        if not isinstance(part, BaseException) and len(part) != length:
            parts[k] = FetchError(
                url,
                f"the file is cut short: of bytes {offset} to {offset + length}, {len(part)} are there; compare its"
                " size with that of the original, and copy it again",
            )
    if failures is None:
        for error in errors_in(parts):
            raise error
        return [memoryview(part) for part in parts]
    failures.update((k, part) for k, part in enumerate(parts) if isinstance(part, Exception))
    return [memoryview(b"" if isinstance(part, BaseException) else part) for part in parts]


def _read_local(requests: Sequence[Range], traffic: Traffic) -> list[Any]:
    """Each file is opened once; reading leaves no position that a forked process would share."""
    parts: list[Any] = [b""] * len(requests)
    by_url: dict[str, list[int]] = {}
    for k, (url, _, _) in enumerate(requests):
        by_url.setdefault(url, []).append(k)
    for url, numbers in by_url.items():
        try:
            with open(local_path(url), "rb", buffering=0) as file:
                for k in numbers:
                    parts[k] = _read_part(file, *requests[k][1:])
                    traffic.requests += 1
                    traffic.bytes += len(parts[k])
        except OSError as error:
            for k in numbers:
                parts[k] = error
    return parts


def _read_part(file: Any, offset: int, length: int) -> bytes:
    end = os.fstat(file.fileno()).st_size
    length = max(0, min(length, end - offset))  # a damaged index must not make us allocate
    part = bytearray(length)
    file.seek(offset)
    done = 0
    while done < length and (count := file.readinto(memoryview(part)[done:])):  # 2 GiB at most at a time
        done += count
    return bytes(part[:done]) if done < length else part  # type: ignore[return-value]


def _read_remote(
    requests: Sequence[Range],
    storage_options: StorageOptions | None,
    traffic: Traffic,
    gap_bytes: int,
    patience: Patience | None,
    stop_early: bool,
) -> list[Any]:
    places = {url: filesystem_of(url, storage_options) for url in dict.fromkeys(url for url, _, _ in requests)}
    filesystem, _ = next(iter(places.values()))
    for url, (other, _) in places.items():
        if other is not filesystem and not _are_same(other, filesystem):
            raise ChammiError(
                f"{url} and {requests[0][0]} lie on different filesystems: ask for them one after the other"
            )
    spans = [(places[url][1], offset, offset + length) for url, offset, length in requests]
    return fetch(filesystem, spans, traffic=traffic, gap_bytes=gap_bytes, patience=patience, stop_early=stop_early)


def _are_same(one: Any, other: Any) -> bool:
    """Whether two filesystems read the same place; archives are made anew by each who asks."""
    return type(one) is type(other) and getattr(one, "name", one) == getattr(other, "name", other)
