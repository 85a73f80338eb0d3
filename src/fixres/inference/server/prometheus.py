"""Counters in Prometheus' text format, summed over the worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fixres.errors import fixres_version
from fixres.inference.server.problem_details import MEANINGS

ENDPOINTS = ("/v1/predict", "/v1/predict/batch", "/v1/compare", "/v1/model", "other")
STATUSES = (200, *MEANINGS)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, float("inf"))
"""Upper bounds of the histogram of answers to the first three endpoints."""
_COUNTERS = ("pictures", "batches", "batch_seconds", "answer_seconds", "answers")
_NAMES = [f"{endpoint} {status}" for endpoint in ENDPOINTS for status in STATUSES]
_NAMES += [*_COUNTERS, *(f"within {bound}" for bound in SECONDS)]
_GAUGES = ("waiting", "held_bytes", "resident_bytes")
_PLACE = {name: place for place, name in enumerate([*_NAMES, *_GAUGES])}


class Meters:
    """The counters of one worker, in a file of its own where there are several."""

    def __init__(self, folder: str = "") -> None:
        self._folder = Path(folder) if folder else None
        if self._folder is None:
            self._values = np.zeros(len(_PLACE))
        else:
            path = self._folder / f"{os.getpid()}.meters"
            self._values = np.memmap(path, dtype=np.float64, mode="w+", shape=(len(_PLACE),))

    def add(self, name: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        self._values[_PLACE[name]] += amount

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        endpoint = path if path in ENDPOINTS else "other"
        self.add(f"{endpoint} {status if status in STATUSES else 500}")
        if endpoint in ENDPOINTS[:3]:
            self.add("answers")
            self.add("answer_seconds", seconds)
            self.add(f"within {next(bound for bound in SECONDS if seconds <= bound)}")

    def set_gauges(self, waiting: int, held_bytes: int) -> None:
        """Record what is true now."""
        self._values[_PLACE["waiting"]] = waiting
        self._values[_PLACE["held_bytes"]] = held_bytes
        self._values[_PLACE["resident_bytes"]] = resident_bytes()

    def text(self) -> str:
        """Return the page Prometheus reads."""
        values = self._sum()
        lines = [
            "# HELP fixres_info Version of the server.",
            "# TYPE fixres_info gauge",
            f'fixres_info{{version="{fixres_version()}"}} 1',
            "# HELP fixres_requests_total Answers by endpoint and status.",
            "# TYPE fixres_requests_total counter",
        ]
        for endpoint in ENDPOINTS:
            for status in STATUSES:
                if values[f"{endpoint} {status}"] or status == STATUSES[0]:
                    labels = f'endpoint="{endpoint}",status="{status}"'
                    lines.append(f"fixres_requests_total{{{labels}}} {values[f'{endpoint} {status}']:.0f}")
        lines += _counter("pictures_total", "Pictures computed.", values["pictures"])
        lines += _counter("batches_total", "Batches computed.", values["batches"])
        lines += _counter("batch_seconds_total", "Seconds spent in the network.", values["batch_seconds"])
        lines += [
            "# HELP fixres_answer_seconds From the request to its answer.",
            "# TYPE fixres_answer_seconds histogram",
        ]
        below = np.cumsum([values[f"within {bound}"] for bound in SECONDS])
        for bound, count in zip(SECONDS, below, strict=True):
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'fixres_answer_seconds_bucket{{le="{label}"}} {count:.0f}')
        lines.append(f"fixres_answer_seconds_sum {values['answer_seconds']:.6f}")
        lines.append(f"fixres_answer_seconds_count {values['answers']:.0f}")
        for name, what in zip(_GAUGES, ("Pictures in the queue.", "Bytes of requests held.", "Memory."), strict=True):
            lines += [
                f"# HELP fixres_{name} {what}",
                f"# TYPE fixres_{name} gauge",
                f"fixres_{name} {values[name]:.0f}",
            ]
        return "\n".join(lines) + "\n"

    def _sum(self) -> dict[str, float]:
        if self._folder is None:
            rows = {os.getpid(): self._values}
        else:
            rows = {}
            for path in self._folder.glob("*.meters"):
                row = np.fromfile(path, dtype=np.float64)
                if len(row) == len(_PLACE):
                    rows[int(path.stem)] = row
        first_gauge = len(_NAMES)
        total = np.zeros(len(_PLACE))
        for pid, row in rows.items():
            total[:first_gauge] += row[:first_gauge]
            # Counters of a worker that has gone still count; what was true of it then does not.
            if _is_running(pid):
                total[first_gauge:] += row[first_gauge:]
        return {name: float(total[place]) for name, place in _PLACE.items()}


def _counter(name: str, what: str, value: float) -> list[str]:
    number = f"{value:.0f}" if value == round(value) else f"{value:.6f}"
    return [f"# HELP fixres_{name} {what}", f"# TYPE fixres_{name} counter", f"fixres_{name} {number}"]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def resident_bytes() -> int:
    """Return the memory of this process in bytes, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
