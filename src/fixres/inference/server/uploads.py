"""A request's body, taken within limits: bytes, files, seconds, and what all requests together may hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
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
_SOON_SECONDS = 1.0
"""Within which ordinary requests arrive; once the server is full, those that took longer make room for others."""
_RESERVE = 64
"""Requests that may arrive beyond the limit, as long as each of them does so soon."""


class Ticket:
    """What one request holds; given back as a whole."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_pictures = 0
        self.num_bytes = 0
        """Of its body, until the pictures in it are decoded."""
        self.num_view_bytes = 0
        """Of what the network sees of them, until it is answered."""
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

    async def take_bytes(self, num: int) -> None:
        """Hold `num` bytes more, those of requests that take long to arrive if need be.

        Raises:
            Problem: 503, all requests together hold too many.
        """
        while self._admission.held_bytes + num > self._admission.limits.held_bytes:
            if not self._admission.expire(lambda arriving: arriving.ticket.num_bytes):
                raise busy("too many bytes are waiting")
            # It gives back what it holds when it runs next.
            await asyncio.sleep(0.001)
        self._admission.held_bytes += num
        self.num_bytes += num

    def take_views(self, num: int, size: int) -> None:
        """Hold what the network sees of its pictures: `num` views of `size` pixels a side.

        Raises:
            Problem: 413, these are more bytes than all requests together may hold; 503, they do not fit now.
        """
        num_bytes, limit = 3 * num * size * size, self._admission.limits.held_bytes
        if num_bytes > limit:
            raise Problem(413, "too_many_files", f"{num} pictures at {size} px are more than {limit:,} bytes")
        if self._admission.held_bytes + num_bytes > limit:
            raise busy("too many bytes are waiting")
        self._admission.held_bytes += num_bytes
        self.num_view_bytes += num_bytes

    def mark_read(self) -> None:
        """Say that the pictures are in the queue, and no longer on their way to it."""
        if not self.is_read:
            self.is_read = True
            self._admission.coming -= self.num_pictures
            self._admission.held_bytes -= self.num_bytes
            self.num_bytes = 0


@dataclass(frozen=True, eq=False)
class _Arriving:
    ticket: Ticket
    since: float
    timeout: asyncio.Timeout


class Admission:
    """Counts what all requests hold, in one event loop.

    A request holds nothing but its bytes until it is whole: what is sent slowly keeps nobody out.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pictures = 0
        self.coming = 0
        """Pictures that are being received or decoded."""
        self.held_bytes = 0
        self._arriving: list[_Arriving] = []

    @property
    def has_room(self) -> bool:
        """Whether one picture more is taken."""
        return self.pictures < self.limits.waiting

    @contextlib.contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """Hold bytes and pictures until the request is answered."""
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            ticket.mark_read()
            self.pictures -= ticket.num_pictures
            self.held_bytes -= ticket.num_view_bytes

    @contextlib.asynccontextmanager
    async def arriving(self, ticket: Ticket) -> AsyncIterator[None]:
        """Give a request its time to arrive, which is short where too many are on their way.

        Raises:
            Problem: 503, too many are on their way; 408, this one took too long.
        """
        seconds = self.limits.seconds
        if len(self._arriving) >= self.limits.waiting and not self.expire(lambda arriving: -arriving.since):
            seconds = min(seconds, _SOON_SECONDS)
            if len(self._arriving) >= self.limits.waiting + _RESERVE:
                raise busy()
        self.coming += 1
        try:
            async with asyncio.timeout(seconds) as timeout:
                mine = _Arriving(ticket, time.monotonic(), timeout)
                self._arriving.append(mine)
                try:
                    yield
                finally:
                    if mine in self._arriving:
                        self._arriving.remove(mine)
        except TimeoutError:
            raise Problem(
                408, "too_slow", f"the request did not arrive within {self.limits.seconds:g} s, less in a full server"
            ) from None
        finally:
            self.coming -= 1

    def expire(self, cost: Callable[[_Arriving], float]) -> bool:
        """End the time of the costliest request that takes long to arrive; return whether there is one."""
        now = time.monotonic()
        slow = [one for one in self._arriving if now - one.since > _SOON_SECONDS]
        if not slow:
            return False
        found = max(slow, key=cost)
        self._arriving.remove(found)
        if not found.timeout.expired():
            found.timeout.reschedule(asyncio.get_running_loop().time())
        return True


@dataclass
class Upload:
    """What a request brought."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    """(name for messages, content)."""
    fields: dict[str, str] = field(default_factory=dict)
    """Form fields beside the files."""

    def take(self) -> list[tuple[str, bytes]]:
        """Return the files, and keep none: what is decoded has to leave the memory."""
        files, self.files = self.files, []
        return files


async def read_upload(request: Request, ticket: Ticket, admission: Admission, max_files: int) -> Upload:
    """Return the files of a request: the parts of a form, or its body as it is. The ticket then holds one picture.

    Raises:
        Problem: too large, too slow, or of a content type that holds no pictures; or the server is full.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/") and kind not in _BARE:
        raise Problem(
            415, "bad_content_type", f"'{kind}' holds no pictures; send image/*, application/octet-stream or a form"
        )
    async with admission.arriving(ticket):
        body = await _read_body(request, ticket, admission.limits)
    ticket.take_pictures(1)
    if kind != "multipart/form-data":
        return Upload([("the picture", body)])
    return await _read_form(request, body, max_files)


async def _read_body(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.body_bytes:
        raise _too_large(limits)
    chunks: list[bytes] = []
    num = 0
    async for chunk in request.stream():
        num += len(chunk)
        if num > limits.body_bytes:
            raise _too_large(limits)
        await ticket.take_bytes(len(chunk))
        chunks.append(chunk)
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
