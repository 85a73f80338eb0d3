"""How fast the network that pays is at every size, from one that was measured, and what a training brings beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import nn

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.experiments.measured_speed import measured_rate
from fixres.experiments.time_plan import Pace
from fixres.models.build import build_shape
from fixres.models.sizes import at_size, gmacs
from fixres.training.probe_cells import SIZES, Costs, Row, taken_sizes

_SLOWER = 1.2
"""How much longer a network takes in a run than in a few batches alone."""
_SLOWER_STEP, _READING_BESIDE = 1.5, 2.0
"""The same of a step, and of reading random crops, where the readers take the processors that the step wants: on two
cores 97 pictures a second were expected without these, and 67 came."""
_LARGER = 1.2
"""Crops of 35 to 100 % of the area show objects 1 / 0.83 times as large as the whole picture does."""
_PASS_SECONDS, _MEASUREMENT_SECONDS = 2.0, 0.5
"""What a pass over the pictures takes beside them, for the readers to start and the network to be cut; and a
measurement of few pictures."""
_STEPS = 3
"""Measured steps of training, of which the first does not count."""
_CROSSING_BYTES, _CACHE_BYTES = 1280 * 4, 2 << 30
"""Of one place of the map in front of the last norm, as small networks have it; of all that a stage keeps of them."""


def fix_size(train_size: int, name: str) -> int:
    """Return the first size to probe at which objects look at least as large as in the training crops.

    Where there is none, it is the largest, and never smaller than the train size. An architecture, `name`, that cannot
    take it takes the nearest it can.
    """
    size = next((size for size in SIZES if size >= _LARGER * train_size), max(SIZES[-1], train_size))
    return next(iter(sizes_for(name, size)), train_size)


@cache
def sizes_for(name: str, *sizes: int) -> list[int]:
    """Return the sizes nearest to these that an architecture can take, each once."""
    return list(taken_sizes(_shape_of(name), sizes))


@cache
def _shape_of(name: str) -> nn.Module:
    """Return an architecture without values."""
    return build_shape(name, 2)


@dataclass(frozen=True)
class Measured:
    """What a picture took at one size, in seconds."""

    size: int
    """Side in pixels."""
    network: float
    reading: float
    head: float
    """Of solving a head, beside the features it is solved on."""


class Speeds:
    """Seconds a picture by size, in proportion to multiply-adds from the one size where they were measured."""

    def __init__(self, name: str, measured: Measured, probe_size: int, collection: Collection) -> None:
        """Take what is known.

        Args:
            name: architecture.
            measured: at one size.
            probe_size: size in pixels at which a head is solved on the starting network in the end; 0: at none.
            collection: its splits are what has to be gone through.
        """
        self.measured, self.probe_size, self.num_classes = measured, probe_size, len(collection.classes)
        splits = collection.split("train"), collection.split(collection.select), collection.split(collection.report)
        self.num_train, self.num_select, self.num_report = map(len, splits)
        self.name, self.model = name, _shape_of(name)
        self._works: dict[int, float] = {}

    def seconds(self, size: int) -> float:
        """Return what a picture takes that is measured or turned into features, reading included."""
        known = self.measured
        if not size:
            return 0.0
        return _SLOWER * max(known.network, 1e-6) * self._work(size) / self._work(known.size) + known.reading

    def _work(self, size: int) -> float:
        if size not in self._works:
            self._works[size] = gmacs(at_size(self.model, size), size)
        return self._works[size]

    def overhead(self, size: int, *, has_control: bool = True) -> float:
        """Return the seconds of all but training: a head before it, the fix and control after it, and measurements."""
        train, fix, probe = map(self.seconds, (size, fix_size(size, self.name), self.probe_size))
        # A fix goes through the pictures for the statistics of the last norm, and again where too much crosses the cut.
        passes = 1 if self.num_train * (fix_size(size, self.name) / 32) ** 2 * _CROSSING_BYTES < _CACHE_BYTES else 2
        solved = self.num_train * (
            (1 + has_control * passes) * train + passes * fix + probe + (3 + has_control) * self.measured.head
        )
        selected = self.num_select * ((5 + has_control) * train + 5 * fix + 2 * probe)
        fixed = (3 + has_control) * _PASS_SECONDS + 20 * _MEASUREMENT_SECONDS
        return fixed + solved + selected + self.num_report * ((1 + has_control) * train + 2 * fix + probe)

    def solving(self, size: int) -> float:
        """Return what a training picture takes whose features a head is solved on."""
        return self.seconds(size) + 2 * self.measured.head

    def head_alone(self, size: int) -> float:
        """Return the seconds of a head on frozen features and of measuring it, where nothing is trained."""
        solved = self.num_train * self.solving(size)
        fixed = _PASS_SECONDS + 4 * _MEASUREMENT_SECONDS
        return fixed + solved + self.seconds(size) * (3 * self.num_select + self.num_report)

    def paces(self, sizes: Sequence[int], rate: float, at: int, *, is_whole: bool = True) -> list[Pace]:
        """Return the pace of training at every size, with a control and without, from the rate at the first.

        Args:
            sizes: sides in pixels.
            rate: pictures a second of training at the size `at`, reading not in it. Small sizes take longer than their
                multiply-adds, so that one in the middle tells most of the others.
            at: side in pixels.
            is_whole: whether the whole network is trained at that rate, and not its last part alone.
        """
        return [
            Pace(
                size,
                1 / self.seconds(size),
                1 / (_SLOWER_STEP / rate * self._work(size) / self._work(at) + _READING_BESIDE * self.measured.reading),
                self.overhead(size, has_control=has_control),
                has_control,
                is_whole,
            )
            for size in sizes
            for has_control in (True, False)
        ]


def steps_rate(recipe: Recipe, size: int, num_classes: int) -> float:
    """Return pictures a second of a few training steps of a recipe at a size; reading is not in it."""
    return measured_rate(recipe, recipe.train, size, num_classes, recipe.train.batch_size, _STEPS)


def speeds_of(row: Row, costs: Costs, probe_size: int, collection: Collection) -> Speeds:
    """Return the speeds of the network of a row, from what the probe measured of it."""
    known = Measured(row.cell.size, (row.ms or 0.0) / 1000, costs.decode, costs.head)
    return Speeds(row.cell.network.name, known, probe_size, collection)
