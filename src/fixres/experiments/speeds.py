"""How fast the network that pays is at every size, from one that was measured, and what a training brings beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.experiments.measured_speed import measured_rate
from fixres.experiments.time_plan import Pace
from fixres.models.build import build_model
from fixres.models.sizes import at_size, gmacs
from fixres.training.probe_cells import SIZES, Row

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
    """Seconds a picture by size, in proportion to multiply-adds from what the probe measured."""

    def __init__(self, row: Row, fix_size: Callable[[int], int], collection: Collection) -> None:
        """`fix_size`: where what was trained at a size is fixed."""
        self.row, self.fix_size = row, fix_size
        self.num_classes = len(collection.classes)
        splits = collection.split("train"), collection.split(collection.select), collection.split(collection.report)
        self.num_train, self.num_select, self.num_report = map(len, splits)
        with torch.device("meta"):
            self.model = build_model(row.cell.network.name, 2)

    def seconds(self, size: int) -> float:
        """Return what a picture takes that is measured or turned into features, reading included."""
        known = _READING * max(self.row.ms or 0.0, 1e-3) / 1000
        return known * gmacs(at_size(self.model, size), size) / self.row.cell.gmacs

    def overhead(self, size: int) -> float:
        """Return the seconds of all but training: two heads before it, fix and control after it, and measurements."""
        train, fix, probe = map(self.seconds, (size, self.fix_size(size), self.row.cell.size))
        solved = self.num_train * (2 * train + fix + probe)
        selected = self.num_select * (3 * train + 3 * fix + probe)
        return solved + selected + self.num_report * (3 * train + 2 * fix + probe)

    def paces(self, sizes: Sequence[int], recipe: Recipe) -> list[Pace]:
        """Return the pace of training at every size, from a few steps of the recipe at the first."""
        batch = recipe.train.batch_size
        rate = measured_rate(recipe, recipe.train, sizes[0], self.num_classes, batch, _STEPS) / _READING
        first = self.seconds(sizes[0])
        return [
            Pace(size, 1 / self.seconds(size), rate * first / self.seconds(size), self.overhead(size)) for size in sizes
        ]
