"""A hub on this machine: lists models and gives their files, whole or by range, with faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it holds and how it misbehaves.

    Attributes:
        files: by model and name.
        large: names of files that are listed with a SHA-256.
        cut_after: bytes after which the next answers break off, one number each.
        corrupt: names of files whose first byte comes changed.
        ranges: whether range requests are honoured.
        asked: every file that was asked for, with its range.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    licence: str | None = "apache-2.0"
    gated: bool = False
    cut_after: list[int] = field(default_factory=list)
    corrupt: set[str] = field(default_factory=set)
    ranges: bool = True
    status: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def listing(self, model: str) -> dict[str, Any]:
        siblings = []
        for name, content in self.files[model].items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            if name in self.large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
                entry["blobId"] = "0" * 40
            else:
                head = f"blob {len(content)}\0".encode()
                entry["blobId"] = hashlib.sha1(head + content).hexdigest()
            siblings.append(entry)
        return {
            "id": model,
            "modelId": model,
            "sha": COMMIT,
            "gated": "auto" if self.gated else False,
            "cardData": {"license": self.licence} if self.licence else {},
            "siblings": siblings,
        }


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        if self.hub.status is not None:
            self._send(self.hub.status, b"{}", {}, body)
        elif path.startswith("api/models/"):
            model = "/".join(path.removeprefix("api/models/").split("/")[:2])
            if model not in self.hub.files or ("/revision/" in path and COMMIT not in path):
                code = "RepoNotFound" if model not in self.hub.files else "RevisionNotFound"
                self._send(404, b"{}", {"X-Error-Code": code}, body)
            else:
                self._send(200, json.dumps(self.hub.listing(model)).encode(), {}, body)
        elif "/resolve/" in path:
            self._file(path, body)
        else:
            self._send(404, b"{}", {}, body)

    def _file(self, path: str, body: bool) -> None:
        model, _, rest = path.partition("/resolve/")
        name = rest.partition("/")[2]
        wanted = self.headers.get("Range")
        self.hub.asked.append((name, wanted))
        if self.hub.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
            return
        content = self.hub.files[model][name]
        if name in self.hub.corrupt:
            content = bytes([content[0] ^ 255]) + content[1:]
        headers = {"ETag": '"x"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted and self.hub.ranges:
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            end = int(high) + 1 if high else len(content)
            headers["Content-Range"] = f"bytes {low}-{end - 1}/{len(content)}"
            self._send(206, content[int(low) : end], headers, body)
        else:
            self._send(200, content, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        if self.hub.cut_after and status in (200, 206) and "resolve" in self.path:
            self.wfile.write(content[: self.hub.cut_after.pop(0)])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(content)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
