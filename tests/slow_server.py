"""An object server on loopback that is as far away as a real one, counts what it is asked, and fails when told to.

It serves a folder over HTTP/1.1: ``GET`` with one range, ``HEAD``, and listings as S3 gives them, so that both
``http://host/bucket/key`` and ``s3://bucket/key`` with its address as endpoint read the file ``bucket/key`` of that
folder. Every answer begins a latency after its request, and all connections share one bandwidth. It runs in a process
of its own, so that it takes no time of the interpreter that is measured::

    with slow_server(folder, latency_s=0.03, bits_per_s=1e9) as server:
        server.fail(Fault("stall", after_bytes=100))
        ...
        server.counts().requests

From the command line it serves until its standard input ends: ``python slow_server.py FOLDER``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from loopback import Request

_CHUNK = 64 * 2**10
_CONTROL = "/-/"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_CODES = {404: "NoSuchKey", 403: "AccessDenied", 416: "InvalidRange", 503: "SlowDown", 500: "InternalError"}
_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, with which requests.

    Attributes
    ----------
    kind : {"stall", "reset", "truncate", "short", "whole", "status"}
        After ``after_bytes`` of the body: send nothing more and stay connected; reset the connection; close it
        although the announced length is larger. ``short``: announce and send ``after_bytes`` less than was asked for.
        ``whole``: ignore the range. ``status``: answer with ``status``.
    path : str
        The requests whose path contains this.
    times : int or None
        How many requests go wrong (None: all of them).
    skip : int
        How many go well before.
    after_bytes : int
    status : int
    retry_after_s : int or None
        The header ``Retry-After`` of a ``status``.
    """

    kind: str
    path: str = ""
    times: int | None = 1
    skip: int = 0
    after_bytes: int = 0
    status: int = 503
    retry_after_s: int | None = None


@dataclass(frozen=True)
class Counts:
    """What the server did since it began, or was reset.

    Attributes
    ----------
    requests : int
    body_bytes : int
        Bytes of bodies that were sent.
    failed : int
        Requests that a fault was ordered for.
    connections : int
        Connections that were opened.
    most_at_once : int
        Most requests that were open at the same time.
    """

    requests: int = 0
    body_bytes: int = 0
    failed: int = 0
    connections: int = 0
    most_at_once: int = 0


class SlowServer:
    """A running server, as its user sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def s3_options(self) -> dict[str, Any]:
        """``storage_options`` with which ``s3://bucket/key`` is read here."""
        return {"client_kwargs": {"endpoint_url": self.url}}

    def counts(self) -> Counts:
        """What it did so far."""
        return Counts(**self._ask("counts"))

    def seen(self) -> list[Request]:
        """The requests so far, in the order of their arrival."""
        return [Request(*entry) for entry in self._ask("seen")]

    def fail(self, *faults: Fault) -> None:
        """From now on these faults, and no others; the first that fits a request is taken."""
        self._ask("faults", [asdict(fault) for fault in faults])

    def reset(self) -> None:
        """Count from zero, without faults."""
        self._ask("reset", [])

    def _ask(self, what: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}{_CONTROL}{what}", data, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def slow_server(
    folder: str | os.PathLike[str], *, latency_s: float = 0.0, bits_per_s: float = 0.0
) -> Iterator[SlowServer]:
    """Serve ``folder``; no latency, and any bandwidth, unless they are given."""
    command = [sys.executable, __file__, os.fspath(folder)]
    command += ["--latency-s", str(latency_s), "--bits-per-s", str(bits_per_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the server did not start"
            yield SlowServer(url)
        finally:
            process.kill()


class _Link:
    """The one wire that all answers go through: who asks is told when his bytes have passed."""

    def __init__(self, bits_per_s: float) -> None:
        self._seconds_per_byte = 8 / bits_per_s if bits_per_s else 0.0
        self._free = 0.0

    def passed(self, ready: float, size: int) -> float:
        self._free = max(ready, self._free) + size * self._seconds_per_byte
        return self._free


class _State:
    """What all connections share."""

    def __init__(self, folder: Path, latency_s: float, bits_per_s: float) -> None:
        self.folder = folder
        self.latency_s = latency_s
        self.link = _Link(bits_per_s)
        self.open = 0
        self.reset()

    def reset(self) -> None:
        self.counts = Counts()
        self.seen: list[tuple[str, str, str | None, str | None]] = []
        self.faults: list[Fault] = []

    def count(self, **more: int) -> None:
        self.counts = replace(self.counts, **{name: getattr(self.counts, name) + n for name, n in more.items()})

    def fault_for(self, path: str) -> Fault | None:
        for k, fault in enumerate(self.faults):
            if fault.path not in path or fault.times == 0:
                continue
            if fault.skip:
                self.faults[k] = replace(fault, skip=fault.skip - 1)
                return None
            self.faults[k] = replace(fault, times=None if fault.times is None else fault.times - 1)
            return fault
        return None

    def control(self, what: str, body: bytes) -> Any:
        if what == "reset":
            self.reset()
        elif what == "faults":
            self.faults = [Fault(**entry) for entry in json.loads(body)]
        elif what == "counts":
            return asdict(self.counts)
        elif what == "seen":
            return self.seen
        return {}


class _Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self, state: _State, loop: asyncio.AbstractEventLoop) -> None:
        self.state = state
        self.loop = loop
        self.buffer = b""
        self.busy = False
        self.resume: Callable[[], None] | None = None
        self.writable = True
        self.file = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.counted = False

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._done()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.resume is not None:
            resume, self.resume = self.resume, None
            resume()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self._next()

    def _next(self) -> None:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return
        body, self.buffer = rest[:size], rest[size:]
        if target.startswith(_CONTROL):
            answer = json.dumps(self.state.control(target[len(_CONTROL) :], body)).encode()
            self.transport.write(_head(200, len(answer)) + answer)
            return
        state = self.state
        path = unquote(target)
        self.busy = True
        state.open += 1
        state.count(requests=1, connections=0 if self.counted else 1)
        self.counted = True
        state.counts = replace(state.counts, most_at_once=max(state.counts.most_at_once, state.open))
        state.seen.append((method, path, headers.get("range"), headers.get("authorization")))
        ready = self.loop.time() + state.latency_s
        if state.latency_s:
            self.loop.call_at(ready, self._answer, method, target, headers.get("range"), ready)
        else:
            self._answer(method, target, headers.get("range"), ready)

    def _done(self) -> None:
        self.busy = False
        self.state.open -= 1
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _finish(self) -> None:
        self._done()
        if self.buffer:
            self._next()

    def _answer(self, method: str, target: str, asked: str | None, ready: float) -> None:
        if not self.busy:  # gone meanwhile
            return
        split = urlsplit(target)
        fault = self.state.fault_for(unquote(target))
        if fault is not None:
            self.state.count(failed=1)
        if fault is not None and fault.kind == "status":
            self._refuse(fault.status, method, retry_after_s=fault.retry_after_s)
            return
        path = self.state.folder / unquote(split.path).strip("/")
        query = parse_qs(split.query, keep_blank_values=True)
        if "list-type" in query:
            self._send(method, 200, _listing(self.state.folder, path, query), "application/xml")
            return
        if path.is_dir() and method == "HEAD":  # a bucket
            self._send(method, 200, b"")
            return
        try:
            self.file = os.open(path, os.O_RDONLY)
        except (OSError, ValueError):
            self._refuse(404, method)
            return
        status = os.fstat(self.file)
        start, stop = _span(asked, status.st_size) if fault is None or fault.kind != "whole" else (0, status.st_size)
        if stop <= start and asked is not None:
            self._refuse(416, method, more=f"Content-Range: bytes */{status.st_size}\r\n")
            return
        if fault is not None and fault.kind == "short":
            stop = max(start, stop - fault.after_bytes)
        more = f'ETag: "{status.st_mtime_ns:x}"\r\nAccept-Ranges: bytes\r\nLast-Modified: {_MODIFIED}\r\n'
        partial = asked is not None and (fault is None or fault.kind != "whole")
        if partial:
            more += f"Content-Range: bytes {start}-{stop - 1}/{status.st_size}\r\n"
        head = _head(206 if partial else 200, stop - start, "application/octet-stream", more)
        if method == "HEAD":
            self.transport.write(head)
            self._finish()
            return
        self._body(head, start, stop, ready, fault)

    def _body(self, head: bytes, at: int, stop: int, ready: float, fault: Fault | None) -> None:
        """Send what the wire has let pass, and come back for the rest."""
        breaks = fault is not None and fault.kind in ("stall", "reset", "truncate")
        end = min(stop, at + fault.after_bytes) if fault is not None and breaks else stop
        passed = ready

        def send() -> None:
            nonlocal at, passed, head
            while self.busy:
                if not self.writable:
                    self.resume = send
                    return
                size = min(end - at, _CHUNK)
                part = os.pread(self.file, size, at) if size else b""
                self.transport.write(head + part)
                self.state.count(body_bytes=size)
                at, head = at + size, b""
                if at >= end:
                    self._broken(fault) if fault is not None and breaks else self._finish()
                    return
                passed = self.state.link.passed(passed, min(end - at, _CHUNK))
                if passed > self.loop.time():
                    self.loop.call_at(passed, send)
                    return

        passed = self.state.link.passed(passed, min(end - at, _CHUNK))
        if passed > self.loop.time():
            self.loop.call_at(passed, send)
        else:
            send()

    def _broken(self, fault: Fault) -> None:
        if fault.kind == "stall":
            return  # busy for good
        if fault.kind == "reset":
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, status: int, method: str, more: str = "", retry_after_s: int | None = None) -> None:
        if retry_after_s is not None:
            more += f"Retry-After: {retry_after_s}\r\n"
        code = _CODES.get(status, "Error")
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
        self._send(method, status, body, "application/xml", more)

    def _send(self, method: str, status: int, body: bytes, kind: str = "text/plain", more: str = "") -> None:
        self.transport.write(_head(status, len(body), kind, more) + (b"" if method == "HEAD" else body))
        self._finish()


def _head(status: int, size: int, kind: str = "application/json", more: str = "") -> bytes:
    phrase = HTTPStatus(status).phrase
    text = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: {size}\r\nContent-Type: {kind}\r\n{more}\r\n"
    return text.encode("latin-1")


def _span(asked: str | None, size: int) -> tuple[int, int]:
    """First byte and the one behind the last; (0, 0) where the range is none or begins behind the file."""
    if asked is None:
        return 0, size
    found = _RANGE.match(asked)
    if found is None or not any(found.groups()):
        return 0, 0
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _listing(root: Path, bucket: Path, query: dict[str, list[str]]) -> bytes:
    """ListObjectsV2, all in one answer."""
    prefix = query.get("prefix", [""])[0]
    delimiter = query.get("delimiter", [""])[0]
    keys, folders = [], set()
    for path in sorted(bucket.rglob("*")):
        key = path.relative_to(bucket).as_posix()
        if path.is_dir() or not key.startswith(prefix):
            continue
        child, slash, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if slash:
            folders.add(f"{prefix}{child}{slash}")
        else:
            keys.append((key, path.stat().st_size))
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"{size:x}"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
        for key, size in keys
    )
    entries += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders))
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket.relative_to(root).as_posix())}</Name><Prefix>{escape(prefix)}</Prefix>"
        f"<KeyCount>{len(keys) + len(folders)}</KeyCount><MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>"
        f"{entries}</ListBucketResult>"
    ).encode()


async def _serve(state: _State) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state, loop), "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # whoever started this has ended
    os._exit(0)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-s", type=float, default=0.03)
    parser.add_argument("--bits-per-s", type=float, default=1e9)
    arguments = parser.parse_args()
    asyncio.run(_serve(_State(arguments.folder, arguments.latency_s, arguments.bits_per_s)))


if __name__ == "__main__":
    _main()
