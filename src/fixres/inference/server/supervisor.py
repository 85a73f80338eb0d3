"""Several worker processes, watched without ever waiting for one of them.

uvicorn's own supervisor waits for a worker's answer as long as a worker may take to start, hears no signal meanwhile,
and waits so for a worker that has just died too.
"""

from __future__ import annotations

import pickle
import time
from socket import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.supervisors.multiprocess import Multiprocess, Process

START_SECONDS = 300.0
"""How long a worker may take to load its network."""
SILENT_SECONDS = 60.0
"""How long one that has served may give no answer."""
_AGAIN_SECONDS = 30.0
"""The longest pause before a worker that could not start is started again."""


class Worker(Process):
    """A worker that is asked whether it lives, and looked at for the answer later."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.has_served = False
        """Whether it has ever been ready."""
        self._asked: float | None = None

    def is_alive(self, timeout: float = 0.0) -> bool:
        """Return whether the process is there and not silent for too long; this returns at once."""
        if not self.process.is_alive():
            return False
        try:
            while self.parent_conn.poll():
                self.has_served |= self.parent_conn.recv() is True
                self._asked = None
            if self._asked is None:
                self.parent_conn.send(b"ping")
                self._asked = time.monotonic()
        except (OSError, EOFError, pickle.UnpicklingError):
            return False
        return time.monotonic() - self._asked < (SILENT_SECONDS if self.has_served else START_SECONDS)


class Supervisor(Multiprocess):
    """Keeps as many workers as were asked for, until a signal, or until none can start any more."""

    def __init__(self, config: Config, sockets: list[socket], stop_seconds: float) -> None:
        """Prepare.

        Args:
            config: how each worker serves.
            sockets: what they listen on.
            stop_seconds: how long a worker may take to end before it is killed.
        """
        super().__init__(config, sockets)
        self.exit_code = 0
        """1 once no worker could start."""
        self._stop_seconds = stop_seconds
        self._num_failed = 0
        self._not_before = 0.0

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes = [self._started() for _ in range(self.processes_num)]

    def _started(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Replace workers that are gone or silent; give up where none serves and new ones cannot start."""
        workers: list[Any] = self.processes
        for place, worker in enumerate(workers):
            if worker.is_alive():
                if worker.has_served:
                    self._num_failed = 0
                continue
            if time.monotonic() < self._not_before:
                continue
            code = worker.exitcode
            worker.kill()
            worker.process.join(1)
            if not worker.has_served and code is not None and code > 0:
                # It said itself why it cannot start; so will the next, unless that is mended.
                self._num_failed += 1
                self._not_before = time.monotonic() + min(_AGAIN_SECONDS, 2.0**self._num_failed / 2)
                if self._num_failed >= len(workers) and not any(one.has_served and one.is_alive() for one in workers):
                    self.exit_code = 1
                    self.should_exit.set()
                    return
            self.processes[place] = self._started()

    def join_all(self) -> None:
        """Wait for the workers to end, and kill those that take too long."""
        until = time.monotonic() + self._stop_seconds
        for worker in self.processes:
            worker.process.join(max(0.1, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(1)

    def handle_hup(self) -> None:
        """End as at SIGTERM: a terminal that goes is no order to load the network again."""
        self.handle_term()

    def handle_ttin(self) -> None:
        """Do nothing: the number of workers is what was asked for."""

    def handle_ttou(self) -> None:
        """Do nothing: the number of workers is what was asked for."""
