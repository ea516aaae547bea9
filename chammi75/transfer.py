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
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi75.direct import DirectReader, Incomplete, Refused, direct_reader
from chammi75.errors import ChammiError, FetchError, UnreachableError
from chammi75.remote import is_unreachable, retry_after_s, status_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Span = tuple[str, int, int | None]
"""A path on a filesystem, the first byte, and the one behind the last (None: to the end of the file)."""

Follow = Callable[[int, Any], Iterable[Span]]
"""What is to be asked for once a part is there: its number and its bytes in, more parts of the same files out."""

GAP_BYTES = 64 * 2**10
"""Parts of a file nearer than this are one request.

Such a gap takes 0.5 ms of a wire of 1 Gbit/s, and a request 0.2 ms of a processor here and about as much of the server,
which allows only so many (S3: 5500 a second and prefix). The rows of tiles of a crop out of a 1024 px plane lie 40 kB
apart: joined, a crop takes 2.4 requests and 132 kB, apart 4.3 and 63 kB, and a worker gets 1.4 times as many crops
either way of 1 and of 10 Gbit/s (``tests/bench/ranges.py``).
"""

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
        For each span its bytes (a buffer), or the exception that stands for them: ``UnreachableError`` for what did not
        pass in time, ``FetchError`` for what came in another length than it must each time, else what the filesystem
        raises (``FileNotFoundError``, ``PermissionError``, …).
    """
    parts, _ = fetch_and_follow(
        filesystem,
        spans,
        lambda number, part: (),
        traffic=traffic,
        gap_bytes=gap_bytes,
        at_once=at_once,
        patience=patience,
        stop_early=stop_early,
    )
    return parts


def fetch_and_follow(
    filesystem: AbstractFileSystem,
    spans: Sequence[Span],
    follow: Follow,
    *,
    traffic: Traffic | None = None,
    gap_bytes: int = GAP_BYTES,
    at_once: int = AT_ONCE,
    patience: Patience | None = None,
    stop_early: bool = True,
) -> tuple[list[Any], list[list[Any]]]:
    """As ``fetch``, and what each part tells of, which is asked for as soon as that part is there.

    Parameters
    ----------
    follow : callable
        Called with the number and the bytes of each part that came, on the event loop: it must not wait for anything.

    Returns
    -------
    parts : list
        As of ``fetch``.
    more : list of list
        For each part what ``follow`` asked for, in its order.
    """
    call = _Call(filesystem, traffic or Traffic(), patience or Patience(), stop_early)
    owners: dict[Span, list[tuple[list[Any], int, Span]]] = {}  # who gets which part of a request: list, number, span
    parts: list[Any] = [b""] * len(spans)
    more: list[list[Any]] = [[] for _ in spans]

    def ask(wanted: Sequence[Span], places: Sequence[tuple[list[Any], int]]) -> list[Span]:
        """The requests that are new among those for some parts."""
        for path, start, stop in wanted:
            if start < 0 or (stop is not None and stop < start):
                raise ChammiError(f"{path}: there are no bytes {start} to {stop}: a part is a first and a later byte")
        new = []
        for wide, members in _joined(wanted, gap_bytes).items():
            if wide not in owners:
                new.append(wide)
            owners.setdefault(wide, []).extend((*places[k], wanted[k]) for k in members)
        return new

    def give(wide: Span, content: Any) -> list[Span]:
        """Hand a content to its owners; the requests that follow."""
        asked: list[tuple[Span, list[Any], int]] = []
        for target, k, (_, start, stop) in owners[wide]:
            if isinstance(content, BaseException):
                target[k] = content
                continue
            target[k] = memoryview(content)[start - wide[1] : None if stop is None else stop - wide[1]]
            if target is parts:
                found = list(follow(k, target[k]))
                more[k] = [b""] * len(found)
                asked += [(span, more[k], number) for number, span in enumerate(found)]
        return ask([span for span, _, _ in asked], [(target, number) for _, target, number in asked])

    new = ask(spans, [(parts, k) for k in range(len(spans))])
    if filesystem.async_impl:
        _on_loop(filesystem.loop, call.read_all(new, min(at_once, _most_connections()), give))
    else:
        while new:
            new = [later for wide, content in call.read_in_turn(new) for later in give(wide, content)]
    return parts, more


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


def _on_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Run on the loop of another thread; Ctrl-C here ends it there."""
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        future.result()
    except BaseException:
        future.cancel()
        raise


class _Pieces:
    """A long span that is fetched in pieces.

    Attributes
    ----------
    span : Span
    left : list of Span
        Pieces that are not there yet.
    content : buffer or Exception
        What came so far; less where the file ends within the span.
    """

    def __init__(self, span: Span) -> None:
        path, start, stop = span
        assert stop is not None
        self.span = span
        # not a bytearray, which writes its zeros: memory is taken by what comes, and a span may be longer than its file
        self.content: Any = np.empty(stop - start, np.uint8).data
        self.left: list[Span] = [(path, at, min(at + PIECE_BYTES, stop)) for at in range(start, stop, PIECE_BYTES)]

    def put(self, piece: Span, content: Any) -> None:
        """A piece came, or an error in its place."""
        self.left.remove(piece)
        if isinstance(content, BaseException):
            self.content = content
        elif not isinstance(self.content, BaseException):
            at = piece[1] - self.span[1]
            there = content[: len(self.content) - at] if at < len(self.content) else b""
            self.content[at : at + len(there)] = there
            if at + len(content) < (piece[2] or 0) - self.span[1]:
                self.content = memoryview(bytearray(self.content[: at + len(content)]))  # lets the room go


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

    async def read_all(self, spans: Sequence[Span], at_once: int, give: Callable[[Span, Any], list[Span]]) -> None:
        """Read spans, hand each content to ``give``, and read what it asks for thereupon."""
        waiting: deque[tuple[Span, _Pieces | None]] = deque()
        working = 0

        def add(items: Sequence[tuple[Span, _Pieces | None]], *, first: bool = False) -> None:
            nonlocal working
            (waiting.extendleft if first else waiting.extend)(items)
            for _ in range(min(len(items), at_once - working)):
                working += 1
                group.create_task(work())

        async def work() -> None:
            nonlocal working
            while waiting:
                span, whole = waiting.popleft()
                content: Any = None
                if whole is None and span[2] is not None and span[2] - span[1] > PIECE_BYTES:
                    try:
                        cut = _Pieces(span)  # room is made when it is asked for, not before
                    except MemoryError as error:  # a damaged index may state any length
                        self.failed = True
                        content = self.error(span, "they do not fit into memory: is that length right?", error)
                    else:
                        add([(piece, cut) for piece in reversed(cut.left)], first=True)
                        continue
                else:
                    content = await self.read(span)
                if whole is not None:
                    whole.put(span, content)
                    if whole.left:
                        continue
                    span, content = whole.span, whole.content
                add([(later, None) for later in give(span, content)])
            working -= 1

        try:
            async with asyncio.TaskGroup() as group:
                add([(span, None) for span in spans])
        except BaseExceptionGroup as errors:  # of ``give``: what is read is never raised
            raise errors.exceptions[0] from errors

    def read_in_turn(self, spans: Sequence[Span]) -> list[tuple[Span, Any]]:
        """Of a filesystem without an event loop (memory, FTP, an archive that reads for itself)."""
        paths, starts, stops = (list(column) for column in zip(*spans, strict=True))
        answers = list(self.filesystem.cat_ranges(paths, starts, stops, on_error="return"))
        self.traffic.requests += len(spans)
        self.traffic.bytes += sum(len(answer) for answer in answers if not isinstance(answer, BaseException))
        return list(zip(spans, answers, strict=True))

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
                    kind = FetchError if isinstance(error, Incomplete) else UnreachableError
                    return self.error(span, f"{reason}; {_ADVICE[kind]}try again later", error, kind)
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

    def error(
        self, span: Span, reason: str, cause: BaseException | None = None, kind: type[FetchError] = FetchError
    ) -> FetchError:
        path, start, stop = span
        part = "" if stop is None else f"bytes {start} to {stop}: "
        error = kind(str(self.filesystem.unstrip_protocol(path)), f"{part}{reason}")
        error.__cause__ = cause
        return error


def _may_pass(error: BaseException, status: int | None) -> bool:
    if status is not None and status >= 300:
        return status in _PASSING
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    return is_unreachable(error) or isinstance(error, Incomplete) or type(error).__name__ in _BROKEN


_ADVICE = {FetchError: "", UnreachableError: "see whether the network and the server are up, and "}

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
