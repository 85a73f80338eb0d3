"""Items of a data set made by several processes, in order, without ever waiting for one of them for good.

A process that was ended by something else is an error for people. One that decodes a single picture for longer than a
minute is ended, the picture counts as unreadable, and the rest of its work goes to another. While nothing comes, a
signal that asks the run to stop is looked for every second.
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from fixres.data.decode import BadImage
from fixres.errors import Stopped, UserError, counted, seconds_from
from fixres.runtime import signals
from fixres.runtime.signals import is_stop_requested
from fixres.runtime.worker_process import WorkerDiedError, WorkerProcess, begin

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", covariant=True)
_AHEAD = 2
"""Items each process makes ahead of the one that is asked for."""
_POLL_SECONDS = 1.0


class ReadingStuckError(UserError):
    """Nothing came from the loader processes for too long, or one of them is gone. The run's state is whole."""


class Items(Protocol[T]):
    """A data set whose items are made from nothing but their keys."""

    def __getitem__(self, key: Any, /) -> T: ...


@dataclass(frozen=True)
class Waiting:
    """How long is waited for what."""

    decode_seconds: float = 60.0
    """For one picture, while a process works on it."""
    wait_seconds: float = 300.0
    """For any process to bring anything or begin another picture, a slow disk included."""

    @classmethod
    def of_environment(cls) -> Waiting:
        """Return what FIXRES_DECODE_SECONDS and FIXRES_WAIT_SECONDS say; the defaults where they say nothing.

        Raises:
            UserError: one of them is no positive number.
        """
        return cls(
            seconds_from("FIXRES_DECODE_SECONDS", cls.decode_seconds),
            seconds_from("FIXRES_WAIT_SECONDS", cls.wait_seconds),
        )


_refused: frozenset[int] = frozenset()


def begin_picture(number: int, name: str) -> None:
    """Leave word that a picture is about to be read.

    Args:
        number: tells it from every other picture of the data set.
        name: what people call it.

    Raises:
        BadImage: a process was ended because this picture kept it too long.
    """
    begin(number)
    if number in _refused:
        raise BadImage(name, "decoding takes longer than FIXRES_DECODE_SECONDS allows")


def read_items(items: Items[T], keys: Iterable[Any], workers: int, waiting: Waiting | None = None) -> Generator[T]:
    """Yield `items[key]` of every key in order, made by that many processes, or by this one where there are none.

    With workers, keys are taken a few ahead.

    Raises:
        ReadingStuckError: nothing came for too long, or a process was ended by something else.
        Stopped: a signal that asks to stop came while waiting.
        Exception: what making an item raised.
    """
    if workers == 0:
        for key in keys:
            yield items[key]
        return
    pool = _Pool(items, workers, waiting or Waiting.of_environment())
    try:
        yield from pool.run(keys)
    finally:
        pool.close()


class _Failed(NamedTuple):
    error: Exception


class _Task(NamedTuple):
    number: int
    key: Any
    refused: frozenset[int]


def _prepare() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    # Signals reach a whole process group; the main process needs its workers to stop safely, and then kills them.
    for name in signals.NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _make(items: Items[Any], task: _Task) -> Any:
    global _refused  # noqa: PLW0603 - what this process, which does nothing else, was told last
    _refused = task.refused
    return _packed(items[task.key])


@dataclass
class _Pool:
    """The processes, what is on the way, and what has come too early."""

    items: Items[Any]
    num_workers: int
    waiting: Waiting
    workers: list[WorkerProcess] = field(default_factory=list)
    made: dict[int, Any] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def run(self, keys: Iterable[Any]) -> Iterator[Any]:
        left = enumerate(keys)
        for number in itertools.count():
            self._hand_out(left)
            if not self.workers:
                return
            if number not in self.made and not any(worker.tasks for worker in self.workers):
                return
            self._await(number)
            made = self.made.pop(number)
            if isinstance(made, _Failed):
                raise made.error
            yield _unpacked(made)

    def _hand_out(self, left: Iterator[tuple[int, Any]]) -> None:
        """Give the processes work, `_AHEAD` pieces for each of them, those that came early included."""
        on_the_way = len(self.made) + sum(len(worker.tasks) for worker in self.workers)
        for number, key in itertools.islice(left, max(0, _AHEAD * self.num_workers - on_the_way)):
            self._give(_Task(number, key, frozenset(self.refused)))

    def _give(self, task: _Task) -> None:
        idle = len(self.workers) == self.num_workers or any(not worker.tasks for worker in self.workers)
        if not idle:
            self.workers.append(self._start())
        worker = min(self.workers, key=lambda one: len(one.tasks))
        try:
            worker.send(task)
        except WorkerDiedError:
            raise self._gone(worker) from None

    def _start(self) -> WorkerProcess:
        return WorkerProcess(partial(_make, self.items), prepare=_prepare)

    def _await(self, number: int) -> None:
        """Wait until item `number` is there."""
        last = time.monotonic()
        while number not in self.made:
            busy = {worker.connection: worker for worker in self.workers if worker.tasks}
            ready = wait(list(busy), _POLL_SECONDS)
            for connection in ready:
                worker = busy[connection]  # type: ignore[index]
                first = worker.tasks[0]
                try:
                    self.made[first.number] = worker.receive()
                except WorkerDiedError:
                    raise self._gone(worker) from None
                except Exception as error:  # noqa: BLE001 - raised in its place, after the items before it
                    self.made[first.number] = _Failed(error)
                last = time.monotonic()
            if is_stop_requested() and number not in self.made:
                raise Stopped
            if not ready:
                self._look_after(time.monotonic() - last)

    def _look_after(self, seconds: float) -> None:
        """End the process that works on one picture for too long; give up when all have stood still for too long."""
        for place, worker in enumerate(self.workers):
            at = worker.at() if worker.tasks else None
            if at is not None:
                seconds = min(seconds, at.seconds)
            if at is not None and at.seconds > self.waiting.decode_seconds and worker.state() in ("working", ""):
                self.refused.add(at.number)
                tasks = [task._replace(refused=frozenset(self.refused)) for task in worker.tasks]
                worker.kill()
                self.workers[place] = self._start()
                for task in tasks:
                    self.workers[place].send(task)
                return
        if seconds > self.waiting.wait_seconds:
            raise ReadingStuckError(self._stuck(seconds))

    def _stuck(self, seconds: float) -> str:
        named = [f"process {worker.pid} is {worker.state() or 'silent'}" for worker in self.workers if worker.tasks]
        return (
            f"no picture came from the {counted(len(self.workers), 'loader process', 'loader processes')} for "
            f"{seconds:.0f} seconds: {', '.join(named)}\n"
            "  look at the disk or network the pictures are on; for one that is only slow, set FIXRES_WAIT_SECONDS "
            "to more; fewer workers need less memory"
        )

    def _gone(self, worker: WorkerProcess) -> ReadingStuckError:
        return ReadingStuckError(
            f"a loader process (number {worker.pid}) {worker.end_word()}, which is what happens when memory runs out\n"
            "  use fewer workers (--data.workers, in other commands --workers) or a smaller batch"
        )

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.kill()


class _Array(NamedTuple):
    """A tensor as an array whose order is that in memory, which is what travels without a copy."""

    values: np.ndarray
    order: tuple[int, ...]


def _packed(made: Any) -> Any:
    """Return the item with its tensors as arrays."""
    torch = sys.modules.get("torch")
    return made if torch is None else _swapped(made, torch.Tensor, _to_array)


def _unpacked(made: Any) -> Any:
    """Return the item with its arrays as the tensors they were, layout included."""
    return _swapped(made, _Array, _to_tensor)


def _to_array(tensor: Tensor) -> _Array:
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))
    return _Array(tensor.permute(order).contiguous().numpy(), order)


def _to_tensor(array: _Array) -> Tensor:
    import torch

    back = sorted(range(len(array.order)), key=array.order.__getitem__)
    return torch.from_numpy(array.values).permute(back)


def _swapped(made: Any, kind: type, swap: Callable[[Any], Any]) -> Any:
    if isinstance(made, kind):
        return swap(made)
    if isinstance(made, tuple):
        parts = [_swapped(part, kind, swap) for part in made]
        return type(made)(*parts) if hasattr(made, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        names = [one.name for one in dataclasses.fields(made)]
        return dataclasses.replace(made, **{name: _swapped(getattr(made, name), kind, swap) for name in names})
    return made
