"""An S3 server on loopback that remembers what it was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request: its method and path, and two of its headers (None where it had none)."""

    method: str
    path: str
    range: str | None
    authorization: str | None

    @property
    def range_bytes(self) -> int:
        """Bytes of the range that was asked for; a request for a whole file fails the test."""
        assert self.range is not None, f"a whole file was asked for: {self.path}"
        first, last = self.range.removeprefix("bytes=").split("-")
        return int(last) - int(first) + 1


class S3:
    """The server."""

    def __init__(self, port: int, seen: list[Request]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen = seen

    @property
    def options(self) -> dict[str, Any]:
        """``storage_options`` with credentials that it takes."""
        return {"key": "testing", "secret": "testing-secret-word", "client_kwargs": {"endpoint_url": self.url}}


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run a server, empty at first."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    seen: list[Request] = []
    application = DomainDispatcherApplication(create_backend_app)

    def recording(environ: Any, start_response: Any) -> Any:
        headers = environ.get("HTTP_RANGE"), environ.get("HTTP_AUTHORIZATION")
        seen.append(Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], *headers))
        return application(environ, start_response)

    http = make_server("127.0.0.1", 0, recording, threaded=True)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield S3(http.server_port, seen)
    finally:
        http.shutdown()
        thread.join()
