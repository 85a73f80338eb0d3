"""Sizes and batches inside a stage, as pure functions of the step: what the loop and the loader both go by.

A stage with `sizes` trains at several. The sizes of an epoch follow from (seed, stage, epoch) alone, so every process
and every resumed run has the same ones.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Stage
from fixres.data.sampling import num_epoch_samples, uniforms
from fixres.data.splits import Split
from fixres.errors import UserError, counted

WINDOW_WIDTH = 0.65
"""Standard deviation of the sliding window, in places of the list of sizes, as in timm's multi-resolution training."""
WINDOW_UNIFORM = 0.1
"""Share of the batches of a sliding window that is drawn from all sizes."""
BATCH_MULTIPLE = 8
_DRAWS = 3
"""Last coordinate of what is drawn, so that it has nothing to do with the order of the same epoch."""


class Place(NamedTuple):
    """Where a step is: its epoch, and which entries of the epoch's order the batch holds."""

    epoch: int
    start: int
    """First entry; the batch holds `start` ... `start + batch_size - 1` of `epoch_indices`."""
    size: int
    batch_size: int


@dataclass(frozen=True)
class Choice:
    """A size and its global batch, with the share of an epoch's batches that have it."""

    size: int
    batch_size: int
    weight: float = 1.0


@dataclass(frozen=True)
class Timeline:
    """All steps of a stage. Small enough to be sent to every loader process."""

    choices: tuple[tuple[Choice, ...], ...]
    """What each epoch draws from; one choice, and there is nothing to draw."""
    first_steps: tuple[int, ...]
    """First step of each epoch, and last the number of all steps."""
    num_samples: int
    """Pictures in an epoch; what does not fill a batch is dropped."""
    coordinates: tuple[int, int]
    """Seed and index of the stage."""

    @property
    def num_epochs(self) -> int:
        """Epochs of the stage."""
        return len(self.choices)

    @property
    def total_steps(self) -> int:
        """Steps of the stage."""
        return self.first_steps[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size that can occur, smallest first."""
        return tuple(sorted({choice.size for choices in self.choices for choice in choices}))

    def epoch_of(self, step: int) -> int:
        """Return the epoch of `step`, from 0; a step behind the last one counts as the epoch after the last."""
        return bisect_right(self.first_steps, step) - 1 if step < self.total_steps else self.num_epochs

    def steps_in(self, epoch: int) -> int:
        """Return the number of steps of an epoch."""
        return self.first_steps[epoch + 1] - self.first_steps[epoch]

    def is_epoch_end(self, step: int) -> bool:
        """Return whether an epoch is over after `step` steps."""
        return step > 0 and self.first_steps[self.epoch_of(step)] == step

    def epochs_done(self, step: int) -> float:
        """Return the epochs done after `step` steps, a fraction within an epoch."""
        epoch = self.epoch_of(step)
        if epoch == self.num_epochs:
            return float(epoch)
        return epoch + (step - self.first_steps[epoch]) / self.steps_in(epoch)

    def steps_after(self, epochs: float) -> int:
        """Return the steps of that many epochs, whole or not, rounded to the nearest."""
        whole = min(math.floor(epochs), self.num_epochs)
        if whole == self.num_epochs:
            return self.total_steps
        return round(self.first_steps[whole] + (epochs - whole) * self.steps_in(whole))

    def at(self, step: int) -> Place:
        """Return where `step` (0 ... total_steps - 1) is."""
        epoch = self.epoch_of(step)
        batch = step - self.first_steps[epoch]
        drawn, starts = _drawn(self.choices[epoch], self.num_samples, *self.coordinates, epoch)
        chosen = self.choices[epoch][drawn[batch]]
        return Place(epoch, int(starts[batch]), chosen.size, chosen.batch_size)


def steps_per_epoch(split: Split, stage: Stage, key: str = "train") -> int:
    """Return the number of full batches in an epoch of the stage that the recipe calls `key`.

    Raises:
        UserError: the batch is larger than the epoch.
    """
    num_samples = num_epoch_samples(len(split), stage.epoch_samples)
    if stage.batch_size > num_samples:
        epoch = f"the split '{split.name}' ({counted(len(split), 'picture')})"
        if stage.epoch_samples != 1.0:
            epoch = f"an epoch of {num_samples} samples ({key}.epoch_samples {stage.epoch_samples})"
        raise UserError(
            f"{key}.batch_size {stage.batch_size} is larger than {epoch}\n"
            f"  --{key}.batch_size {num_samples} is the largest that works"
        )
    return num_samples // stage.batch_size


def stage_timeline(
    split: Split, stage: Stage, size: int, *, seed: int, stage_index: int, key: str = "train"
) -> Timeline:
    """Return the steps of a stage whose own size is `size`, over `split`.

    Raises:
        UserError: a batch is larger than the epoch.
    """
    steps_per_epoch(split, stage, key)
    num_samples = num_epoch_samples(len(split), stage.epoch_samples)
    return make_timeline(stage, size, num_samples, seed=seed, stage_index=stage_index)


def make_timeline(stage: Stage, size: int, num_samples: int, *, seed: int, stage_index: int) -> Timeline:
    """Return the timeline of a stage.

    Args:
        stage: its settings.
        size: the stage's own size in pixels, decided where the recipe says auto.
        num_samples: pictures in an epoch.
        seed: seed of the run.
        stage_index: number of the stage among those that run.

    Raises:
        UserError: a batch is larger than the epoch.
    """
    choices = tuple(_choices(stage, size, epoch) for epoch in range(stage.epochs))
    largest = max((choice for epoch in set(choices) for choice in epoch), key=lambda choice: choice.batch_size)
    if largest.batch_size > num_samples:
        raise UserError(
            f"a batch of {largest.batch_size} at {largest.size} px is larger than an epoch of {num_samples} pictures\n"
            "  lower batch_size, or batch_sizes of a stage with several sizes"
        )
    steps = [len(_drawn(each, num_samples, seed, stage_index, epoch)[0]) for epoch, each in enumerate(choices)]
    first_steps = (0, *itertools.accumulate(steps))
    return Timeline(choices, first_steps, num_samples, (seed, stage_index))


def area_batch(batch_size: int, size: int, other: int) -> int:
    """Return the batch at `other` px with about the pixels of `batch_size` at `size` px, not more.

    A multiple of 8 from 8 on, an even number below, at least 2; `batch_size` itself at the same size.
    """
    if other == size:
        return batch_size
    exact = math.floor(batch_size * (size / other) ** 2 + 1e-9)
    multiple = BATCH_MULTIPLE if exact >= BATCH_MULTIPLE else 2
    return max(2, exact // multiple * multiple)


def _choices(stage: Stage, size: int, epoch: int) -> tuple[Choice, ...]:
    """Return what the batches of an epoch are drawn from."""
    if not stage.sizes:
        return (Choice(size, stage.batch_size),)
    rule = stage.size_schedule
    if rule == "progressive":
        return (_with_batch(stage, size, progressive_size(stage, epoch)),)
    every = tuple(_with_batch(stage, size, other, place) for place, other in enumerate(stage.sizes))
    if rule == "step":
        return (every[step_place(stage, epoch)],)
    weights = stage.size_weights or (1.0,) * len(every)
    if rule == "window":
        weights = window_weights(len(every), epoch / max(1, stage.epochs - 1))
    return tuple(replace(c, weight=w) for c, w in zip(every, weights, strict=True) if w > 0)


def _with_batch(stage: Stage, size: int, other: int, place: int | None = None) -> Choice:
    if stage.batch_sizes and place is not None:
        return Choice(other, stage.batch_sizes[place])
    if stage.batch_rule == "area":
        return Choice(other, area_batch(stage.batch_size, size, other))
    return Choice(other, stage.batch_size)


def step_place(stage: Stage, epoch: int) -> int:
    """Return which of `stage.sizes` an epoch has: the last that has begun."""
    num = len(stage.sizes)
    begins = stage.size_epochs or tuple(place * stage.epochs // num for place in range(num))
    return bisect_right(begins, epoch) - 1


def progressive_size(stage: Stage, epoch: int) -> int:
    """Return the size of an epoch between the first and the last: linear in the epoch, in multiples.

    Constant before the start and after the end of the ramp, which is the whole stage unless `size_epochs` says.
    """
    first, last = stage.sizes
    start, end = stage.size_epochs or (0.0, stage.epochs - 1.0)
    if epoch >= end:
        return last
    if epoch <= start:
        return first
    exact = first + (last - first) * (epoch - start) / (end - start)
    multiple = math.floor(exact / stage.size_multiple + 0.5) * stage.size_multiple
    return min(max(multiple, min(first, last)), max(first, last))


def window_weights(num: int, progress: float) -> tuple[float, ...]:
    """Return how often each of `num` sizes is drawn when `progress` (0 to 1) of a stage is done; they sum to 1.

    A Gaussian around the place that moves from the first to the last, and a tenth spread over all.
    """
    heights = [math.exp(-0.5 * ((place - progress * (num - 1)) / WINDOW_WIDTH) ** 2) for place in range(num)]
    return tuple((1 - WINDOW_UNIFORM) * height / sum(heights) + WINDOW_UNIFORM / num for height in heights)


@lru_cache(maxsize=2)
def _drawn(
    choices: tuple[Choice, ...], num_samples: int, seed: int, stage_index: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the choice and the first entry of every batch of an epoch that fits, int64 each."""
    batches = np.array([choice.batch_size for choice in choices])
    bounds = np.cumsum([choice.weight for choice in choices])
    most = num_samples // int(batches.min())
    # One choice is every batch's: nothing is drawn.
    uniform = uniforms(most, seed, stage_index, epoch, _DRAWS) if len(choices) > 1 else np.zeros(most)
    drawn = np.searchsorted(bounds / bounds[-1], uniform, side="right").astype(np.int64)
    ends = np.cumsum(batches[drawn])
    num = int(np.searchsorted(ends, num_samples, side="right"))
    return drawn[:num], (ends - batches[drawn])[:num]
