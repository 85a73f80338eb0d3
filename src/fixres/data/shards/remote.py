"""Shards that lie elsewhere: pieces of them by Range over http, or from an object store."""

from __future__ import annotations

import io
from http import HTTPStatus
from http.client import HTTPMessage
from urllib.error import HTTPError

from fixres.data.shards import object_store
from fixres.data.shards.object_store import ChangedError, RemoteError
from fixres.data.sources.uri import is_web
from fixres.errors import UserError
from fixres.io.download.address import require_address
from fixres.io.download.range_client import InterruptionError, ask, extent, range_headers, read_whole, retried

READ_AHEAD = 2**20
_MAX_SMALL_BYTES = 2**24


def size_and_version(url: str) -> tuple[int, str] | None:
    """Return the size and the ETag (or time of change) of a file, None when its server gives no pieces of it.

    Raises:
        UserError: it cannot be reached, there is no such file, or a package is missing.
    """
    try:
        if not is_web(url):
            return object_store.attributes(url)
        require_address(url)
        _, headers, status = _get(url, 0, 1, "")
    except RemoteError as error:
        raise UserError(f"the shard {url} cannot be read: {error}\n  check the address and the network") from error
    total = extent(headers).total
    return None if status != HTTPStatus.PARTIAL_CONTENT or total is None else (total, _version(headers))


def small_file(url: str) -> bytes | None:
    """Return the content of a small file, None when there is none."""
    try:
        if not is_web(url):
            return object_store.content(url, end=_MAX_SMALL_BYTES)
        content, _, status = _get(url, None, _MAX_SMALL_BYTES, "")
    except RemoteError:
        return None
    return content if status == HTTPStatus.OK else None


def piece(url: str, start: int, length: int, version: str) -> bytes:
    """Return `length` bytes from `start` on of that version of the file.

    Raises:
        RemoteError: they cannot be had, or the file has changed.
    """
    if not is_web(url):
        return object_store.piece(url, start, length, version)
    content, headers, status = _get(url, start, length, version)
    is_same = not version or _version(headers) == version
    if status != HTTPStatus.PARTIAL_CONTENT or extent(headers).start != start or not is_same:
        raise ChangedError
    return content


class RemoteFile(io.RawIOBase):
    """A file that lies elsewhere, read in pieces; wrap it into io.BufferedReader."""

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


def _version(headers: HTTPMessage) -> str:
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def _get(url: str, start: int | None, length: int, version: str) -> tuple[bytes, HTTPMessage, int]:
    """Return at most `length` bytes, headers and status; all from the beginning when `start` is None."""

    def attempt() -> tuple[bytes, HTTPMessage, int]:
        headers = {} if start is None else range_headers(start, start + length, version)
        with ask(url, headers) as response:
            is_piece = response.status == HTTPStatus.PARTIAL_CONTENT
            # A server that answers with the whole shard is not listened to.
            content = read_whole(response, length) if is_piece or start is None else b""
            if is_piece and len(content) < length:
                raise InterruptionError(f"the connection closed after {len(content)} of {length} bytes")
            return content, response.headers, response.status

    try:
        return retried(attempt)
    except HTTPError as error:
        raise RemoteError(f"HTTP {error.code} {error.reason}") from error
    except InterruptionError as error:
        raise RemoteError(str(error)) from error
