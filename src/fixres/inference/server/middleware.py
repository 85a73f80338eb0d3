"""What every request passes: host name, origin, token, the count of its answer, and no traceback to the outside."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import sys
import time
import traceback
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fixres.inference.server.prometheus import Meters
from fixres.inference.server.schemas import Problem
from fixres.inference.server.settings import Settings, is_local_name
from fixres.inference.server.uploads import drain

_OPEN = ("/", "/favicon.ico", "/healthz", "/readyz")
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
            if "transfer-encoding" in request.headers and "content-length" in request.headers:
                # Where two programs see different ends of a request, the rest is a request to one of them.
                problem = Problem(400, "bad_request", "Transfer-Encoding and Content-Length exclude each other")
                await problem.response(Connection="close")(scope, receive, send_counted)
            elif problem is not None:
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
        host, path = _host_name(request.headers.get("host", "")), request.url.path
        if not self._answers_to(host):
            # A page elsewhere may have had its name point here to read the answers.
            return Problem(421, "wrong_host", f"this server does not answer to '{host}'; --allow-host adds a name")
        if request.method == "POST" and self._is_cross_site(request.headers, host):
            return Problem(403, "cross_site", "pages of other sites may not use this server; --allow-origin adds one")
        if self.token and path not in _OPEN:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
                return Problem(401, "no_token", "give the server's token: Authorization: Bearer TOKEN")
        return None

    def _answers_to(self, host: str) -> bool:
        names, is_local = self.settings.allow_host, self.settings.is_local
        if is_local_name(host) or host in map(str.lower, names):
            return True
        # An address cannot be made to point here, and probes of a cluster use it.
        return not is_local and (not names or _is_address(host))

    def _is_cross_site(self, headers: Headers, host: str) -> bool:
        """Return whether a browser sends this from a page of another site: pages may send what they may not read."""
        origin = headers.get("origin", "").lower()
        if origin in map(str.lower, self.settings.allow_origin):
            return False
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site.lower() == "cross-site"
        asking = _host_name(origin.partition("://")[2])
        return bool(origin) and asking not in (host, *map(str.lower, self.settings.allow_host))


def _host_name(host: str) -> str:
    """Return the name in a Host header, lower case, without the port and the brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
