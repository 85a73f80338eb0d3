"""Shards on the web: pieces of them by Range, the whole file where a server gives no pieces."""

from __future__ import annotations

import http.client
import io
import re
import time
from http import HTTPStatus
from urllib import request as web
from urllib.error import HTTPError, URLError

from fixres.errors import UserError
from fixres.io.download.address import opener, require_address, user_agent

TIMEOUT_SECONDS = 30.0
RETRIES = 3
BACK_OFF_SECONDS = 0.5
READ_AHEAD = 2**20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


class RemoteError(Exception):
    """A piece of a shard cannot be had; the message says why."""


def size_and_version(url: str) -> tuple[int, str] | None:
    """Return the size and the ETag (or time of change) of a file, None when its server gives no pieces of it.

    Raises:
        UserError: the server cannot be reached, or has no such file.
    """
    require_address(url)
    try:
        _, headers, status = _get(url, 0, 1, "")
    except RemoteError as error:
        raise UserError(f"the shard {url} cannot be read: {error}\n  check the address and the network") from error
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if status != HTTPStatus.PARTIAL_CONTENT or found is None:
        return None
    return int(found[3]), headers.get("ETag") or headers.get("Last-Modified") or ""


def small_file(url: str) -> bytes | None:
    """Return the content of a small file, None when there is none."""
    try:
        content, _, status = _get(url, None, 2**24, "")
    except RemoteError:
        return None
    return content if status == HTTPStatus.OK else None


def piece(url: str, start: int, length: int, version: str) -> bytes:
    """Return `length` bytes from `start` on of that version of the file.

    Raises:
        RemoteError: they cannot be had, or the file has changed.
    """
    content, headers, status = _get(url, start, length, version)
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    now = headers.get("ETag") or headers.get("Last-Modified") or ""
    if status != HTTPStatus.PARTIAL_CONTENT or found is None or int(found[1]) != start or (version and now != version):
        raise RemoteError("the shard has changed on its server since the index was made")
    return content


class RemoteFile(io.RawIOBase):
    """A file on the web, read in pieces; wrap it into io.BufferedReader."""

    def __init__(self, url: str, size: int, version: str) -> None:
        self.url, self.size, self.version, self.place = url, size, version, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place; nothing is fetched."""
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        """Return the place."""
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the place on; raises UserError."""
        wanted = min(len(buffer), max(0, self.size - self.place))
        if not wanted:
            return 0
        try:
            content = piece(self.url, self.place, wanted, self.version)
        except RemoteError as error:
            raise UserError(f"the shard {self.url} cannot be read: {error}\n  run the same again") from error
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def _get(url: str, start: int | None, length: int, version: str) -> tuple[bytes, http.client.HTTPMessage, int]:
    """Return at most `length` bytes, headers and status; all from the beginning when `start` is None."""
    headers = {"User-Agent": user_agent(), "Accept-Encoding": "identity"}
    if start is not None:
        headers["Range"] = f"bytes={start}-{start + length - 1}"
        if version and not version.startswith("W/"):
            headers["If-Range"] = version
    for attempt in range(RETRIES + 1):
        if attempt:
            time.sleep(BACK_OFF_SECONDS * 2 ** (attempt - 1))
        try:
            with opener().open(web.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
                is_piece = response.status == HTTPStatus.PARTIAL_CONTENT
                # A server that answers with the whole shard is not listened to.
                content = response.read(length) if is_piece or start is None else b""
                if is_piece and len(content) < length:
                    reason = f"the connection closed after {len(content)} of {length} bytes"
                    continue
                return content, response.headers, response.status
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                break
        except URLError as error:
            reason = f"no connection ({error.reason})"
        except (http.client.HTTPException, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise RemoteError(reason)
