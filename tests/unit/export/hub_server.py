"""A Hub on loopback: the handful of endpoints that huggingface_hub asks when it makes a dataset repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories as files in memory; every commit is kept as the names that it changed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    def do_PUT(self) -> None:
        self.server.objects[urlsplit(self.path).path.rsplit("/", 1)[-1]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"warnings": [], "errors": []})
        elif found := re.fullmatch(r"/api/datasets/(.+?)/preupload/.+", path):
            named = [entry["path"] for entry in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".parquet") else "regular" for name in named}
            self._answer(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.server.url}/objects/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/datasets/(.+?)/commit/.+", path):
            self._commit(found[1], body)
        elif found := re.fullmatch(r"/api/datasets/(.+?)/paths-info/.+", path):
            files = self.server.repositories[found[1]]
            asked = json.loads(body)["paths"] if body.startswith(b"{") else []
            self._answer([self._entry(name, files[name]) for name in asked if name in files])
        else:
            self._missing()

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        status = 409 if name in self.server.repositories else 200
        self.server.repositories.setdefault(name, {})
        self.server.private.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
        self._answer({"url": f"{self.server.url}/datasets/{name}", "id": name, "error": "it is there"}, status)

    def _commit(self, name: str, body: bytes) -> None:
        files, changed = dict(self.server.repositories[name]), []
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.server.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            else:
                continue
            changed.append(value["path"])
        self.server.repositories[name] = files
        self.server.commits.append(changed)
        commit = {"commitUrl": f"{self.server.url}/datasets/{name}/commit/{self.server.head}"}
        self._answer({**commit, "commitOid": self.server.head, "success": True})

    def _read(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/datasets/(.+?)/tree/[^/]+(?:/(.*))?", path):
            files = self.server.repositories.get(found[1])
            if files is None:
                return self._missing()
            below = [name for name in files if name.startswith(found[2] or "")]
            if found[2] and not below:
                return self._missing("EntryNotFound")
            return self._answer([self._entry(name, files[name]) for name in below])
        if found := re.fullmatch(r"/datasets/(.+?)/resolve/[^/]+/(.+)", path):
            content = self.server.repositories.get(found[1], {}).get(found[2])
            if content is None:
                return self._missing("EntryNotFound")
            return self._answer(content)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/.+)?", path):
            files = self.server.repositories.get(found[1])
            if files is None:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in files]
            return self._answer({"id": found[1], "sha": self.server.head, "siblings": siblings, "tags": []})
        return self._missing()

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _missing(self, code: str = "RepoNotFound") -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self._answer({"error": "there is no such thing"}, 404, {"X-Error-Code": code})

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.head)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
