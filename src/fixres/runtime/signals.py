"""Signals that ask a run to stop. They are noted, and looked at where the run can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")

_entered: list[StopSignals] = []


class StopSignals:
    """While entered, notes the first SIGTERM, SIGINT, SIGUSR1 or SIGHUP; a second Ctrl-C interrupts at once.

    SIGHUP comes when a terminal or its connection ends; under nohup, which has it ignored, it stays ignored. Only the
    main thread of a program may do so; elsewhere nothing is noted.
    """

    def __init__(self) -> None:
        self.received = ""
        """Name of the first signal; empty while there was none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for name in NAMES:
                # Windows has no SIGUSR1 and no SIGHUP.
                if hasattr(signal, name) and not _is_ignored_hangup(name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        _entered.remove(self)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name


def _is_ignored_hangup(name: str) -> bool:
    return name == "SIGHUP" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def is_stop_requested() -> bool:
    """Return whether a signal came that the work going on in this process was asked to note."""
    return any(signals.received for signals in _entered)
