"""Files of object stores and other file systems that fsspec knows: s3://, gs:// and so on.

fsspec makes a file system anew in every process that asks for one, so none is carried over a fork: it is asked for
at each use and never kept here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from fixres.errors import UserError, require_extra
from fixres.io.download.range_client import InterruptionError, retried

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


def attributes(url: str) -> tuple[int, str]:
    """Return the size of a file, and its ETag or what else tells its version.

    Raises:
        RemoteError: there is no such file, or it cannot be had.
    """

    def ask_system(system: Any, path: str) -> dict[str, Any]:
        system.invalidate_cache(path)
        return dict(system.info(path))

    info = _used(url, ask_system)
    if info.get("type") != "file" or info.get("size") is None:
        raise RemoteError("it is no file")
    return int(info["size"]), next((str(info[key]) for key in _VERSIONS if info.get(key)), "")


def content(url: str, start: int = 0, end: int | None = None) -> bytes:
    """Return the bytes of a file from `start` on, up to `end` or its own end.

    Raises:
        RemoteError: there is no such file, or it cannot be had.
    """
    return _used(url, lambda system, path: bytes(system.cat_file(path, start=start, end=end)))


def piece(url: str, start: int, length: int, version: str) -> bytes:
    """Return `length` bytes from `start` on of that version of the file.

    Raises:
        RemoteError: they cannot be had, or the file has changed.
    """
    _require_version(url, version, os.getpid(), int(time.monotonic() / _ASKED_AGAIN_SECONDS))
    found = content(url, start, start + length)
    if len(found) != length:
        raise ChangedError
    return found


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


@lru_cache(maxsize=2**16)
def _require_version(url: str, version: str, process: int, period: int) -> None:
    """Refuse a file of another version; what is found holds for one process and for some minutes.

    An object store tells no version with a piece, and asking before every picture would take twice the time.
    """
    if attributes(url)[1] != version:
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
