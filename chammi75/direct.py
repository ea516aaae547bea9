"""GET requests for files of HTTP servers and S3 buckets, without what their filesystems do around each of them.

A range of an S3 object is one HTTP request, for which s3fs and botocore take 0.8 ms of a processor; sent by aiohttp it
takes 0.12 ms (obstore: 0.17 ms, in several threads, and it does not outlive a fork), which is what bounds a worker that
asks for thousands of tiles a second. ``tests/bench/ranges.py`` compares their times. s3fs
still says where a bucket is, and signs (a signed URL holds for any range of its object): what a server refuses here is
asked for again through the filesystem, whose answer, or error, stands.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import ssl
import urllib.request
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from chammi75.version import __version__

if TYPE_CHECKING:
    import aiohttp
    from fsspec import AbstractFileSystem

_CONNECT_S = 5.0
_SIGNED_S = 3600
_MOST_URLS = 4096  # 1 MB or so; a store has fewer shards
_MOST_REFUSALS = 3
_LARGEST_WHOLE = 256 * 2**20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_HEADERS = {
    "Accept-Encoding": "identity",  # ranges are of the file as it is
    "User-Agent": f"chammi75/{__version__} (+https://arxiv.org/abs/2512.20833)",
}
_S3_CLIENT_WORDS = {"endpoint_url", "region_name", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
_S3_CONFIG_WORDS = {"connect_timeout", "read_timeout", "retries", "max_pool_connections", "signature_version", "s3"}


class Refused(Exception):  # noqa: N818 - no error: the filesystem is asked instead
    """The server does not give this to a plain request."""


class Incomplete(Exception):  # noqa: N818 - becomes part of an error's message
    """The answer is not what was asked for."""


def direct_reader(filesystem: AbstractFileSystem) -> DirectReader | None:
    """What reads the files of a filesystem by plain requests, one per filesystem and process; None if that cannot be.

    Settings that only its own library understands (proxies, encryption keys of the customer, buckets whose readers pay)
    are left to it.
    """
    if not (_is_http(filesystem) or _is_s3(filesystem)):
        return None
    found = _readers.get(filesystem._fs_token)
    if found is None:
        found = _readers[filesystem._fs_token] = DirectReader(filesystem)
    return found


_readers: dict[str, DirectReader] = {}
"""Connections, by the token of their filesystem, which has the process id in it.

In a forked child those of the parent stay here unused: closing them there would take them from the parent's event loop.
"""


def _is_http(filesystem: AbstractFileSystem) -> bool:
    from fsspec.implementations.http import HTTPFileSystem, get_client

    return (
        type(filesystem) is HTTPFileSystem
        and filesystem.get_client is get_client
        and "connector" not in filesystem.client_kwargs
        and not filesystem.asynchronous
    )


def _is_s3(filesystem: AbstractFileSystem) -> bool:
    if type(filesystem).__qualname__ != "S3FileSystem" or filesystem.asynchronous:
        return False
    proxies = set(urllib.request.getproxies()) - {"no"}
    return (
        not (filesystem.req_kw or filesystem.version_aware or filesystem.s3_additional_kwargs or proxies)
        and set(filesystem.client_kwargs) <= _S3_CLIENT_WORDS
        and set(filesystem.config_kwargs) <= _S3_CONFIG_WORDS
        and (not (bundle := os.environ.get("AWS_CA_BUNDLE")) or Path(bundle).is_file())
    )


class DirectReader:
    """Reads files of one HTTP or S3 filesystem; its methods run on the filesystem's event loop.

    Attributes
    ----------
    usable : bool
        Whether plain requests are answered; False once the first ones were all refused.
    """

    def __init__(self, filesystem: AbstractFileSystem) -> None:
        self.filesystem = filesystem
        self.usable = True
        self._known: set[str] = set()
        self._is_s3 = _is_s3(filesystem)
        self._refusals = 0
        self._gave = False
        self._session: aiohttp.ClientSession | None = None
        self._buckets: dict[str, str] = {}
        self._urls: dict[str, tuple[Any, float]] = {}  # what is asked for a path, and until when
        self._options: Mapping[str, Any] = {} if self._is_s3 else filesystem.kwargs

    def is_known(self, path: str) -> bool:
        """Whether the server of a file ever answered."""
        return self._server(path) in self._known

    def _server(self, path: str) -> str:
        return "" if self._is_s3 else urlsplit(path).netloc

    async def read(self, path: str, start: int, stop: int | None, stall_s: float) -> bytes:
        """Bytes of a file, fewer where it ends before ``stop``.

        Raises
        ------
        Refused
            If an S3 server answers neither with them nor with what may pass.
        Incomplete
            If an answer has another length than the server states of it.
        FileNotFoundError, aiohttp.ClientError, TimeoutError
        """
        import aiohttp

        session = self._session or self._open()
        url, until = self._urls.get(path, (None, 0.0))
        if url is None or until < monotonic():
            url = await self._url(path)
        options = dict(self._options)
        headers = {**_HEADERS, **(options.pop("headers", None) or {})}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"
        options.setdefault("timeout", _timeout(stall_s))
        try:
            async with session.get(url, headers=headers, **options) as answer:
                return await self._content(answer, path, start, stop)
        except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as error:
            raise self._refused(error) from error

    async def _content(self, answer: aiohttp.ClientResponse, path: str, start: int, stop: int | None) -> bytes:
        status = answer.status
        if status < 500:
            self._known.add(self._server(path))
        if status == 416 and "Range" in answer.request_info.headers:
            return b""
        if status == 404 and (not self._is_s3 or b"<Code>NoSuchKey</Code>" in await answer.read()):
            raise FileNotFoundError(2, "No such file or directory", path)
        if self._is_s3 and status not in (200, 206) and status < 500 and status != 429:
            raise self._refused()
        answer.raise_for_status()
        if status != 206 and stop is not None and (answer.content_length or 0) > max(_LARGEST_WHOLE, stop - start):
            raise Incomplete("the server ignores ranges and sends the whole file: download it first")
        content = await answer.read()
        self._gave = True
        if status != 206:
            return content[start:stop]
        if stop is not None and len(content) != stop - start:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            ends = found is not None and found[2] is not None and found[3] == str(int(found[2]) + 1)
            if len(content) > stop - start or not ends or start + len(content) != int(found[3]):  # type: ignore[index]
                raise Incomplete(f"the server sends {len(content)} bytes where {stop - start} were asked for")
        return content

    def _refused(self, error: Exception | None = None) -> Refused:
        self._refusals += 1
        self.usable = self._gave or self._refusals < _MOST_REFUSALS
        return Refused(str(error or ""))

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        settings = {} if self._is_s3 else dict(self.filesystem.client_kwargs)
        bundle = os.environ.get("AWS_CA_BUNDLE") if self._is_s3 else None
        trust = ssl.create_default_context(cafile=bundle) if bundle else True
        process = os.getpid()

        class Connector(aiohttp.TCPConnector):
            """In a forked child it is not closed: that would take the sockets from the parent's event loop (epoll)."""

            def __del__(self, *arguments: Any) -> None:
                if process == os.getpid():
                    super().__del__(*arguments)

        connector = Connector(limit=0, ssl=trust)  # bounded by who asks
        settings.setdefault("cookie_jar", aiohttp.DummyCookieJar(loop=self.filesystem.loop))
        session = self._session = aiohttp.ClientSession(connector=connector, **settings)
        weakref.finalize(self, _close, os.getpid(), self.filesystem.loop, session)
        return session

    async def _url(self, path: str) -> Any:
        """What is asked for a path, signed for a while if the filesystem signs; known for the next time."""
        import yarl

        until = math.inf
        if not self._is_s3:
            url = self.filesystem.encode_url(path)
        elif self.filesystem.anon:
            bucket, key, _ = self.filesystem.split_path(path)
            if bucket not in self._buckets:
                found = await self.filesystem._url(f"{bucket}/k")
                if not found.endswith("/k"):
                    raise self._refused()
                self._buckets[bucket] = found[:-1]
            url = yarl.URL(self._buckets[bucket] + quote(key, safe="/~"), encoded=True)
        else:
            url = yarl.URL(await self.filesystem._url(path, expires=_SIGNED_S), encoded=True)
            until = monotonic() + _SIGNED_S / 2
        while len(self._urls) >= _MOST_URLS:
            self._urls.pop(next(iter(self._urls)))
        self._urls[path] = url, until
        return url


@lru_cache(maxsize=8)
def _timeout(stall_s: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=stall_s)


def _close(process: int, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    """Close the connections of this process at its end; a forked child leaves those of its parent alone."""
    if process != os.getpid():
        session.detach()
    elif loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop).result(5)
