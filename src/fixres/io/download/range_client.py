"""One request over http for a file, a piece or the rest of it, and when the same request is made again."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Mapping
from email.message import Message
from http import HTTPStatus
from http.client import HTTPResponse
from typing import NamedTuple, TypeVar
from urllib import request as web
from urllib.error import HTTPError, URLError

from fixres.errors import fixres_version
from fixres.io.download.address import opener

RETRIES = 4
BACK_OFF_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$")

T = TypeVar("T")


class InterruptionError(Exception):
    """The transfer broke off; the same request may succeed a moment later."""

    def __init__(self, reason: str, has_begun: bool = True) -> None:
        super().__init__(reason)
        self.has_begun = has_begun


class Extent(NamedTuple):
    """Where a piece begins and how long the whole file is, as Content-Range says; None where it does not."""

    start: int | None
    total: int | None


def ask(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    """Return the answer to a request, its body still to be read.

    Raises:
        InterruptionError: no connection, or a server that is busy or broken.
        HTTPError: the server refuses.
        ValueError: no address.
    """
    fixed = {"User-Agent": f"fixres/{fixres_version()}", "Accept-Encoding": "identity"}
    try:
        return opener().open(web.Request(url, headers={**fixed, **headers}), timeout=TIMEOUT_SECONDS)  # type: ignore[no-any-return]
    except HTTPError as error:
        if error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            with error:
                raise InterruptionError(f"HTTP {error.code} {error.reason}") from error
        raise
    except URLError as error:
        raise InterruptionError(f"no connection ({error.reason})", has_begun=False) from error
    except (http.client.HTTPException, OSError) as error:
        raise InterruptionError(f"{type(error).__name__}: {error}") from error


def read(response: HTTPResponse, num_bytes: int) -> bytes:
    """Return the next bytes of an answer, at most so many; nothing at its end.

    Raises:
        InterruptionError: the connection broke.
    """
    try:
        return response.read1(num_bytes)
    except (http.client.HTTPException, OSError) as error:
        raise InterruptionError(f"{type(error).__name__}: {error}") from error


def read_whole(response: HTTPResponse, num_bytes: int) -> bytes:
    """Return the first bytes of an answer, as many as that or as there are.

    Raises:
        InterruptionError: the connection broke.
    """
    parts: list[bytes] = []
    while num_bytes and (part := read(response, num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def range_headers(start: int, end: int | None, *versions: str | None) -> dict[str, str]:
    """Return what asks for the bytes from `start` on, up to `end`, of the very version that one of `versions` tells.

    An ETag or a time of change; If-Range is left out where none tells versions apart to the byte.
    """
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    # A weak tag stands for files of the same meaning, not of the same bytes.
    strong = next((version for version in versions if version and not version.startswith("W/")), None)
    return headers | ({"If-Range": strong} if strong else {})


def extent(headers: Message) -> Extent:
    """Return what an answer says about the piece it gives."""
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    start, total = found.groups() if found else (None, None)
    return Extent(int(start) if start else None, int(total) if total and total != "*" else None)


def pause(failures: int) -> None:
    """Wait before the next try, twice as long after each failure."""
    time.sleep(BACK_OFF_SECONDS * 2 ** (failures - 1))


def retried(attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, which is tried again when it is interrupted.

    Raises:
        InterruptionError: it was, too often.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except InterruptionError:
            failures += 1
            if failures > RETRIES:
                raise
        pause(failures)
