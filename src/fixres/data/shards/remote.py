"""Shards that lie elsewhere: pieces of them by Range over http, or from an object store or what else fsspec knows.

fsspec makes a file system anew in every process that asks for one, so none is carried over a fork: it is asked for
at each use and never kept here.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from http.client import HTTPMessage
from typing import Any, TypeVar
from urllib.error import HTTPError

from fixres.data.sources.uri import is_web
from fixres.errors import UserError, require_extra
from fixres.io.download.address import require_address
from fixres.io.download.range_client import InterruptionError, ask, extent, range_headers, read_whole, retried

READ_AHEAD = 2**20
_MAX_SMALL_BYTES = 2**24
_ASKED_AGAIN_SECONDS = 600
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "created")
"""What file systems call that which tells two versions of a file apart, the best first."""
_IN_EXTRA = ("s3", "s3a", "gs", "gcs")

T = TypeVar("T")


class RemoteError(Exception):
    """A piece of a shard cannot be had; the message says why."""


class ChangedError(RemoteError):
    """A shard is another than the one that was indexed."""

    def __init__(self) -> None:
        super().__init__("the shard has changed on its server since the index was made")


def size_and_version(url: str) -> tuple[int, str] | None:
    """Return the size and the ETag (or time of change) of a file, None when its server gives no pieces of it.

    Raises:
        UserError: it cannot be reached, there is no such file, or a package is missing.
    """
    try:
        if not is_web(url):
            return _attributes(url)
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
            return _content(url, 0, _MAX_SMALL_BYTES)
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
        _require_version(url, version, os.getpid(), int(time.monotonic() / _ASKED_AGAIN_SECONDS))
        found = _content(url, start, start + length)
        if len(found) != length:
            raise ChangedError
        return found
    content, headers, status = _get(url, start, length, version)
    is_same = not version or _version(headers) == version
    if status != HTTPStatus.PARTIAL_CONTENT or extent(headers).start != start or not is_same:
        raise ChangedError
    return content


def is_folder(url: str) -> bool:
    """Return whether an address stands for other files; raises UserError."""
    return _stored(url, lambda system, path: bool(system.isdir(path)))


def is_gone(url: str) -> bool:
    """Return whether there is no such file; raises UserError."""
    return not _stored(url, lambda system, path: bool(system.exists(path)))


def matching(pattern: str) -> list[str]:
    """Return the addresses that a pattern with `*` stands for; raises UserError."""

    def listed(system: Any, path: str) -> list[str]:
        # As the pattern is spelled, so that all shards share their folder.
        head = pattern.removesuffix(path)
        return [system.unstrip_protocol(name) if head == pattern else head + name for name in system.glob(path)]

    return _stored(pattern, listed)


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


def _attributes(url: str) -> tuple[int, str]:
    """Return the size of a stored file, and its ETag or what else tells its version."""

    def ask_system(system: Any, path: str) -> dict[str, Any]:
        system.invalidate_cache(path)
        return dict(system.info(path))

    info = _used(url, ask_system)
    if info.get("type") != "file" or info.get("size") is None:
        raise RemoteError("it is no file")
    return int(info["size"]), next((str(info[key]) for key in _VERSIONS if info.get(key)), "")


def _content(url: str, start: int, end: int) -> bytes:
    """Return the bytes of a stored file from `start` on, up to `end` or its own end."""
    return _used(url, lambda system, path: bytes(system.cat_file(path, start=start, end=end)))


@lru_cache(maxsize=2**16)
def _require_version(url: str, version: str, process: int, period: int) -> None:
    """Refuse a file of another version; what is found holds for one process and for some minutes.

    An object store tells no version with a piece, and asking before every picture would take twice the time.
    """
    if _attributes(url)[1] != version:
        raise ChangedError


def _stored(url: str, use: Callable[[Any, str], T]) -> T:
    try:
        return _used(url, use)
    except RemoteError as error:
        raise UserError(f"{url} cannot be read: {error}\n  check the address and the network") from error


def _used(url: str, use: Callable[[Any, str], T]) -> T:
    """Return what `use` makes of the file system of an address, as this process has it, and the path there.

    Raises:
        UserError: a package is missing, or fsspec knows no such file system.
        RemoteError: there is no such file, or it cannot be had.
    """
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except ImportError as error:
        raise _missing(url, error) from error
    except ValueError as error:
        raise UserError(f"{url}: {error}\n  allowed: https://, s3://, gs:// and what else fsspec knows") from error

    def attempt() -> T:
        try:
            return use(system, path)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError as error:
            raise InterruptionError(f"{type(error).__name__}: {error}") from error

    try:
        return retried(attempt)
    except FileNotFoundError as error:
        raise RemoteError("there is no such file") from error
    except InterruptionError as error:
        raise RemoteError(str(error)) from error
    except Exception as error:  # every file system has its own for wrong keys, rights and buckets
        raise RemoteError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def _missing(url: str, error: ImportError) -> UserError:
    """Return the error of a package that fsspec needs for an address: of the extra `remote`, or one of the user's."""
    protocol = url.partition("://")[0]
    package = getattr(error.__cause__ or error, "name", None) or "fsspec"
    if protocol in _IN_EXTRA or package == "fsspec":
        return require_extra(package, "remote")
    return UserError(f"{protocol}:// needs the package '{package}', which is not installed\n  pip install {package}")
