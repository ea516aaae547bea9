"""Many byte ranges of many files of one place: local, remote, or inside a zip archive."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from chammi75.errors import ChammiError, FetchError
from chammi75.files import StorageOptions, filesystem_of, is_local, local_path
from chammi75.transfer import GAP_BYTES, Patience, Traffic, errors_in, fetch_and_follow

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Patience", "Traffic", "fetch_ranges", "fetch_ranges_and_more"]

Range = tuple[str, int, int]
"""URL of a file, first byte, number of bytes."""

Follow = Callable[[int, memoryview], Sequence[tuple[int, int]]]
"""The number of a range and its bytes in; further ranges of the same file out: first byte, number of bytes."""


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
    parts, _ = fetch_ranges_and_more(
        requests,
        lambda number, part: (),
        storage_options,
        traffic=traffic,
        gap_bytes=gap_bytes,
        patience=patience,
        failures=failures,
    )
    return parts


def fetch_ranges_and_more(
    requests: Sequence[Range],
    follow: Follow,
    storage_options: StorageOptions | None = None,
    *,
    traffic: Traffic | None = None,
    gap_bytes: int = GAP_BYTES,
    patience: Patience | None = None,
    failures: dict[int, Exception] | None = None,
) -> tuple[list[memoryview], list[list[memoryview]]]:
    """Byte ranges, and others of the same files that their bytes tell of, asked for as soon as they are known.

    Parameters
    ----------
    follow : callable
        Called with the number and the bytes of each range that came whole; perhaps in another thread, where it must not
        wait for anything.
    requests, storage_options, traffic, gap_bytes, patience
        As of ``fetch_ranges``.
    failures : dict, optional
        As of ``fetch_ranges``; a range fails with what follows from it, and what came of it is still given.

    Returns
    -------
    parts : list of memoryview
        As of ``fetch_ranges``.
    more : list of list of memoryview
        For each range those that followed from it.

    Raises
    ------
    FetchError, FileNotFoundError, PermissionError, OSError, ChammiError
        As of ``fetch_ranges``.
    """
    _check(requests)
    traffic = traffic if traffic is not None else Traffic()
    asked: list[list[Range]] = [[] for _ in requests]

    def follow_whole(number: int, part: Any) -> list[Range]:
        url, _, length = requests[number]
        if len(part) == length:
            asked[number] = [(url, at, count) for at, count in follow(number, memoryview(part))]
            _check(asked[number])
        return asked[number]

    if all(is_local(url) for url, _, _ in requests):
        parts = _read_local(requests, traffic)
        whole = (k for k, part in enumerate(parts) if not isinstance(part, BaseException))
        followed = {k: follow_whole(k, parts[k]) for k in whole}
        found = iter(_read_local([later for ranges in followed.values() for later in ranges], traffic))
        more = [[next(found) for _ in followed.get(k, ())] for k in range(len(requests))]
    else:
        places = _places(dict.fromkeys(url for url, _, _ in requests), storage_options)
        filesystem, _ = next(iter(places.values()))
        parts, more = fetch_and_follow(
            filesystem,
            [_span(request, places) for request in requests],
            lambda number, part: [_span(later, places) for later in follow_whole(number, part)],
            traffic=traffic,
            gap_bytes=gap_bytes,
            patience=patience,
            stop_early=failures is None,
        )
    for ranges, found_parts in ((requests, parts), *zip(asked, more, strict=True)):
        for k, part in enumerate(found_parts):
            if not isinstance(part, BaseException) and len(part) != ranges[k][2]:
                found_parts[k] = _cut_short(ranges[k], len(part))
    if failures is None:
        for error in errors_in([*parts, *(part for found_parts in more for part in found_parts)]):
            raise error
    else:
        for k, found_parts in enumerate(more):
            failures.update((k, part) for part in (*found_parts, parts[k]) if isinstance(part, Exception))
    return _views(parts), [_views(found_parts) for found_parts in more]


def _check(requests: Iterable[Range]) -> None:
    for url, offset, length in requests:
        if offset < 0 or length < 0:
            raise ChammiError(f"{url}: there are no {length} bytes at {offset}: both must be 0 or more")


def _cut_short(request: Range, there: int) -> FetchError:
    url, offset, length = request
    return FetchError(
        url,
        f"the file is cut short: of bytes {offset} to {offset + length}, {there} are there; compare its size with that"
        " of the original, and copy it again",
    )


def _views(parts: Iterable[Any]) -> list[memoryview]:
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


_PLAIN_NAME = re.compile(r"[\w.-]+", re.ASCII)


def _places(urls: Iterable[str], storage_options: StorageOptions | None) -> dict[str, tuple[AbstractFileSystem, str]]:
    """The filesystem of each URL, the same for all, and its path there.

    To find a filesystem takes longer than to send a request: files of one folder are looked up once.

    Raises
    ------
    ChammiError
        If the URLs are not of one filesystem.
    """
    places: dict[str, tuple[AbstractFileSystem, str]] = {}
    folders: dict[str, tuple[AbstractFileSystem, str]] = {}
    for url in urls:
        folder, _, name = url.rpartition("/")
        is_plain = "::" not in url and _PLAIN_NAME.fullmatch(name) is not None
        if is_plain and folder in folders:
            filesystem, prefix = folders[folder]
            places[url] = filesystem, f"{prefix}{name}"
            continue
        filesystem, path = places[url] = filesystem_of(url, storage_options)
        if is_plain and path.endswith(f"/{name}"):
            folders[folder] = filesystem, path.removesuffix(name)
        first, (one, _) = next(iter(places.items()))
        if filesystem is not one and not _are_same(filesystem, one):
            raise ChammiError(f"{url} and {first} lie on different filesystems: ask for them one after the other")
    return places


def _span(request: Range, places: dict[str, tuple[AbstractFileSystem, str]]) -> tuple[str, int, int]:
    url, offset, length = request
    return places[url][1], offset, offset + length


def _are_same(one: Any, other: Any) -> bool:
    """Whether two filesystems read the same place; archives are made anew by each who asks."""
    return type(one) is type(other) and getattr(one, "name", one) == getattr(other, "name", other)
