"""Pictures of many requests computed together: a batch has one size and one set of weights."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fixres.inference.server.schemas import Problem

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Row = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Waiting:
    image: Tensor
    answer: asyncio.Future[Row]
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Batcher(Generic[Key]):
    """Collects pictures and computes them in one thread, the longest waiting first, from `start` on."""

    compute: Callable[[Key, Tensor], npt.NDArray[np.float64]]
    """Key and uint8 `[B, 3, S, S]` to rows `[B, C]`; called in a thread of its own."""
    max_batch: int
    """Pictures computed at once."""
    max_wait_seconds: float
    """How long a picture may wait for company."""
    is_more_coming: Callable[[], bool]
    """Whether other pictures are being read, so that waiting can pay."""
    on_batch: Callable[[int, float], None]
    """Told the number of pictures and the seconds of every batch."""
    _queues: dict[Key, deque[_Waiting]] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="network"))
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compute."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what still waits is answered with 503."""
        if self._task is not None:
            self._task.cancel()
        for queue in self._queues.values():
            for waiting in queue:
                if not waiting.answer.done():
                    waiting.answer.set_exception(Problem(503, "stopping", "the server is stopping", 1))
        self._queues.clear()
        self._pool.shutdown(wait=True)

    @property
    def is_alive(self) -> bool:
        """Whether batches are being computed."""
        return self._task is not None and not self._task.done()

    def num_waiting(self) -> int:
        """Return the number of pictures in the queue."""
        return sum(map(len, self._queues.values()))

    async def __call__(self, key: Key, image: Tensor) -> Row:
        """Return the row of one picture, uint8 `[3, S, S]`."""
        waiting = _Waiting(image, asyncio.get_running_loop().create_future())
        self._queues.setdefault(key, deque()).append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def alone(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what `function` does in the batches' thread, so that no batch is computed meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            key = min(self._queues, key=lambda k: self._queues[k][0].since)
            await self._gather(key)
            group = self._take(key)
            if group:
                await self._answer(key, group)

    async def _gather(self, key: Key) -> None:
        """Wait for company, as long as any is on its way."""
        queue = self._queues[key]
        until = queue[0].since + self.max_wait_seconds
        while len(queue) < self.max_batch and self.is_more_coming() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.001))

    def _take(self, key: Key) -> list[_Waiting]:
        queue = self._queues[key]
        group: list[_Waiting] = []
        while queue and len(group) < self.max_batch:
            waiting = queue.popleft()
            # Those that gave up waiting are not computed.
            if not waiting.answer.done():
                group.append(waiting)
        if not queue:
            del self._queues[key]
        if not self._queues:
            self._arrived.clear()
        return group

    async def _answer(self, key: Key, group: list[_Waiting]) -> None:
        start = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._pool, self._batch, key, group)
        except Exception as error:  # noqa: BLE001 - whatever the network raises is the answer of these pictures alone
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self.on_batch(len(group), time.monotonic() - start)
        for waiting, row in zip(group, rows, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(row)

    def _batch(self, key: Key, group: list[_Waiting]) -> npt.NDArray[np.float64]:
        return self.compute(key, torch.stack([waiting.image for waiting in group]))
