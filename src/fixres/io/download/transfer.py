"""One transfer over http: resumed where it broke off, never joined from two versions, put in place whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.error import HTTPError

from fixres.errors import UserError
from fixres.io.download import range_client
from fixres.io.download.address import Checksums
from fixres.io.download.range_client import InterruptionError, ask, extent, pause, range_headers
from fixres.io.files import sync_folder, write_json, write_whole

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are and the bytes there will be; None when the server does not say."""

MAX_BYTES = 20 * 2**30
"""Nothing larger is fetched."""
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Job:
    """One file to fetch, and the small files beside it while it is on its way."""

    url: str
    target: Path
    checksums: Checksums
    progress: Progress | None

    @property
    def part(self) -> Path:
        """The bytes so far."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def record_file(self) -> Path:
        """Which version of which file the bytes so far belong to."""
        return self.target.with_name(self.target.name + ".part.json")

    @property
    def origin_file(self) -> Path:
        """Where a file came from that no checksum tells apart from another of the same name."""
        return self.target.with_name(self.target.name + ".url")

    @property
    def origin(self) -> str:
        """The address without its query, which may hold a signature that expires."""
        return self.url.split("?")[0]

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def record(self) -> dict[str, Any]:
        """Return url, etag, last_modified and total of the bytes so far; empty when they are not of this address."""
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) and record.get("url") == self.origin else {}

    def start(self, headers: HTTPMessage, total: int | None) -> None:
        """Begin from zero."""
        # In this order: a record newer than the bytes would let two versions be joined.
        self.part.write_bytes(b"")
        version = {"etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified"), "total": total}
        write_json(self.record_file, {"url": self.origin, **version})

    def drop(self) -> None:
        """Forget the bytes so far."""
        self.part.unlink(missing_ok=True)
        self.record_file.unlink(missing_ok=True)

    def error(self, reason: str, advice: str = "") -> UserError:
        """Return the error of this job: what, why, the address, and what can be done."""
        by_hand = f"fetch it where there is a network and put it at {self.target}"
        return UserError(f"cannot fetch {self.target.name}: {reason}\n  {self.url}\n  {advice or by_hand}")


@contextmanager
def on_disk(job: Job) -> Iterator[None]:
    """Turn what the disk refuses into an error for people; only files are touched inside."""
    try:
        yield
    except OSError as error:
        advice = f"make room in {job.target.parent}, or set TORCH_HOME to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise job.error(f"the disk is full; {job.size} bytes are kept and the next run goes on", advice) from error
        folder = job.target.parent
        raise job.error(f"{folder} cannot be used ({error.strerror or error})", "set TORCH_HOME to another") from error


def transfer(job: Job) -> None:
    """Bring the bytes so far to the whole length, going on after interruptions.

    Raises:
        UserError: the server refuses, cannot be reached, or broke off too often; the bytes so far are kept.
    """
    failures = 0
    while job.size == 0 or job.size != job.record().get("total"):
        try:
            _attempt(job)
        except InterruptionError as error:
            if not (error.has_begun or failures):
                raise job.error(str(error)) from error
            failures += 1
            if failures > range_client.RETRIES:
                kept = (
                    f"{job.size} of {job.record().get('total') or 'an unknown number of'} bytes are kept in {job.part}"
                )
                advice = f"{kept}\n  run the same again and it goes on from there"
                raise job.error(f"it broke off {failures} times ({error})", advice) from error
            pause(failures)
        else:
            return


def _attempt(job: Job) -> None:
    headers = _range_headers(job)
    try:
        response = ask(job.url, headers)
    except HTTPError as error:
        with error:
            if headers and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                # There is nothing behind the bytes so far: they are all there are, or of another file.
                if extent(error.headers).total != job.size:
                    _begin_again(job)
                return
            raise _refusal(job, error) from error
    except ValueError as error:
        raise job.error(str(error), "check the address") from error
    with response:
        _receive(job, response)


def _range_headers(job: Job) -> dict[str, str]:
    """Return what asks for the rest of the very version the bytes so far are of; nothing when that cannot be asked."""
    record = job.record()
    headers = range_headers(job.size, None, record.get("etag"), record.get("last_modified"))
    return headers if job.size and record and ("If-Range" in headers or job.checksums.known) else {}


def _begin_again(job: Job) -> NoReturn:
    job.drop()
    raise InterruptionError("the file has changed in between")


def _refusal(job: Job, error: HTTPError) -> UserError:
    if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return job.error(f"the server has no such file (HTTP {error.code})", "check the address")
    if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return job.error(f"the server does not give it to us (HTTP {error.code})")
    if HTTPStatus.MULTIPLE_CHOICES <= error.code < HTTPStatus.BAD_REQUEST:
        return job.error(f"the server sends us from one address to the next (HTTP {error.code})", "check the address")
    return job.error(f"HTTP {error.code} {error.reason}")


def _receive(job: Job, response: HTTPResponse) -> None:
    """Write one answer of the server behind the bytes so far, or in their place."""
    total = _begin(job, response)
    done = job.size
    with on_disk(job):
        # Unbuffered, so that what a kill or a full disk leaves is always the beginning of the file.
        file = job.part.open("ab", buffering=0)
    with file:
        while chunk := range_client.read(response, _CHUNK_BYTES):
            done += len(chunk)
            _require_small(job, done)
            with on_disk(job):
                _write_whole(file, chunk)
            if job.progress:
                job.progress(done, total)
        with on_disk(job):
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise InterruptionError(f"the connection closed after {done} of {total} bytes")


def _begin(job: Job, response: HTTPResponse) -> int | None:
    """Make the bytes so far such that the answer's body belongs behind them; return the length of the whole file."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise job.error(f"the server sends it packed ({response.headers['Content-Encoding']})")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        total = _require_rest(job, response)
        _require_room(job, total, response.length, job.size)
        return total if total is not None else job.record().get("total")
    if response.status != HTTPStatus.OK:
        raise job.error(f"HTTP {response.status} {response.reason} instead of the file", "check the address")
    total = response.length
    if total is None and not response.chunked and not job.checksums.known:
        raise job.error("the server does not say how long it is, so nothing tells whether it came whole")
    with on_disk(job):
        job.start(response.headers, total)
    _require_room(job, total, total, 0)
    return total


def _require_rest(job: Job, response: HTTPResponse) -> int | None:
    """Return the length of the whole file when the piece sent fits behind the bytes so far; else begin again."""
    record = job.record()
    start, total = extent(response.headers)
    fits = start == job.size > 0
    # Not every server heeds If-Range.
    headers = response.headers
    for key, now in (("etag", headers["ETag"]), ("last_modified", headers["Last-Modified"]), ("total", total)):
        fits = fits and (now is None or record.get(key) in (None, now))
    if not fits:
        _begin_again(job)
    return total


def _require_room(job: Job, total: int | None, rest: int | None, kept: int) -> None:
    _require_small(job, max(total or 0, kept + (rest or 0)))
    free = shutil.disk_usage(job.target.parent).free
    if rest is not None and rest > free:
        reason = f"{rest} more bytes are needed in {job.target.parent}, {free} are free"
        raise job.error(reason, "make room, or set TORCH_HOME to another folder")


def _require_small(job: Job, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        job.drop()
        raise job.error(f"it has at least {num_bytes} bytes; at most {MAX_BYTES} are fetched")


def put_in_place(job: Job) -> None:
    """Check the whole file and give it its name; a wrong one is removed.

    Raises:
        UserError: it is not what the checksum says.
    """
    with on_disk(job):
        wrong = job.checksums.mismatch(job.part)
        if wrong:
            job.drop()
            raise job.error(
                f"what came is not what was asked for: {wrong}; it has been removed",
                "run the same again; if it stays wrong, the file has been changed or the checksum is not its own",
            )
        if job.checksums.known:
            job.origin_file.unlink(missing_ok=True)
        else:
            write_whole(job.origin_file, lambda part: part.write_text(job.origin + "\n", encoding="utf-8"))
        job.part.replace(job.target)
        job.record_file.unlink(missing_ok=True)
        sync_folder(job.target.parent)


def _write_whole(file: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]
