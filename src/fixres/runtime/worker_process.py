"""A process that does one piece of work after the other for its parent, and that can always be ended.

Each has a pipe of its own, so nothing is lost with it but the work it was given, which another can do again. It never
outlives its parent. It imports no more than the work needs.

Arrays come back through memory whose descriptor travels with the answer (`memfd_create`). /dev/shm, of which containers
have 64 MB, is not used, and once an answer is there nothing more is asked of the process that made it: torch's way of
sharing tensors asks it for the descriptor, and waits for ever for a process that is stopped.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

_LOOK_SECONDS = 1.0
"""How often a worker looks whether its parent is still there."""
_STATES = {"T": "stopped", "t": "stopped", "D": "waiting for the disk", "Z": "dead", "S": "waiting", "R": "working"}


_HAS_MEMORY = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
_living: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


@atexit.register
def _kill_all() -> None:
    """End every worker before Python waits for it: those it was never told to end go on by themselves."""
    for worker in list(_living):
        worker.kill()


class WorkerDiedError(Exception):
    """The process has ended, and with it what it was working on."""


class At(NamedTuple):
    """Where a worker is: the number it named with `begin`, and for how many seconds."""

    number: int
    seconds: float


class WorkerProcess:
    """One process, the pipe to it, and what it has been given to do."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        prepare: Callable[[], None] = lambda: None,
        is_fresh: bool = False,
    ) -> None:
        """Start it.

        Args:
            function: makes the answer to a piece of work; Exceptions it raises are raised by `receive`.
            prepare: called first in the process.
            is_fresh: start a Python that imports nothing but the modules of `function` and `prepare`, which are
                functions of a module, in place of a process as `multiprocessing` starts it, which has what this has.
        """
        self.tasks: deque[Any] = deque()
        """What it was sent and has not answered, the oldest first."""
        self.connection: Connection
        self._place: Any = (0, 0.0)
        self._process: Any
        if is_fresh and sys.platform != "win32":
            self.connection, theirs = multiprocessing.Pipe()
            self._process = _Fresh(theirs, function, prepare)
        else:
            context = multiprocessing.get_context()
            self.connection, theirs = context.Pipe()
            self._place = context.RawArray("d", 2)
            self._process = context.Process(
                target=_work,
                args=(theirs, self.connection, function, prepare, self._place),
                daemon=True,
            )
            self._process.start()
        theirs.close()
        _living.add(self)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid or 0

    def send(self, task: Any) -> None:
        """Give it one more piece of work, to be done after those it has.

        Raises:
            WorkerDiedError: the process has ended.
        """
        try:
            self.connection.send(task)
        except OSError as error:
            raise WorkerDiedError from error
        self.tasks.append(task)

    def receive(self) -> Any:
        """Wait for the answer to the oldest piece of work and return it.

        Raises:
            WorkerDiedError: the process has ended, before or while it answered.
            Exception: what the work raised.
        """
        try:
            is_well, answer = _receive(self.connection)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise WorkerDiedError from error
        self.tasks.popleft()
        if not is_well:
            raise answer
        return answer

    def is_alive(self) -> bool:
        """Return whether it has not ended."""
        return bool(self._process.is_alive())

    def at(self) -> At | None:
        """Return what it named last with `begin`, None before the first."""
        number, start = self._place
        return At(int(number), time.monotonic() - start) if start else None

    def state(self) -> str:
        """Return what the kernel says it does, in a word or two; empty where the kernel does not say."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return "" if self._process.is_alive() else "dead"
        return _STATES.get(status.rpartition(")")[2].split()[0], "")

    def end_word(self) -> str:
        """Return how it ended, for people: by which signal, or with which code."""
        self._process.join(_LOOK_SECONDS)
        code = self._process.exitcode
        if code is None:
            return "does not answer"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def end(self) -> None:
        """End it, whatever it does; whoever waits for its answer is told that it died, and then to call `kill`."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def kill(self) -> None:
        """End it, whatever it does, without waiting for one that hangs in the kernel on a dead disk."""
        _living.discard(self)
        self.end()
        self._process.join(_LOOK_SECONDS)
        self.connection.close()
        if self._process.is_alive():
            # Python would wait for it at its own end.
            multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]


class _Fresh:
    """A new Python at work, with the methods of a process of `multiprocessing`."""

    def __init__(self, theirs: Connection, function: Callable[[Any], Any], prepare: Callable[[], None]) -> None:
        names = [f"{one.__module__}:{one.__qualname__}" for one in (function, prepare)]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START_FRESH, str(theirs.fileno()), *names, *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # Threads for linear algebra would cost memory and are never used.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self.pid = self._popen.pid
        self.kill = self._popen.kill

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def join(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    @property
    def exitcode(self) -> int | None:
        return self._popen.poll()


_START_FRESH = """
import sys
descriptor, function, prepare, *sys.path = sys.argv[1:]
from fixres.runtime.worker_process import work_fresh
work_fresh(int(descriptor), function, prepare)
"""


def work_fresh(descriptor: int, function: str, prepare: str) -> None:
    """Do, in a new Python, what `WorkerProcess` asks for.

    Args:
        descriptor: this end of the pipe.
        function: `MODULE:NAME` of what makes the answers.
        prepare: the same of what is called first.
    """
    _work(Connection(descriptor), None, _named(function), _named(prepare), None)


def _named(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


_place: Any = None


def begin(number: int) -> None:
    """Leave word, in a worker, of which part of its work begins; elsewhere do nothing."""
    if _place is not None:
        _place[:] = (number, time.monotonic())


def rest() -> None:
    """Leave word, in a worker, that no part of its work is being done."""
    if _place is not None:
        _place[1] = 0.0


def _work(
    connection: Connection,
    parents: Connection | None,
    function: Callable[[Any], Any],
    prepare: Callable[[], None],
    place: Any,
) -> None:
    global _place  # noqa: PLW0603 - what this process, which does nothing else, leaves word in
    if parents is not None:
        parents.close()
    _place = place
    end_with_parent(lambda: os._exit(1))
    prepare()
    with contextlib.suppress(BrokenPipeError, ConnectionError, EOFError, KeyboardInterrupt):
        while True:
            task = connection.recv()
            try:
                answer = True, function(task)
            except Exception as error:  # noqa: BLE001 - raised where the answer is received
                error.add_note("".join(traceback.format_exception(error)))
                answer = False, error
            rest()
            _send(connection, answer)


def end_with_parent(end: Callable[[], object]) -> None:
    """Call a function once the process that started this one is gone, also in the middle of work.

    Not by the end of a pipe: processes that were started later hold a copy of its other end. The parent's number is
    what it wrote down itself, since it may be gone before this process gets to ask who its parent is; a process that
    a fork server made is the server's child, and the server ends with its own parent.
    """
    starter = multiprocessing.parent_process()
    is_served = multiprocessing.get_start_method(allow_none=True) == "forkserver"
    parent = os.getppid() if starter is None or is_served else starter.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _send(connection: Connection, answer: tuple[bool, Any]) -> None:
    """Send an answer: whether memory comes with it, the descriptor of the memory, and the rest as one message."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        content = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # noqa: BLE001 - what cannot be sent is told in place of the answer
        told = answer[1] if answer[0] else RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")
        content, buffers = pickle.dumps((False, RuntimeError(f"{told} ({error})")), protocol=5), []
    views = [buffer.raw() for buffer in buffers]
    if not views or not _HAS_MEMORY:
        connection.send_bytes(pickle.dumps((content, [bytes(view) for view in views])))
        return
    sizes = [view.nbytes for view in views]
    descriptor = os.memfd_create("fixres")
    try:
        os.truncate(descriptor, _place_of(sizes)[-1] or 1)
        for start, view in zip(_place_of(sizes), views, strict=False):
            # Not through a map, which would stop at every page: half the time.
            while view:
                written = os.pwrite(descriptor, view, start)
                view, start = view[written:], start + written
        connection.send_bytes(pickle.dumps((content, sizes)))
        with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
            socket.send_fds(pipe, [b"m"], [descriptor])
    finally:
        os.close(descriptor)


def _receive(connection: Connection) -> Any:
    content, parts = pickle.loads(connection.recv_bytes())
    if not parts or isinstance(parts[0], bytes):
        return pickle.loads(content, buffers=[bytearray(part) for part in parts])
    with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
        _, descriptors, *_ = socket.recv_fds(pipe, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        memory = memoryview(mmap.mmap(descriptors[0], 0))
    finally:
        os.close(descriptors[0])
    starts = _place_of(parts)
    return pickle.loads(
        content, buffers=[memory[start : start + size] for start, size in zip(starts, parts, strict=False)]
    )


def _place_of(sizes: list[int]) -> list[int]:
    """Return where each of several buffers begins in one memory, and where the last ends; all at multiples of 64."""
    return list(itertools.accumulate((-(-size // 64) * 64 for size in sizes), initial=0))
