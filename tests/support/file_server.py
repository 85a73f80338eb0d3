"""A real server on this machine that gives one file, as badly as a test asks for."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
Get = Callable[..., Path]
"""Fetches the server's file by a name, `net.pth` unless told otherwise."""

_FETCH = """
import pathlib, sys
from fixres.io.download.cache import fetch
fetch(sys.argv[1], sha256=sys.argv[2], folder=pathlib.Path(sys.argv[3]))
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    """Return the names of what was fetched; locks stay behind."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def start_fetch(url: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that fetches the content from `url`."""
    words = (url, sha256(CONTENT), str(folder))
    return subprocess.Popen([sys.executable, "-c", _FETCH, *words], stderr=subprocess.PIPE, env=os.environ)


class Server(ThreadingHTTPServer):
    """Serves one file at every path, as badly as a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.last_modified: str | None = None
        self.heeds_range = True
        self.heeds_if_range = True
        self.says_length = True
        self.headers: dict[str, str] = {}
        self.cuts: list[int] = []
        """Bytes after which the next answers break off."""
        self.statuses: list[int] = []
        """Answers before the file is given."""
        self.redirects: dict[str, str] = {}
        self.stall: threading.Event | None = None
        """Waited for after the bytes of a cut."""
        self.shift = 0
        """By how many bytes the start of a range is missed."""
        self.ranges: list[str | None] = []
        self.conditions: list[str | None] = []
        self.agents: list[str | None] = []

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        if self.stall is not None:
            self.stall.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        self.close_connection = True
        if self.path in server.redirects:
            self.answer(302, {"Location": server.redirects[self.path]})
            return
        wanted = self.headers["Range"]
        server.ranges.append(wanted)
        server.conditions.append(self.headers["If-Range"])
        server.agents.append(self.headers["User-Agent"])
        if server.statuses:
            self.answer(server.statuses.pop(0), {"Content-Length": "0"})
            return
        validators = {"ETag": server.etag, "Last-Modified": server.last_modified}
        headers = {key: value for key, value in validators.items() if value} | server.headers
        condition = self.headers["If-Range"]
        is_same = condition in (None, server.etag, server.last_modified) or not server.heeds_if_range
        start, status = 0, 200
        if wanted and server.heeds_range and is_same:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(content):
                self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                return
            start -= server.shift
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if server.says_length:
            headers["Content-Length"] = str(len(body))
        self.answer(status, headers)
        if server.cuts:
            self.wfile.write(body[: server.cuts.pop(0)])
            self.wfile.flush()
            if server.stall is None:
                return
            server.stall.wait(60)
            return
        self.wfile.write(body)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
