"""One line an epoch: losses, accuracy, one speed, and how long the stage still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONG_WAIT = 0.2
"""Share of the training time spent waiting for pictures above which it is said."""


@dataclass
class EpochLines:
    """The lines of the epochs of one stage, made of the events of a run."""

    plan: Mapping[str, Any]
    ended: Mapping[str, Any] = field(default_factory=dict)
    """The epoch that has ended and has no line yet."""
    trained: list[tuple[int, float]] = field(default_factory=list)
    """(steps, mean loss) of every log line of the epoch."""
    last_step: int = -1
    begun: float = field(default_factory=time.monotonic)
    first_step: int = -1

    def begin(self, step: int) -> None:
        """Note the first step that this process does: a resumed stage has done some before."""
        if self.first_step < 0:
            self.first_step = self.last_step = step - 1

    def add(self, event: Mapping[str, Any]) -> None:
        """Note a log line."""
        self.begin(event["step"])
        self.trained.append((max(1, event["step"] - self.last_step), event["loss"]))
        self.last_step = event["step"]

    def _losses(self) -> list[str]:
        """Return the mean training loss of the epoch, in words, or nothing."""
        steps = sum(num for num, _ in self.trained)
        return [f"{sum(num * loss for num, loss in self.trained) / steps:.3f} train"] if steps else []

    def _of_epochs(self) -> str:
        """Return `/N`, the epochs of the stage, where they are known."""
        return f"/{self.plan['num_epochs']}" if self.plan.get("num_epochs") else ""

    def _time_left(self, step: int) -> str:
        """Return how long the rest of the stage takes at the pace so far, measuring included; empty at its end."""
        from fixres.reporting.number_format import duration

        done, total = step - self.first_step, self.plan.get("total_steps", 0)
        if self.first_step < 0 or done <= 0 or step >= total:
            return ""
        return duration((total - step) * (time.monotonic() - self.begun) / done)

    def line(self, measured: Mapping[str, Any], imbalance: Mapping[str, float]) -> str:
        """Return the one line of the epoch that has ended, and forget it.

        Args:
            measured: the event of the measurement at its end; empty where there was none.
            imbalance: of every split, how many times larger its largest class is than its smallest.
        """
        from fixres.evaluation.metrics import is_uneven

        event = {**measured, **self.ended}
        losses = self._losses()
        parts = [f"{event['stage']} epoch {event['epoch']:g}{self._of_epochs()}"]
        if measured:
            split, result = measured["split"], measured["results"][0]
            losses.append(f"{result['loss']:.3f} {split}")
            top1 = f"{split} top-1 {result['top1']:.2f} %"
            top1 += f" at {result['size']} px" if result["size"] != self.plan.get("size", result["size"]) else ""
            top1 += " (average of the weights)" if measured["weights"] == "ema" else ""
            parts += [f"loss {', '.join(losses)}", top1]
            if is_uneven(imbalance.get(split)):
                parts.append(f"balanced {result['balanced_accuracy']:.2f} %")
        elif losses:
            parts.append(f"loss {losses[0]}")
        if self.ended:
            parts.append(f"{self.ended['fps']:.0f} img/s")
            wait = self.ended.get("data_wait_ratio", 0.0)
            parts += [f"{100 * wait:.0f} % of it waiting for pictures"] if wait > LONG_WAIT else []
        parts += [f"{left} left"] if (left := self._time_left(event["step"])) else []
        self.ended, self.trained = {}, []
        return "  " + "  ".join(parts)
