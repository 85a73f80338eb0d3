"""What has become of processes that are not this one's children."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; one that ended and that nobody has asked about yet has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def all_end_within(seconds: float, pids: Iterable[int]) -> bool:
    """Return whether every process ends in time."""
    left, until = list(pids), time.monotonic() + seconds
    while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    return not left
