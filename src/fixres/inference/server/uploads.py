"""A request's body, taken within limits: bytes, files, seconds, and what all requests together may hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fixres.inference.server.schemas import Problem, busy
from fixres.inference.server.settings import Limits

_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 1 << 30
_FIELDS = 16
_BARE = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types under which programs send a file as it is; the last is what `curl --data-binary @FILE` says."""
_FIELD_BYTES = 1000


class Ticket:
    """What one request holds; given back as a whole."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_pictures = 0
        self.num_bytes = 0
        self.is_read = False

    def take_pictures(self, num: int) -> None:
        """Hold `num` pictures in all.

        Raises:
            Problem: 503, there are too many in the server.
        """
        more = num - self.num_pictures
        if self._admission.pictures + more > self._admission.limits.waiting:
            raise busy()
        self._admission.pictures += more
        self.num_pictures = num
        if not self.is_read:
            self._admission.coming += more

    def take_bytes(self, num: int) -> None:
        """Hold `num` bytes more.

        Raises:
            Problem: 503, all requests together hold too many.
        """
        if self._admission.held_bytes + num > self._admission.limits.held_bytes:
            raise busy("too many bytes are waiting")
        self._admission.held_bytes += num
        self.num_bytes += num

    def mark_read(self) -> None:
        """Say that the pictures are in the queue, and no longer on their way to it."""
        if not self.is_read:
            self.is_read = True
            self._admission.coming -= self.num_pictures
            self._admission.held_bytes -= self.num_bytes
            self.num_bytes = 0


class Admission:
    """Counts what all requests hold, in one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pictures = 0
        self.coming = 0
        """Pictures that are being received or decoded."""
        self.held_bytes = 0

    @contextlib.contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """Hold one picture, or more, until the request is answered.

        Raises:
            Problem: 503, the server is full.
        """
        ticket = Ticket(self)
        ticket.take_pictures(1)
        try:
            yield ticket
        finally:
            ticket.mark_read()
            self.pictures -= ticket.num_pictures


@dataclass
class Upload:
    """What a request brought."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    """(name for messages, content)."""
    fields: dict[str, str] = field(default_factory=dict)
    """Form fields beside the files."""


async def read_upload(request: Request, ticket: Ticket, limits: Limits, max_files: int) -> Upload:
    """Return the files of a request: the parts of a form, or its body as it is.

    Raises:
        Problem: too large, too slow, or of a content type that holds no pictures.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/") and kind not in _BARE:
        raise Problem(
            415, "bad_content_type", f"'{kind}' holds no pictures; send image/*, application/octet-stream or a form"
        )
    body = await _read_body(request, ticket, limits)
    if kind != "multipart/form-data":
        return Upload([("the picture", body)])
    return await _read_form(request, body, max_files)


async def _read_body(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.body_bytes:
        raise _too_large(limits)
    chunks: list[bytes] = []
    num = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                num += len(chunk)
                if num > limits.body_bytes:
                    raise _too_large(limits)
                ticket.take_bytes(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(408, "too_slow", f"the request did not arrive within {limits.seconds:g} s") from None
    return b"".join(chunks)


def _too_large(limits: Limits) -> Problem:
    return Problem(413, "too_large", f"the request is larger than this server's {limits.body_bytes:,} bytes")


class _InMemory(MultiPartParser):
    """The parser without files on disk: the body is in memory already, and limited."""

    spool_max_size = 1 << 40


async def _read_form(request: Request, body: bytes, max_files: int) -> Upload:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _InMemory(request.headers, once(), max_files=max_files, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Problem(413, "too_many_files", f"at most {max_files} files in one request") from None
        raise Problem(400, "bad_form", f"the form cannot be read: {error.message}") from None
    except Exception:  # noqa: BLE001 - the parser raises whatever a damaged form makes it trip over
        raise Problem(400, "bad_form", "the form cannot be read") from None
    upload = Upload()
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            upload.files.append((_plain(value.filename or key), await value.read()))
        else:
            upload.fields[key] = value
    await form.close()
    return upload


def _plain(name: str) -> str:
    """Return a file's name for a message: no folders, nothing unprintable, not endless."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "?" for c in last)[:80] or "the picture"


async def drain(request: Request) -> None:
    """Read what a client still sends, so that it can read the answer; closing at once would cut it off."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    num = 0
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in request.stream():
                num += len(chunk)
                if num > _DRAIN_BYTES:
                    return
