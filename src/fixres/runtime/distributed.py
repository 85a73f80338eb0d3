"""The processes of a run and what they tell each other; a lone process is a group of one."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from fixres.errors import Stopped, UserError

_LOST = ("timed out", "timeout", "peer", "reset", "broken pipe")
"""What PyTorch says when another process does not answer or is gone."""
_NOTICE_SECONDS = 1.0
"""How often a process notes how far it is, and how long the others listen before they name a late one."""


class Shard(NamedTuple):
    """Which part of the work is this process's: entries `rank`, `rank + world`, ... of a list."""

    rank: int = 0
    world: int = 1


class Processes:
    """The group this process belongs to, for messages that are not gradients. Every method is called by all of them.

    Messages go through gloo on the CPU whatever carries the gradients: its waiting ends with an error that can be
    caught, so that a late process can be named.
    """

    def __init__(self, wait_seconds: float = 1800.0) -> None:
        is_group = dist.is_available() and dist.is_initialized()
        self.shard = Shard(dist.get_rank(), dist.get_world_size()) if is_group else Shard()
        self._noted = 0.0
        self._group = _control_group(wait_seconds) if self.shard.world > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.shard.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of every process, in the order of their ranks, to all of them."""
        if self._group is None:
            return [value]
        found: list[Any] = [None] * self.shard.world
        with self._naming_the_late():
            dist.all_gather_object(found, value, group=self._group)
        return found

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Leave when every process has done its part, all of them with the error of the first that had one.

        Raises:
            UserError: of any process.
            Stopped: a signal came to one.
        """
        error: UserError | Stopped | None = None
        try:
            yield
        except (UserError, Stopped) as raised:
            error = raised
        for found in self.gather(error):
            if found is not None:
                raise found

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest of the numbers given at each place."""
        if self._group is None:
            return numbers
        reduced = torch.tensor(numbers, dtype=torch.int64)
        with self._naming_the_late():
            dist.all_reduce(reduced, dist.ReduceOp.MAX, group=self._group)
        return tuple(reduced.tolist())

    def mean(self, value: float) -> float:
        """Return the mean of the processes' values, the same bits on all of them."""
        if self._group is None:
            return value
        summed = torch.tensor([value], dtype=torch.float64)
        with self._naming_the_late():
            dist.all_reduce(summed, group=self._group)
        return float(summed) / self.shard.world

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process go through before the others enter.

        What the main process is refused, all are: the others raise its UserError.
        """
        if not self.is_main:
            refused = self.gather(None)[0]
            if refused is not None:
                raise UserError(refused)
            yield
            return
        try:
            yield
        except UserError as error:
            self.gather(str(error))
            raise
        self.gather(None)

    def note_step(self, step: int) -> None:
        """Leave word of how far this process is, for the message about a late one."""
        if self._group is not None and time.monotonic() - self._noted > _NOTICE_SECONDS:
            self._noted = time.monotonic()
            with self._naming_the_late():
                _store().set(f"fixres/step/{self.shard.rank}", str(step))

    @contextlib.contextmanager
    def _naming_the_late(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.explain(error) from error

    def explain(self, error: RuntimeError) -> Exception:
        """Return what to raise for a failed exchange: a message that names who did not come, or `error` itself.

        Those who waited say so in the store that brought the processes together; the others are late.
        """
        text = str(error).lower()
        if self._group is None or not any(word in text for word in _LOST):
            return error
        try:
            store = _store()
            store.set(f"fixres/waited/{self.shard.rank}", "1")
            time.sleep(2 * _NOTICE_SECONDS)
            late = [rank for rank in range(self.shard.world) if not store.check([f"fixres/waited/{rank}"])]
            steps = {rank: _last_step(store, rank) for rank in late}
        except RuntimeError:
            # The store ends with the process that keeps it.
            return UserError("the process that brought the others together has ended; its own message says why")
        if not late:
            return UserError("the processes lost each other; the network between them failed\n  start again: --resume")
        where = ", ".join(f"process {rank} (last seen {steps[rank]})" for rank in late)
        return UserError(
            f"{where} did not come: it is stuck or has ended, its own message says why\n"
            "  start again with --resume; if it is only slow, raise runtime.wait_seconds"
        )


def _last_step(store: Any, rank: int) -> str:
    key = f"fixres/step/{rank}"
    return f"at step {store.get(key).decode()}" if store.check([key]) else "before the first step"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


_control: list[Any] = []


def _control_group(wait_seconds: float) -> Any:
    """Return the gloo group of this program, made once: every Runtime of it uses the same."""
    if not _control:
        _control.append(dist.new_group(backend="gloo", timeout=timedelta(seconds=wait_seconds)))
        atexit.register(_leave)
    return _control[0]


def _leave() -> None:
    # A group that is still there when Python ends prints a warning over the program's own last words.
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
