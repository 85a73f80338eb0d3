"""How fast the network that pays is at every size, from one that was measured, and what a training brings beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.experiments.measured_speed import measured_rate
from fixres.experiments.time_plan import Pace
from fixres.models.build import build_model
from fixres.models.sizes import at_size, gmacs
from fixres.training.probe_cells import SIZES

_READING = 1.3
"""How much longer a pass takes than its network alone."""
_LARGER = 1.2
"""Crops of 35 to 100 % of the area show objects 1 / 0.83 times as large as the whole picture does."""
_STEPS = 3
"""Measured steps of training, of which the first does not count."""


def fix_size(train_size: int) -> int:
    """Return the first size to probe at which objects look at least as large as in the crops of `_TRAINING`."""
    return next((size for size in SIZES if size >= _LARGER * train_size), SIZES[-1])


class Speeds:
    """Seconds a picture by size, in proportion to multiply-adds from the one size where they were measured."""

    def __init__(self, name: str, measured: tuple[int, float], probe_size: int, collection: Collection) -> None:
        """Take what is known.

        Args:
            name: architecture.
            measured: a size in pixels, and the seconds a picture took the network there, reading not included.
            probe_size: size in pixels at which a head is solved on the starting network in the end; 0: at none.
            collection: its splits are what has to be gone through.
        """
        self.measured, self.probe_size, self.num_classes = measured, probe_size, len(collection.classes)
        splits = collection.split("train"), collection.split(collection.select), collection.split(collection.report)
        self.num_train, self.num_select, self.num_report = map(len, splits)
        with torch.device("meta"):
            self.model = build_model(name, 2)

    def seconds(self, size: int) -> float:
        """Return what a picture takes that is measured or turned into features, reading included."""
        at, known = self.measured
        return _READING * max(known, 1e-6) * self._work(size) / self._work(at) if size else 0.0

    def _work(self, size: int) -> float:
        return gmacs(at_size(self.model, size), size)

    def overhead(self, size: int) -> float:
        """Return the seconds of all but training: two heads before it, fix and control after it, and measurements."""
        train, fix, probe = map(self.seconds, (size, fix_size(size), self.probe_size))
        solved = self.num_train * (2 * train + fix + probe)
        selected = self.num_select * (3 * train + 3 * fix + probe)
        return solved + selected + self.num_report * (3 * train + 2 * fix + probe)

    def paces(self, sizes: Sequence[int], recipe: Recipe) -> list[Pace]:
        """Return the pace of training at every size, from a few steps of the recipe at the first."""
        rate = steps_rate(recipe, sizes[0], self.num_classes) / _READING
        first = self.seconds(sizes[0])
        return [
            Pace(size, 1 / self.seconds(size), rate * first / self.seconds(size), self.overhead(size)) for size in sizes
        ]


def steps_rate(recipe: Recipe, size: int, num_classes: int) -> float:
    """Return pictures a second of a few training steps of a recipe at a size; reading is not in it."""
    return measured_rate(recipe, recipe.train, size, num_classes, recipe.train.batch_size, _STEPS)
