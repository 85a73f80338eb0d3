"""A server on this machine, and a function that fetches its file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixres.io.download.cache import fetch
from tests.support.file_server import Server, sha256


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("FIXRES_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("fixres.io.download.range_client.BACK_OFF_SECONDS", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stop()
    thread.join()


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that fetches the server's file, whose checksum it knows."""

    def run(name: str = "net.pth", **kwargs: Any) -> Path:
        known = {"sha256": sha256(server.content)} | kwargs
        return fetch(f"{server.root}/{name}", folder=tmp_path, **known)

    return run
