"""The cells of a probe: which networks are measured at which sizes and crops, and what was found for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import nn

from fixres.config.loading import validate
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.models.sizes import at_size, gmacs, legal_sizes
from fixres.models.small_networks import PretrainedNetwork
from fixres.resolution import Preprocess, is_worse, one_error_rule
from fixres.training.initial_weights import starting_network

SIZES = (96, 128, 160, 192, 224)
CROP_RATIOS = (0.875, 1.0)
FIRST_SIZE = 128
"""Side in pixels of the first cell, whose head is the first product."""

State = Literal["measured", "sample", "not run"]
Loader = Callable[[PretrainedNetwork], tuple[nn.Module, Preprocess]]
"""Returns a network and how it is fed at test time."""


@dataclass(frozen=True)
class Cell:
    """One network at one size and crop."""

    network: PretrainedNetwork
    preprocess: Preprocess
    gmacs: float
    wanted: int
    """Side in pixels that was asked for, of which `size` is the nearest that the network takes."""

    @property
    def size(self) -> int:
        """Side in pixels of what the network sees."""
        return self.preprocess.size

    @property
    def kind(self) -> tuple[PretrainedNetwork, float]:
        """Network and crop ratio: what is the same at every size."""
        return self.network, self.preprocess.crop_ratio

    def __str__(self) -> str:
        return f"{self.network.label} at {self.size} px, crop {self.preprocess.crop_ratio:g}"


@dataclass(frozen=True, eq=False)
class Row:
    """What is known of a cell. Figures are of pictures that no head was solved on."""

    cell: Cell
    state: State
    """`measured` on all pictures, on a `sample` of them, or `not run`."""
    why: str = ""
    """Why it was not run, or went no further."""
    how: str = ""
    """cross-validated | held out."""
    n: int = 0
    top1: float | None = None
    """Percent."""
    loss: float | None = None
    """Mean cross-entropy in nats after the cell's own temperature."""
    losses: np.ndarray | None = None
    """Of every picture, `[n]`, in the same order for all cells measured on as many."""
    decay: float | None = None
    """Strength of the head's pull."""
    ms: float | None = None
    """Milliseconds a picture of the frozen network: one figure for a network and size."""
    seconds: float = 0.0
    """What the cell took in all: decoding where it was the first of its size, network and head."""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {
            "network": self.cell.network.label,
            "model": self.cell.network.name,
            "weights": self.cell.network.weights,
            "size": self.cell.size,
            "crop_ratio": self.cell.preprocess.crop_ratio,
            "state": self.state,
            "why": self.why,
            "how": self.how,
            "n": self.n,
            "top1": self.top1,
            "loss": self.loss,
            "decay": self.decay,
            "gmacs": self.cell.gmacs,
            "ms": None if self.ms is None else round(self.ms, 3),
            "seconds": round(self.seconds, 2),
        }


class Costs(NamedTuple):
    """What a picture costs beside the network, in seconds."""

    decode: float
    """For the crops of one size: the least that any was read in."""
    head: float
    """For the heads of one cell."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The row with the least loss, which is taken; the cheapest within one standard error of it; and both in words."""

    best: Row
    cheapest: Row
    why: str


def collection_loader(collection: Collection) -> Loader:
    """Return what loads a network for a collection, its head replaced by one for the collection's classes."""

    def load(network: PretrainedNetwork) -> tuple[nn.Module, Preprocess]:
        settings = {"data": {"uri": collection.uri}, "model": {"name": network.name, "weights": network.weights}}
        start = starting_network(validate(settings), collection)
        return start.model, start.preprocess

    return load


def offer_cells(
    networks: dict[PretrainedNetwork, tuple[nn.Module, Preprocess]],
    sizes: Sequence[int],
    ratios: Sequence[float],
    first_size: int = FIRST_SIZE,
) -> list[Cell]:
    """Return the cells, the cheapest at the first size first, then by size from there upwards, by work in each size.

    Smaller sizes than the first come last: they seldom have the least loss, and would take the time of those
    that may (docs/log.md). A network that cannot take a size takes the nearest it can; where nothing is cropped there
    is one crop ratio.

    Raises:
        UserError: a network takes none of the sizes.
    """
    cells: list[Cell] = []
    for network, (model, own) in networks.items():
        for size, wanted in taken_sizes(model, sizes).items() or [(nearest_size(model, sizes[-1]), sizes[-1])]:
            work = gmacs(at_size(model, size), size)
            for ratio in ratios if own.is_cropped else (own.crop_ratio,):
                cells.append(Cell(network, replace(own, size=size, crop_ratio=ratio), work, wanted))
    cells.sort(key=lambda cell: (cell.wanted < first_size, cell.wanted, cell.gmacs))
    first = min(cells, key=lambda cell: (abs(cell.size - first_size), cell.gmacs))
    return [first, *(cell for cell in cells if cell is not first)]


def nearest_size(model: nn.Module, size: int) -> int:
    """Return the size that a network can take nearest to another.

    Raises:
        UserError: it takes none near it.
    """
    try:
        at_size(model, size)
    except UserError:
        legal = legal_sizes(model, size)
        if not legal:
            raise
        return min(legal, key=lambda other: abs(other - size))
    return size


def taken_sizes(model: nn.Module, sizes: Sequence[int]) -> dict[int, int]:
    """Return the sizes nearest to these that a network can take, each once, and the first of these that each is for.

    Where none is near one, it is left out.
    """
    found: dict[int, int] = {}
    for size in sizes:
        with suppress(UserError):
            found.setdefault(nearest_size(model, size), size)
    return found


def hopeless(row: Row, rows: Sequence[Row]) -> str:
    """Return why a row will not be chosen whatever more pictures say; empty where it may be.

    Another row on the same pictures is no dearer and better by more than one standard error of the paired difference,
    or the best is better by more than two.
    """
    assert row.losses is not None
    peers = [r for r in rows if r.n == row.n and r is not row and r.losses is not None and r.how == row.how]
    for other in peers:
        assert other.losses is not None
        if other.cell.gmacs <= row.cell.gmacs and is_worse(row.losses, other.losses):
            return f"{other.cell} is no dearer and better"
    best = min(peers, key=lambda other: float(np.mean(other.losses)), default=None)  # type: ignore[arg-type]
    if best is not None and best.losses is not None:
        difference = row.losses - best.losses
        if difference.mean() > 2 * difference.std() / np.sqrt(len(difference)):
            return f"{best.cell} is better by more than two standard errors"
    return ""


def choose(rows: Sequence[Row]) -> Choice:
    """Choose by the least loss among rows measured on the same pictures, and name what costs less within one error.

    The cheapest within one standard error would lose accuracy where pictures are few: 1.7 points on 232 (docs/log.md).
    """
    known = [row for row in rows if row.losses is not None]
    losses = np.stack([row.losses for row in known if row.losses is not None])
    best, cheapest = (known[place] for place in one_error_rule(losses, [row.cell.gmacs for row in known]))
    why = f"{best.how} loss {best.loss:.4f} ({best.top1:.1f} %) on {best.n:,} pictures, the least of all"
    if cheapest is not best:
        why += (
            f"; within one standard error of it at {cheapest.cell.gmacs / best.cell.gmacs:.2f} of its work: "
            f"{cheapest.cell} ({cheapest.loss:.4f}, {cheapest.top1:.1f} %)"
        )
    return Choice(best, cheapest, why)
