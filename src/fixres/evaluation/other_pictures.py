"""Other pictures that a network is measured on beside its own: further collections, and its own pictures spoiled.

What a larger size or a fix gains on one kind of pictures it can lose on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.splits import Split
from fixres.data.test_time_augmentation import Corruption, make_view, parse_corruptions
from fixres.errors import UserError
from fixres.evaluation.evaluate import NetworkView, Reading, evaluate
from fixres.io.progress import Progress
from fixres.runtime.device import Runtime


@dataclass(frozen=True)
class Column:
    """One kind of other pictures."""

    name: str
    """The data URI, or what was done to the network's own pictures."""
    split: Split
    corruption: Corruption | None = None

    def top1(
        self, views: Sequence[NetworkView], runtime: Runtime, reading: Reading, progress: Progress | None = None
    ) -> list[float]:
        """Return how many percent of these pictures every view is right about."""
        seen = [replace(view, preprocess=make_view(view.preprocess, "none", self.corruption)) for view in views]
        return [result["top1"] for result in evaluate(seen, self.split, runtime, reading, progress).results]


def columns_of(others: Mapping[str, Split], corrupt: str, own: Split) -> tuple[Column, ...]:
    """Return what is to be measured beside `own`: further collections by name, and `own` spoiled as `corrupt` says.

    Raises:
        UserError: no such corruption.
    """
    spoiled = [Column(str(kind), own, kind) for kind in parse_corruptions(corrupt)]
    return (*(Column(name, split) for name, split in others.items()), *spoiled)


def open_elsewhere(uri: str, classes: tuple[str, ...], data: Data, key: str) -> Split:
    """Return the reported pictures of another collection, read as those of `data` are.

    Raises:
        UserError: it cannot be opened, has other classes, or holds no picture; `key` of the recipe names it.
    """
    collection = open_collection(Data(uri=uri, exif=data.exif, alpha=data.alpha), classes=classes, for_training=False)
    split = collection.split(collection.report)
    if not len(split):
        raise UserError(f"{uri} has no picture to measure on\n  leave it out of {key}")
    return split
