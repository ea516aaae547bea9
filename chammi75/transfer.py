"""Parts of remote files: fewer and larger requests, many at once, and again where what went wrong may pass.

One mechanism below everything that reads over a network. Parts of a file that lie near one another are joined into one
request, parts that are asked for twice are fetched once, and long parts are cut into pieces. What may pass (connections
that break or stall, answers 408, 429 and 5xx) is asked for again after a random, growing wait ("full jitter" in
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), or after what ``Retry-After`` says; what
will not (404, 403, 416) is not.

Everything runs on fsspec's event loop, which is another one in a forked process.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chammi75.direct import DirectReader, Incomplete, Refused, direct_reader
from chammi75.errors import ChammiError, FetchError
from chammi75.remote import is_unreachable, retry_after_s, status_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Span = tuple[str, int, int | None]
"""A path on a filesystem, the first byte, and the one behind the last (None: to the end of the file)."""

GAP_BYTES = 16 * 2**10
"""Parts nearer than this are one request: at 1 Gbit/s such a gap costs as much as a request (0.12 ms)."""

PIECE_BYTES = 8 * 2**20
"""Longer parts are fetched in pieces: one connection to S3 gives about 85 MB/s (its performance guidelines)."""

AT_ONCE = 256
"""Requests at the same time: 30 ms at 1 Gbit/s are 190 requests of 20 kB on their way."""

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_TRIES_OF_STRANGERS = 3  # a server that never answered is a wrong address more often than a broken network
_LEAST_BYTES_PER_S = 50_000
_jitter = random.SystemRandom()  # neither moves the user's random numbers nor repeats itself in forked workers


@dataclass
class Traffic:
    """What was asked of servers; handed to what reads, which adds to it.

    Attributes
    ----------
    requests : int
        Requests, repeated ones included.
    bytes : int
        Bytes of the answers.
    retries : int
        Requests that were repeated.
    """

    requests: int = 0
    bytes: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes
    ----------
    stall_s : float
        Seconds without a byte after which a request is given up and asked again.
    deadline_s : float
        Seconds after which a request is not asked again.
    first_wait_s, longest_wait_s : float
        Bounds of the wait before the second, and before a later try.
    """

    stall_s: float = 10.0
    deadline_s: float = 120.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 10.0

    def wait_s(self, tries: int, stated_s: float | None) -> float:
        """How long to wait after so many tries; never less than the server states."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2 ** (tries - 1))
        return (stated_s or 0.0) + _jitter.uniform(0.0, longest)


def fetch(
    filesystem: AbstractFileSystem,
    spans: Sequence[Span],
    *,
    traffic: Traffic | None = None,
    gap_bytes: int = GAP_BYTES,
    at_once: int = AT_ONCE,
    patience: Patience | None = None,
    stop_early: bool = True,
) -> list[Any]:
    """Parts of files of one filesystem, in the order of ``spans``.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
    spans : sequence of (path, start, stop)
        A part that ends beyond its file comes back shorter; one that begins there, empty.
    traffic : Traffic, optional
        Is added to.
    gap_bytes : int
        Parts of a file nearer than this are joined.
    at_once : int
        Most requests at the same time; fewer where the process may have few files open.
    patience : Patience, optional
    stop_early : bool
        Whether nothing more is asked for once something failed for good; what was not asked for is a ``FetchError``.

    Returns
    -------
    list
        For each span its bytes (a buffer), or the exception that stands for them: ``FetchError`` for what did not pass
        in time, else what the filesystem raises (``FileNotFoundError``, ``PermissionError``, …).
    """
    for path, start, stop in spans:
        if start < 0 or (stop is not None and stop < start):
            raise ChammiError(f"{path}: there are no bytes {start} to {stop}: a part is a first byte and a later one")
    joined = _joined(spans, gap_bytes)
    wide = list(joined)
    call = _Call(filesystem, traffic or Traffic(), patience or Patience(), stop_early)
    if filesystem.async_impl:
        contents = _on_loop(filesystem.loop, call.read_all(wide, min(at_once, _most_connections())))
    else:
        contents = call.read_in_turn(wide)
    parts: list[Any] = [b""] * len(spans)
    for (_, first, _), content, members in zip(wide, contents, joined.values(), strict=True):
        for k in members:
            _, start, stop = spans[k]
            if isinstance(content, BaseException):
                parts[k] = content
            else:
                parts[k] = memoryview(content)[start - first : None if stop is None else stop - first]
    return parts


def _joined(spans: Sequence[Span], gap_bytes: int) -> dict[Span, list[int]]:
    """The requests that cover the spans, each with the numbers of those that it covers."""
    found: dict[Span, list[int]] = {}
    members: list[int] = []
    path, first, end = "", 0, 0

    def close() -> None:
        if members:
            found[path, first, end] = list(members)

    numbers = [k for k, (_, start, stop) in enumerate(spans) if stop is None or stop > start]
    for k in sorted((k for k in numbers if spans[k][2] is not None), key=lambda k: spans[k][:2]):
        name, start, stop = spans[k]
        assert stop is not None
        fits = start - end <= gap_bytes and (start < end or max(end, stop) - first <= PIECE_BYTES)
        if not members or name != path or not fits:
            close()
            members, path, first, end = [], name, start, stop
        members.append(k)
        end = max(end, stop)
    close()
    for k in numbers:
        if spans[k][2] is None:
            found.setdefault(spans[k], []).append(k)
    return found


def _most_connections() -> int:
    """A quarter of the files that this process may have open (macOS allows 256 unless told otherwise)."""
    if sys.platform == "win32":
        return 64
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return AT_ONCE if soft == resource.RLIM_INFINITY else max(8, soft // 4)


def _on_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Run on the loop of another thread; Ctrl-C here ends it there."""
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Call:
    """One call of ``fetch``."""

    def __init__(self, filesystem: AbstractFileSystem, traffic: Traffic, patience: Patience, stop_early: bool) -> None:
        self.filesystem = filesystem
        self.traffic = traffic
        self.patience = patience
        self.stop_early = stop_early
        self.failed = False
        self.hopeless = False  # something was given up after the deadline, and nothing was answered since
        self.answered = False
        self.direct: DirectReader | None = direct_reader(filesystem)

    async def read_all(self, spans: Sequence[Span], at_once: int) -> list[Any]:
        contents: list[Any] = [None] * len(spans)
        ends: dict[int, int] = {}  # where a file ends within a span that is fetched in pieces
        queue = self.pieces(spans, contents)

        async def work() -> None:
            for k, piece in queue:
                path, start, stop = spans[k]
                content = await self.read(piece)
                if piece == (path, start, stop) or isinstance(content, BaseException):
                    contents[k] = content
                elif not isinstance(contents[k], BaseException):
                    at, end = piece[1] - start, piece[1] - start + len(content)
                    memoryview(contents[k])[at:end] = content
                    if end < (piece[2] or 0) - start:
                        ends[k] = min(end, ends.get(k, end))

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        for k, end in ends.items():
            if not isinstance(contents[k], BaseException):
                contents[k] = memoryview(contents[k])[:end]
        return contents

    def pieces(self, spans: Sequence[Span], contents: list[Any]) -> Iterator[tuple[int, Span]]:
        """Each span, or where it is long its pieces, for which room is made as soon as they are asked for."""
        for k, (path, start, stop) in enumerate(spans):
            if stop is None or stop - start <= PIECE_BYTES:
                yield k, (path, start, stop)
                continue
            try:
                contents[k] = bytearray(stop - start)
            except MemoryError as error:  # a damaged index may state any length
                contents[k] = self.error(
                    (path, start, stop), "they do not fit into memory: is that length right?", error
                )
                self.failed = True
                continue
            for at in range(start, stop, PIECE_BYTES):
                yield k, (path, at, min(at + PIECE_BYTES, stop))

    def read_in_turn(self, spans: Sequence[Span]) -> list[Any]:
        """Of a filesystem without an event loop (memory, FTP, an archive that reads for itself)."""
        if not spans:
            return []
        paths, starts, stops = (list(column) for column in zip(*spans, strict=True))
        answers = list(self.filesystem.cat_ranges(paths, starts, stops, on_error="return"))
        self.traffic.requests += len(spans)
        self.traffic.bytes += sum(len(answer) for answer in answers if not isinstance(answer, BaseException))
        return answers

    async def read(self, span: Span) -> Any:
        """The bytes of a span, or the error that stands for them."""
        if self.failed and self.stop_early:
            return self.error(span, "it was not asked for, since another part could not be read")
        clock = asyncio.get_running_loop().time
        started, tries = clock(), 0
        while True:
            tries += 1
            self.traffic.requests += 1
            try:
                content = await self.ask(span, tries)
            except Exception as error:  # noqa: BLE001 - given back, or asked again, as its kind says
                status = status_of(error)
                if not _may_pass(error, status):
                    self.failed = True
                    return error
                wait_s = self.patience.wait_s(tries, retry_after_s(error))
                late = clock() + wait_s - started > self.patience.deadline_s
                known = self.answered or (self.direct is not None and self.direct.is_known(span[0]))
                stranger = is_unreachable(error) and not known
                if late or self.hopeless or (stranger and tries >= _TRIES_OF_STRANGERS):
                    self.failed = self.hopeless = True
                    times = "once" if tries == 1 else f"{tries} times"
                    reason = f"{_reason(error, status, self.patience)} (asked {times} in {clock() - started:.1f} s)"
                    return self.error(span, f"{reason}; try again later", error)
                self.traffic.retries += 1
                await asyncio.sleep(wait_s)
                continue
            self.answered, self.hopeless = True, False
            self.traffic.bytes += len(content)
            return content

    async def ask(self, span: Span, tries: int) -> bytes:
        path, start, stop = span
        if self.direct is not None and self.direct.usable:
            try:
                return await self.direct.read(path, start, stop, self.patience.stall_s)
            except Refused:  # the filesystem knows of other regions and fresh credentials, and how to say what is wrong
                self.traffic.requests += 1
        limits = {} if stop is None else {"start": start, "end": stop}
        if stop is None:  # no word of its size: only the filesystem's own limits hold
            return bytes(await self.filesystem._cat_file(path, **({"start": start} if start else {})))
        patience_s = tries * (self.patience.stall_s + (stop - start) / _LEAST_BYTES_PER_S)
        return bytes(await asyncio.wait_for(self.filesystem._cat_file(path, **limits), patience_s))

    def error(self, span: Span, reason: str, cause: BaseException | None = None) -> FetchError:
        path, start, stop = span
        part = "" if stop is None else f"bytes {start} to {stop}: "
        error = FetchError(str(self.filesystem.unstrip_protocol(path)), f"{part}{reason}")
        error.__cause__ = cause
        return error


def _may_pass(error: BaseException, status: int | None) -> bool:
    if status is not None and status >= 300:
        return status in _PASSING
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    return is_unreachable(error) or isinstance(error, Incomplete) or type(error).__name__ in _BROKEN


_BROKEN = ("ClientPayloadError", "ClientOSError", "IncompleteRead", "ResponseStreamingError", "IncompleteReadError")
"""By name, because importing what raises them takes half a second."""


def _reason(error: BaseException, status: int | None, patience: Patience) -> str:
    if status is not None and status >= 300:
        return f"the server answers {status}"
    if isinstance(error, TimeoutError):
        return f"the server stalls: nothing came for {patience.stall_s:g} s"
    if isinstance(error, Incomplete):
        return str(error)
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    text = os.strerror(number) if number > 0 else type(error).__name__
    if is_unreachable(error):
        return f"no connection ({text})"
    return f"the connection breaks before the answer is whole ({text})"


def errors_in(parts: Iterable[Any]) -> Iterator[BaseException]:
    """The errors among what ``fetch`` gave: first those that tell most."""
    found = [part for part in parts if isinstance(part, BaseException)]
    yield from sorted(found, key=lambda error: isinstance(error, FetchError) and error.__cause__ is None)
