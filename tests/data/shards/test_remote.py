"""Shards on a server: read in pieces, or fetched where it knows no pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixres.data.decode import BadImage
from fixres.io.download import range_client
from tests.support.opening import opened, refusal
from tests.support.tar_shards import three, values


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        server: Any = self.server
        path = server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        wanted = self.headers["Range"]
        status, start, end = 200, 0, len(content) - 1
        if wanted and server.heeds_range:
            first, last = wanted.removeprefix("bytes=").split("-")
            status, start, end = 206, int(first), min(int(last), len(content) - 1)
        if server.failures:
            status = server.failures.pop(0)
        server.answers.append(status)
        self.send_response(status)
        self.send_header("ETag", server.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        self.wfile.write(content[start : end + 1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(range_client, "BACK_OFF_SECONDS", 0.01)
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.daemon_threads = True
    running.folder, running.heeds_range, running.etag = tmp_path / "web", True, '"one"'
    running.answers, running.failures = [], []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    three(running.folder)
    yield running
    running.shutdown()
    running.server_close()


def test_shards_on_the_web_are_read_in_pieces(server: Any, tmp_path: Path) -> None:
    (server.folder / "classes.txt").write_text("even\nodd\n")
    uri = f"wds:http://127.0.0.1:{server.server_port}/{{train,val,test}}-{{0000..0001}}.tar"
    collection = opened(uri)
    assert collection.classes == ("even", "odd")
    assert values(collection.split("val")) == list(range(20, 40))
    assert set(server.answers) == {206, 200}
    assert server.answers.count(200) == 1
    assert any("plain http" in note for note in collection.notes)
    num = len(server.answers)
    assert values(opened(uri).split("val"))[:1] == [20]
    assert len(server.answers) - num < 6 + 1 + 6 + 20
    server.failures += [503, 503]
    assert collection.split("val").read(5).getpixel((0, 0))[0] == 25  # type: ignore[index]
    server.etag = '"two"'
    with pytest.raises(BadImage, match="has changed on its server"):
        collection.split("val").read(5)


def test_shards_of_a_server_without_pieces_are_fetched(server: Any, tmp_path: Path, monkeypatch: Any) -> None:
    server.heeds_range = False
    base = f"http://127.0.0.1:{server.server_port}"
    uri = f"wds:{base}/{{train,val,test}}-{{0000..0001}}.tar"
    assert "plain http" in refusal(uri)
    from fixres.io.download import address, cache

    monkeypatch.setattr(cache, "require_checksums", lambda url, sha256, md5: address.Checksums("", ""))
    assert values(opened(uri).split("test")) == list(range(40, 60))
    num = len(server.answers)
    assert values(opened(uri).split("test")) == list(range(40, 60))
    assert len(server.answers) == num + 1
    assert "cannot be read: HTTP 404" in refusal(f"wds:{base}/train-0009.tar")
