"""Learning rate and averaging decay as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from fixres.config.recipe import Stage
from fixres.data.progressive_sizes import Timeline


@dataclass(frozen=True)
class Curve:
    """The learning rate of every step of a stage."""

    stage: Stage
    timeline: Timeline

    def at(self, step: int) -> float:
        """Return the learning rate of `step` (0-based), at the batch that step has."""
        batch_size = self.timeline.at(step).batch_size
        return self.planned(step) * batch_factor(batch_size / self.stage.batch_size, self.stage.batch_lr)

    def planned(self, step: int) -> float:
        """Return the learning rate of `step` for the stage's own batch: warm-up, then the shape."""
        stage = self.stage
        if stage.schedule == "points":
            return stage.lr * interpolate(stage.lr_points, self._epochs_done(step))
        warmup = self.warmup_steps
        if step < warmup:
            return stage.lr * warmup_factor(step, warmup, stage.warmup_shape)
        if stage.schedule == "constant":
            return stage.lr
        if stage.schedule == "step":
            decays = math.floor(self.timeline.epoch_of(step) / stage.decay_epochs + 1e-9)
            return max(min(stage.min_lr, stage.lr), stage.lr * stage.decay_factor**decays)
        cycles, decay = (stage.cycles, stage.cycle_decay) if stage.schedule == "restarts" else (1, 1.0)
        done = max(warmup, self._update_step(step)) - warmup
        cycle, within = divmod(done * cycles, self.timeline.total_steps - warmup)
        # A cycle that decays below the end of the cosine would rise.
        peak = max(stage.min_lr, stage.lr * decay**cycle)
        return cosine(peak, stage.min_lr, within / (self.timeline.total_steps - warmup))

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up; its epochs may be fractions."""
        return self.timeline.steps_after(self.stage.warmup_epochs)

    def _update_step(self, step: int) -> int:
        """Return the step whose rate `step` has: itself, or the first of its epoch."""
        return step if self.stage.lr_update == "step" else self.timeline.first_steps[self.timeline.epoch_of(step)]

    def _epochs_done(self, step: int) -> float:
        return self.timeline.epochs_done(self._update_step(step))


def cosine(peak: float, end: float, progress: float) -> float:
    """Return the half cosine from `peak` (progress 0) to `end` (progress 1)."""
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * progress))


def warmup_factor(step: int, steps: int, shape: str) -> float:
    """Return the factor on the peak at `step` (0-based) of a warm-up of `steps`.

    linear: (step + 1) / steps, so that no step is lost at rate 0. quadratic: (step / steps)^2, as SimpleClassification,
    whose first step has rate 0.
    """
    return (step / steps) ** 2 if shape == "quadratic" else (step + 1) / steps


def interpolate(points: tuple[tuple[float, float], ...], epoch: float) -> float:
    """Return the factor at `epoch` on the straight lines through (epoch, factor) points; the ends go on flat."""
    if epoch <= points[0][0]:
        return points[0][1]
    for (start, low), (end, high) in pairwise(points):
        if epoch <= end:
            return low + (high - low) * (epoch - start) / (end - start)
    return points[-1][1]


def batch_factor(ratio: float, rule: str) -> float:
    """Return the factor on the learning rate for a batch `ratio` times the stage's: linear, sqrt or none."""
    return ratio if rule == "linear" else math.sqrt(ratio) if rule == "sqrt" else 1.0


def is_stale(epoch: int, best_epoch: int, every_epochs: int, patience: int) -> bool:
    """Return whether a stage ends early: `patience` evaluations since the best one, or more; patience 0: never.

    Args:
        epoch: epochs done, at an evaluation.
        best_epoch: epochs done at the evaluation with the best result so far.
        every_epochs: epochs between evaluations.
        patience: evaluations without a better result that end the stage.
    """
    return patience > 0 and epoch // every_epochs - best_epoch // every_epochs >= patience


def ema_decay(step: int, *, decay: float, rule: str, ramp_steps: int = 2000) -> float:
    """Return the fraction of the average kept at update `step` (1-based).

    constant: `decay`. ramp: decay (1 - exp(-step / ramp_steps)), as SimpleClassification. timm: timm's warm-up,
    1 - (1 + step) ** (-2/3), at most `decay`; timm itself has the value of update `step` one update later, as it
    copies the weights at the first.
    """
    if rule == "constant":
        return decay
    if rule == "ramp":
        return decay * (1 - math.exp(-step / ramp_steps))
    return min(decay, 1 - 1 / math.pow(1 + step, 2 / 3))


def kept_of_start(steps: int, *, decay: float, rule: str, ramp_steps: int = 2000) -> float:
    """Return the share of an average that is still what it started from after `steps` updates by `ema_decay`.

    Less than a millionth counts as nothing.
    """
    if rule == "constant":
        return float(decay**steps)
    kept = 1.0
    for step in range(1, steps + 1):
        kept *= ema_decay(step, decay=decay, rule=rule, ramp_steps=ramp_steps)
        if kept < 1e-6:
            return 0.0
    return kept
