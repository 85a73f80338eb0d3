"""What every request passes: host name, token, the count of its answer, and no traceback to the outside."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import sys
import time
import traceback
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fixres.inference.server.prometheus import Meters
from fixres.inference.server.schemas import Problem
from fixres.inference.server.settings import Settings
from fixres.inference.server.uploads import drain

_OPEN = ("/", "/favicon.ico", "/healthz", "/readyz", "/openapi.json")
"""Paths that need no token: they say nothing about the network's answers."""
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@dataclass(eq=False, repr=False)
class Gate:
    """The ASGI application around the endpoints."""

    app: ASGIApp
    settings: Settings
    token: str
    meters: Meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_ALWAYS]}
            await send(message)

        request = Request(scope, receive)
        try:
            problem = self._refusal(request)
            if problem is not None:
                await drain(request)
                await problem.response()(scope, receive, send_counted)
            else:
                await self.app(scope, receive, send_counted)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # The server ends and this request had its time.
            if not status:
                problem = Problem(503, "stopping", "the server is stopping", 1)
                await problem.response()(scope, receive, send_counted)
        except Exception:  # noqa: BLE001 - the last place where a bug can become an answer
            traceback.print_exc(file=sys.stderr)
            if not status:
                problem = Problem(500, "internal", "this is a bug; the server's log has more")
                await problem.response()(scope, receive, send_counted)
        if status:
            self.meters.answered(scope["path"], status, time.monotonic() - start)

    def _refusal(self, request: Request) -> Problem | None:
        host = request.headers.get("host", "")
        if self.settings.is_local and not _is_local_name(host):
            # A page elsewhere may have had its name point here to read the answers.
            return Problem(421, "wrong_host", "this server answers to localhost and 127.0.0.1 only")
        if self.token and request.url.path not in _OPEN:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
                return Problem(401, "no_token", "give the server's token: Authorization: Bearer TOKEN")
        return None


def _is_local_name(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
