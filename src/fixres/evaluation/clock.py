"""How fast a network computes, the first batch left out."""

from __future__ import annotations

import time


class Clock:
    """Images per second of the network alone; the first batch, which warms up, is left out."""

    def __init__(self) -> None:
        self.num_batches = 0
        self.num_images = 0
        self.seconds = 0.0
        self._first: tuple[int, float] = (0, 0.0)

    def batch(self, num_images: int) -> _Lap:
        """Return a context manager that times one batch."""
        return _Lap(self, num_images)

    def add(self, num_images: int, seconds: float) -> None:
        """Record one batch."""
        if self.num_batches == 0:
            self._first = (num_images, seconds)
        else:
            self.num_images += num_images
            self.seconds += seconds
        self.num_batches += 1

    def rate(self) -> float:
        """Return images per second, of the first batch when there was no other."""
        images, seconds = (self.num_images, self.seconds) if self.num_batches > 1 else self._first
        return round(images / seconds, 2) if seconds > 0 else 0.0


class _Lap:
    def __init__(self, clock: Clock, num_images: int) -> None:
        self.clock = clock
        self.num_images = num_images

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.add(self.num_images, time.perf_counter() - self.start)
