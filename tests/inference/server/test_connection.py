"""Connections that bring no request are closed, and those whose end is told in two ways bring no second one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from fixres.inference.server import connection as module
from fixres.inference.server.app import make_app
from fixres.inference.server.connection import Connection
from fixres.inference.server.network import open_network
from fixres.inference.server.settings import Settings
from tests.support.serving import LIMITS, encoded, picture

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def listening(run: Path) -> Iterator[int]:
    """Serve in a thread and yield the port."""
    settings = Settings(source=str(run), threads=1, limits=LIMITS)
    app = make_app(open_network(settings), settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connection, log_level="error", timeout_keep_alive=30))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


def opened(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_connections_that_bring_no_request_are_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.5)
    with listening(run) as port:
        start = time.monotonic()
        silent = [opened(port, sent) for sent in (b"", HEALTH[:20], HEALTH, HEALTH + HEALTH[:30])]
        answers = [rest_of(connection) for connection in silent]
        assert [answer.count(b"200 OK") for answer in answers] == [0, 0, 1, 1]
        assert time.monotonic() - start < 10


def test_a_client_that_takes_no_answer_loses_its_connection(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.3)
    with listening(run) as port:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(20)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)
        assert _is_lost(connection)


def _is_lost(connection: socket.socket) -> bool:
    """Return whether the other end goes within 15 seconds, which only writing to it tells."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        try:
            connection.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except ConnectionError:
            return True
        time.sleep(0.2)
    return False


def test_a_request_that_is_being_received_keeps_its_connection(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    data = encoded(picture())
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    with listening(run) as port:
        connection = opened(port, head.encode())
        for place in range(0, len(data), 200):
            time.sleep(0.1)
            connection.sendall(data[place : place + 200])
        assert len(data) > 1000
        assert b"200 OK" in rest_of(connection)


def test_two_ends_of_one_request_end_its_connection(run: Path) -> None:
    smuggled = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n" + HEALTH
    )
    with listening(run) as port:
        answer = rest_of(opened(port, smuggled))
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"bad_request" in answer
