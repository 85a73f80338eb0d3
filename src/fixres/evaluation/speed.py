"""How fast the networks of an evaluation were, and what makes such a figure one not to be trusted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fixres.runtime.cpus import OtherWork

_WIDE = 1.3
"""From this ratio of the quartiles on, the spread of a speed is worth a line."""
_BUSY = 0.2
"""Of the processors of a process: where others leave it fewer by this share, that is worth a line."""
_MIN_SECONDS = 2.0
"""Evaluations that are shorter say nothing about the machine."""


class Stopwatch:
    """The seconds of every batch in one process, and what other programs used of the machine meanwhile."""

    def __init__(self, num_views: int) -> None:
        self._laps: list[list[float]] = [[] for _ in range(num_views)]
        self._others = OtherWork()
        self.missing = 0.0
        """The share of this process's processors that others left it without, once it is stopped."""

    @contextmanager
    def lap(self, view: int) -> Iterator[None]:
        """Time one batch of a view."""
        start = time.perf_counter()
        yield
        self._laps[view].append(time.perf_counter() - start)

    def stop(self) -> None:
        """End the look at the machine."""
        self.missing = self._others.missing() if self._others.seconds() >= _MIN_SECONDS else 0.0

    def warm(self, view: int) -> list[float]:
        """Return the seconds of a view's batches but for the first, which warms up, unless that is all there is."""
        return self._laps[view][1:] or self._laps[view]


def images_per_second(watches: Sequence[Stopwatch], view: int, shape: int) -> float:
    """Return a view's speed, the sum over processes of their median over batches, all padded to `shape` pictures."""
    return round(sum(shape / statistics.median(warm) for watch in watches if (warm := watch.warm(view))), 2)


def speed_remarks(watches: Sequence[Stopwatch], sizes: Sequence[int]) -> tuple[str, ...]:
    """Return what a reader of the speeds has to know: batches that differed much, and a machine that was busy."""
    remarks = []
    missing = max((watch.missing for watch in watches), default=0.0)
    if missing >= _BUSY:
        remarks.append(
            f"the machine was busy: other programs left {100 * (1 - missing):.0f} % of the processors that this one "
            "may use, so img/s and ms are those of a slower machine"
        )
    wide = []
    for view, size in enumerate(sizes):
        laps = [lap for watch in watches for lap in watch.warm(view)]
        if len(laps) < 4:
            continue
        low, middle, high = statistics.quantiles(laps, n=4)
        if high > _WIDE * low:
            wide.append(f"{size} px {middle / high:.2f} to {middle / low:.2f} times")
    if wide:
        remarks.append(
            f"img/s is a median; the middle half of the batches ran at {', '.join(dict.fromkeys(wide))} that"
        )
    return tuple(remarks)
