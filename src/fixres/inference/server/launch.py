"""Starting, serving until a signal, and stopping without cutting anyone off."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from fixres.errors import UserError, require_extra
from fixres.inference.server.settings import ServeRequest, Settings, decode_seconds
from fixres.runtime.cpus import usable_cpus
from fixres.runtime.worker_process import end_with_parent

_SETTINGS = "FIXRES_SERVE_SETTINGS"
TOKEN = "FIXRES_TOKEN"
_DRAIN_SECONDS = 22
"""How long requests in flight may take at the end; with the next, less than the 30 seconds that are promised."""
_STOP_SECONDS = 3
_BACKLOG = 1024


def run_server(request: ServeRequest, token: str, on_ready: Callable[[str, Any], None]) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is in flight and return 0; 1 where workers can start no more.

    Args:
        request: what to serve, where, and the limits.
        token: what clients must show; empty: nothing.
        on_ready: told the address and the network before the first request.

    Raises:
        UserError: a package is missing, the checkpoint cannot be served, or the address is taken.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise require_extra(str(error.name), "serve") from None
    from fixres.inference.server.app import make_app
    from fixres.inference.server.connection import Connection
    from fixres.inference.server.network import open_network
    from fixres.inference.server.prometheus import FOLDER

    decode_seconds()
    settings = Settings.of(request)
    if not settings.threads:
        settings = replace(settings, threads=max(1, usable_cpus() // settings.workers))
    # First, because it is quick to find out.
    listening = _listen(settings)
    address = _address(settings, listening)
    with ExitStack() as stack:
        stack.callback(listening.close)
        network = open_network(settings)
        options: dict[str, Any] = {
            "http": Connection,
            "log_level": "warning",
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": _DRAIN_SECONDS,
            "backlog": _BACKLOG,
        }
        if settings.workers == 1:
            app: Any = make_app(network, settings, token)
            server = uvicorn.Server(uvicorn.Config(app, **options))
            _end_on_signals(lambda: server.started)
            on_ready(address, network)
            server.run(sockets=[listening])
            return 0
        _end_on_signals(lambda: False)
        on_ready(address, network)
        meters = stack.enter_context(tempfile.TemporaryDirectory(prefix="fixres-serve-"))
        os.environ[FOLDER] = meters
        settings = replace(settings, meters=meters, expected_sha256=network.sha256)
        # The workers load their own; this process only watches them.
        del network
        os.environ[_SETTINGS] = settings.to_json()
        os.environ[TOKEN] = token
        config = uvicorn.Config(
            "fixres.inference.server.launch:worker_app",
            factory=True,
            workers=settings.workers,
            **options,
        )
        from fixres.inference.server.supervisor import Supervisor

        supervisor = Supervisor(config, [listening], _DRAIN_SECONDS + _STOP_SECONDS)
        supervisor.run()
    return supervisor.exit_code


def worker_app() -> Any:
    """Return the application of one of several worker processes, which inherit the settings by environment."""
    from fixres.inference.server.app import make_app
    from fixres.inference.server.network import open_network

    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    settings = Settings.from_json(os.environ[_SETTINGS])
    try:
        network = open_network(settings)
    except UserError as error:
        sys.stderr.write(f"fixres: {error}\n")
        raise SystemExit(2) from None
    return make_app(network, settings, os.environ.get(TOKEN, ""))


def _end_on_signals(is_started: Callable[[], bool]) -> None:
    """Let SIGTERM and SIGINT end this process with 0 as long as no server listens to them.

    A server repeats the signal to itself once it has stopped; it is done then, and returns in place of dying of it.
    """

    def end(*_: object) -> None:
        if not is_started():
            sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            f"cannot listen on {settings.host}:{settings.port}: {reason.lower()}\n"
            "  --port N takes another port, --port 0 any free one"
        ) from None
    listening.set_inheritable(True)
    return listening


def _address(settings: Settings, listening: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"
