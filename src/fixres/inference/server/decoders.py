"""Processes that decode pictures, one at a time each, and how much may be decoded at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from fixres.inference.server.read_picture import Large, Refusal, Task, Views, prepare, read_picture
from fixres.inference.server.schemas import Problem, busy
from fixres.runtime.worker_process import WorkerDiedError, WorkerProcess

_STUCK_SECONDS = 3.0
"""How long all decoders may be at their pictures before the server is not ready; ordinary ones take a tenth of it."""
_SINGLE_BEFORE_MANY = 4
"""Single pictures that go before a waiting one of many, one after the other."""


class Decoders:
    """Some processes, each ended and replaced when a picture keeps it for too long."""

    def __init__(self, num: int, seconds: float, max_pixels: int) -> None:
        """Start them.

        Args:
            num: how many; at least 2, so that large pictures leave one to the others.
            seconds: how long decoding one picture may take.
            max_pixels: of one picture, and of all large ones that are decoded at once.
        """
        self.seconds = seconds
        self._idle: list[WorkerProcess | None] = [_start() for _ in range(num)]
        """None is one that could not be started, which is tried again when it is needed."""
        self._turns = _Turns(num)
        self._since: dict[WorkerProcess, float] = {}
        """When those at work began."""
        self._threads = ThreadPoolExecutor(num, thread_name_prefix="decode")
        self._is_closed = False
        self._room = _Room(max_pixels, num - 1)

    @property
    def is_ready(self) -> bool:
        """Whether a picture that comes now is soon decoded."""
        now = time.monotonic()
        if self._turns.longest_wait() > _STUCK_SECONDS:
            return False
        return bool(self._idle) or any(now - since < _STUCK_SECONDS for since in self._since.values())

    async def __call__(self, task: Task, *, is_one_of_many: bool = False) -> Views:
        """Return what the network sees of a picture.

        Args:
            task: the picture, and how it is wanted.
            is_one_of_many: whether its request has others, which the single pictures of other requests go before.

        Raises:
            Problem: it cannot be used, or takes too much time or memory.
        """
        found = await self._ask(task, is_one_of_many)
        if isinstance(found, Large):
            async with self._room.hold(found.pixels):
                found = await self._ask(task._replace(free_pixels=found.pixels), is_one_of_many)
        if isinstance(found, Refusal):
            raise Problem(found.status, found.code, found.message)
        assert not isinstance(found, Large)
        return found

    async def _ask(self, task: Task, is_one_of_many: bool) -> Views | Large | Refusal:
        async with self._turns.one(is_one_of_many):
            if self._is_closed:
                raise Problem(503, "stopping", "the server is stopping", 1)
            worker = self._idle.pop()
            if worker is None or not worker.is_alive():
                # One may have died while it had nothing to do; a picture is not to blame for that.
                worker = _start()
            if worker is None:
                self._idle.append(None)
                raise busy("this machine can start no more processes")
            self._since[worker] = time.monotonic()
            answer = asyncio.get_running_loop().run_in_executor(self._threads, _answer, worker, task)
            try:
                done, _ = await asyncio.wait({answer}, timeout=self.seconds)
                if not done:
                    return Refusal(413, "too_much_work", f"{task.name} takes more than {self.seconds:g} s to decode")
                return answer.result()
            except WorkerDiedError:
                return Refusal(413, "too_many_pixels", f"{task.name} needs more memory than there is")
            finally:
                del self._since[worker]
                is_whole = answer.done() and not answer.cancelled() and answer.exception() is None
                if not is_whole:
                    worker.end()
                    answer.add_done_callback(partial(_close, worker))
                if not self._is_closed:
                    self._idle.append(worker if is_whole else _start())

    def close(self) -> None:
        """End all of them, whatever they do."""
        self._is_closed = True
        for worker in self._since:
            worker.end()
        for worker in filter(None, self._idle):
            worker.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _start() -> WorkerProcess | None:
    try:
        return WorkerProcess(read_picture, prepare=prepare, is_fresh=True)
    except OSError:
        # Too many files are open, or processes; others may end.
        return None


def _answer(worker: WorkerProcess, task: Task) -> Views | Large | Refusal:
    worker.send(task)
    found: Views | Large | Refusal = worker.receive()
    return found


def _close(worker: WorkerProcess, answer: asyncio.Future[object]) -> None:
    """Close the pipe of a process that was ended, now that its thread has found the end of it."""
    if not answer.cancelled():
        answer.exception()
    worker.kill()


class _Turns:
    """Who may use a decoder next: in order, single pictures before those of requests with many."""

    def __init__(self, num: int) -> None:
        self._num_free = num
        self._single: deque[_Waiter] = deque()
        self._many: deque[_Waiter] = deque()
        self._num_single = 0
        """Single pictures that have gone before one of many that waits."""

    def longest_wait(self) -> float:
        """Return for how many seconds a single picture has been waiting."""
        return time.monotonic() - self._single[0].since if self._single else 0.0

    @contextlib.asynccontextmanager
    async def one(self, is_one_of_many: bool) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        if self._num_free:
            self._num_free -= 1
        else:
            waiter = _Waiter(asyncio.get_running_loop().create_future(), time.monotonic())
            queue = self._many if is_one_of_many else self._single
            queue.append(waiter)
            try:
                await waiter.turn
            except asyncio.CancelledError:
                if waiter in queue:
                    queue.remove(waiter)
                elif not waiter.turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._single or self._many:
            # Not for ever before: requests with many would never be answered beside enough of the others.
            takes_many = bool(self._many) and (not self._single or self._num_single >= _SINGLE_BEFORE_MANY)
            waiter = (self._many if takes_many else self._single).popleft()
            if not waiter.turn.done():
                self._num_single = 0 if takes_many or not self._many else self._num_single + 1
                waiter.turn.set_result(None)
                return
        self._num_free += 1


class _Waiter(NamedTuple):
    turn: asyncio.Future[None]
    since: float


class _Room:
    """How many pixels of large pictures are decoded at once, given out in the order they were asked for."""

    def __init__(self, pixels: int, pictures: int) -> None:
        self._left = pixels
        self._pixels = pixels
        self._share = pixels // pictures
        """What a picture holds at least, so that there are never more than so many."""
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        pixels = min(max(pixels, self._share), self._pixels)
        async with self._turn:
            while self._left < pixels:
                self._freed.clear()
                await self._freed.wait()
            self._left -= pixels
        try:
            yield
        finally:
            self._left += pixels
            self._freed.set()
