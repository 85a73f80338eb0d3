"""Loss, speed and waiting time of the steps since the last log line, and of the epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from torch import Tensor


class ThroughputMeter:
    """Loss, speed and waiting time since the last log line, and the waiting time of the whole stage."""

    def __init__(self) -> None:
        self.is_first = True
        self.stage_seconds = self.stage_waiting = 0.0
        self.losses: list[float] = []
        """Of the steps since the last log line; part of what a checkpoint holds."""
        self.restart()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the speed of the epoch before."""
        self.speed = EpochSpeed()
        self.epoch_seconds = self.epoch_waiting = 0.0

    def epoch(self) -> dict[str, float]:
        """Return the fields of an epoch event: FPS as the Ascend port counts them, and the time it took."""
        return {
            "fps": round(self.speed.fps(), 2),
            "seconds": round(self.epoch_seconds, 3),
            "data_wait_ratio": round(self.epoch_waiting / max(1e-9, self.epoch_seconds), 4),
        }

    def restart(self) -> None:
        """Start the clock again, so that time spent measuring does not count as training."""
        self.num_images = 0
        self.start = self.step_start = time.perf_counter()
        self.waiting = 0.0

    def fetch(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the next batch, timing the wait for it."""
        start = time.perf_counter()
        batch = next(batches)
        if self.is_first:
            # Starting the workers is not waiting for pictures.
            self.is_first = False
            self.restart()
        else:
            waited = time.perf_counter() - start
            self.waiting += waited
            self.epoch_waiting += waited
        return batch

    def wait_ratio(self) -> float:
        """Return the share of the stage's training time, what was drained, that went to waiting for pictures."""
        return round(self.stage_waiting / max(1e-9, self.stage_seconds), 4)

    def add(self, loss: float, num_images: int) -> None:
        """Record one step: its loss and the pictures of its batch."""
        now = time.perf_counter()
        self.speed.add(now - self.step_start, num_images)
        self.epoch_seconds += now - self.step_start
        self.step_start = now
        self.losses.append(loss)
        self.num_images += num_images

    def rate(self) -> float:
        """Return images per second since the last line."""
        return self.num_images / max(1e-9, time.perf_counter() - self.start)

    def drain(self) -> dict[str, float]:
        """Return the fields of a train event and start again."""
        seconds = time.perf_counter() - self.start
        fields = {
            "loss": sum(self.losses) / max(1, len(self.losses)),
            "images_per_second": round(self.rate(), 2),
            "seconds": round(seconds, 3),
            "data_wait_ratio": round(self.waiting / max(1e-9, seconds), 4),
        }
        self.stage_seconds += seconds
        self.stage_waiting += self.waiting
        self.losses = []
        self.restart()
        return fields


class EpochSpeed:
    """Images per second of an epoch as the FixRes port for Ascend counts them.

    The mean over steps of batch size / wall time of the step, data loading included; the first five steps, in which
    caches and workers warm up, are left out. An epoch of five steps or fewer leaves out its first.
    """

    NUM_WARMUP = 5

    def __init__(self) -> None:
        self._rates: list[float] = []

    def add(self, seconds: float, num_images: int) -> None:
        """Record one step: its wall time, from the end of the step before, and the images of all processes."""
        self._rates.append(num_images / seconds if seconds > 0 else 0.0)

    def fps(self) -> float:
        """Return images per second; of the only step where there is no other, 0 where there is none."""
        num_left_out = self.NUM_WARMUP if len(self._rates) > self.NUM_WARMUP else min(1, len(self._rates) - 1)
        counted = [rate for rate in self._rates[max(0, num_left_out) :] if rate > 0]
        return math.fsum(counted) / len(counted) if counted else 0.0
