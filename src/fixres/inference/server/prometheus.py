"""Counters in Prometheus' text format, summed over the worker processes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from fixres.errors import fixres_version
from fixres.inference.server.schemas import MEANINGS

ENDPOINTS = ("/v1/predict", "/v1/predict/batch", "/v1/compare", "/v1/model", "other")
STATUSES = (200, *MEANINGS)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of answers to the first three endpoints."""
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable by which prometheus_client, when imported, learns where several workers keep their counters."""


class Meters:
    """The counters of one worker, kept in `folder` where there are several."""

    def __init__(self, folder: str = "") -> None:
        disable_created_metrics()
        own = CollectorRegistry()
        self.pictures = Counter("fixres_pictures", "Pictures computed.", registry=own)
        self.batches = Counter("fixres_batches", "Batches computed.", registry=own)
        self.batch_seconds = Counter("fixres_batch_seconds", "Seconds spent in the network.", registry=own)
        self.degraded = Counter("fixres_degraded", "Requests answered at a smaller size for being busy.", registry=own)
        labels = ("endpoint", "status")
        self._requests = Counter("fixres_requests", "Answers by endpoint and status.", labels, registry=own)
        for endpoint in ENDPOINTS:
            self._requests.labels(endpoint, STATUSES[0])
        what = "From the request to its answer."
        self._answer_seconds = Histogram("fixres_answer_seconds", what, buckets=SECONDS, registry=own)
        self._waiting, self._held_bytes, self._resident_bytes = (
            Gauge(f"fixres_{name}", what, registry=own, multiprocess_mode="livesum")
            for name, what in (
                ("waiting", "Pictures in the queue."),
                ("held_bytes", "Bytes of requests held."),
                ("resident_bytes", "Memory."),
            )
        )
        version = Gauge("fixres_info", "Version of the server.", ("version",), registry=own, multiprocess_mode="max")
        version.labels(fixres_version()).set(1)
        self._folder = folder
        self._shown = CollectorRegistry() if folder else own
        if folder:
            MultiProcessCollector(self._shown, folder)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        endpoint = path if path in ENDPOINTS else "other"
        self._requests.labels(endpoint, status if status in STATUSES else 500).inc()
        if endpoint in ENDPOINTS[:3]:
            self._answer_seconds.observe(seconds)

    def set_gauges(self, waiting: int, held_bytes: int) -> None:
        """Record what is true now."""
        self._waiting.set(waiting)
        self._held_bytes.set(held_bytes)
        self._resident_bytes.set(resident_bytes())

    def text(self) -> str:
        """Return the page Prometheus reads."""
        if self._folder:
            # Counters of a worker that has gone still count; what was true of it then does not.
            for path in Path(self._folder).glob("gauge_livesum_*.db"):
                pid = int(path.stem.rpartition("_")[2])
                if not _is_running(pid):
                    mark_process_dead(pid, self._folder)
        # Bounds and counts as Prometheus' other clients write them: 1 and not 1.0.
        return re.sub(r'(le="\d+| \d+)\.0(?="|$)', r"\1", generate_latest(self._shown).decode(), flags=re.MULTILINE)


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
