"""Signals that ask a run to stop. They are noted, and looked at where the run can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")


class StopSignals:
    """While entered, notes the first SIGTERM, SIGINT or SIGUSR1; a second Ctrl-C interrupts at once.

    Only the main thread of a program may do so; elsewhere nothing is noted.
    """

    def __init__(self) -> None:
        self.received = ""
        """Name of the first signal; empty while there was none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for name in NAMES:
                # Windows has no SIGUSR1.
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name
