"""Which network, at which size and crop, has the features that tell these classes apart: the first thing to find out.

Nothing is trained. The trunk runs over pictures once, and heads are solved on what comes out, each measured on pictures
that it was not solved on. Cells, a network at a size and a crop ratio, run the cheapest first, on a stratified sample
that grows; cells that a cheaper one beats are dropped (successive halving, Jamieson and Talwalkar 2016).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fixres.data.loader import evaluation_batches
from fixres.data.splits import Split
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Reading
from fixres.io.progress import NamedProgress
from fixres.models.sizes import at_size, evaluation_mode, gmacs
from fixres.models.split_trunk import cut_network
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.cross_validation import CrossValidated, cross_validate, solve_head
from fixres.training.cached_solver.logistic_head import Head
from fixres.training.cached_solver.trunk import first_batch

FIRST_SIZE = 128
"""Side in pixels of the first cell, of the network that costs least there, or the nearest that is measured."""
CROP_RATIOS = (1.0, 0.875)
RUNGS = (600, 2000, 6000)
"""Pictures of the sample that cells are measured on, one number after the other; never more than the last."""
_PER_CLASS = 10
"""Pictures of a class, on average, that the first sample has at least."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Network:
    """A network with weights that may pay, and how it is fed."""

    name: str
    """timm architecture."""
    weights: str
    """As in model.weights."""
    model: nn.Module
    preprocess: Preprocess
    """At any size and crop ratio."""


@dataclass
class Cell:
    """A network at a size and a crop ratio, and what was found."""

    network: Network
    size: int
    crop_ratio: float
    gmacs: float
    state: Literal["measured", "dropped", "not run"] = "not run"
    why: str = "no time left"
    """Why it went no further; empty: it was measured on the largest sample."""
    ms: float = 0.0
    """Milliseconds a picture of the trunk, the median over batches; one number for a network at a size."""
    seconds: float = 0.0
    found: CrossValidated | None = None
    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Cross-entropy of every held-out picture after a temperature, by place in the sample; NaN where there is none."""
    features: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    places: Places = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def preprocess(self) -> Preprocess:
        """How pictures are fed to it."""
        return replace(self.network.preprocess.at(self.size), crop_ratio=self.crop_ratio)

    @property
    def loss(self) -> float:
        """Mean cross-entropy after a temperature, in nats, of pictures no head was solved on."""
        return float(np.nanmean(self.losses)) if len(self.losses) else float("inf")

    @property
    def name(self) -> str:
        """What people are told."""
        return f"{self.network.name} at {self.size} px, crop {self.crop_ratio:g}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is kept of it and shown."""
        measured = {} if self.found is None else {"top1": self.found.top1, "loss": self.loss, "how": self.found.how}
        return {
            "network": self.network.name,
            "weights": self.network.weights,
            "size": self.size,
            "crop_ratio": self.crop_ratio,
            "num_images": len(self.places),
            **measured,
            "decay": self.found.decay if self.found else None,
            "gmacs": self.gmacs,
            "ms": self.ms or None,
            "seconds": round(self.seconds, 2),
            "state": self.state,
            "why": self.why,
        }


@dataclass(frozen=True)
class Probed:
    """What the probe found."""

    cells: tuple[Cell, ...]
    """The cheapest first."""
    best: Cell
    """The one with the lowest loss, of those measured on the largest sample."""
    pays: Cell
    """The cheapest whose loss is within one standard error of the best's."""
    why: str
    bad_images: tuple[str, ...]
    """Pictures that could not be read and were left out."""

    def head(self, cell: Cell, num_classes: int) -> Head:
        """Return the head for the classes, solved on every picture the cell was measured on."""
        assert cell.found is not None, "a cell that was measured"
        return solve_head(cell.features, cell.labels, num_classes, cell.found.decay)


@dataclass(frozen=True)
class Probe:
    """What is probed, with what, and for how long."""

    networks: Sequence[Network]
    split: Split
    """The pictures heads are solved and measured on, in folds."""
    runtime: Runtime
    reading: Reading
    sizes: Sequence[int]
    """Sides in pixels; a network passes over those it cannot take."""
    crop_ratios: Sequence[float] = CROP_RATIOS
    seconds: float = float("inf")
    """No cell is begun that would end later than these after the start."""
    seed: int = 0
    told: Callable[[Cell], None] = lambda cell: None
    """Called with every cell when it is measured, the first one first."""
    progress: NamedProgress = lambda what, done, total: None

    def run(self) -> Probed:
        """Measure as many cells as the time allows, the first one whatever it takes.

        Raises:
            UserError: no network can be probed at any size, or a picture cannot be read.
            Stopped: a signal came.
        """
        return _Work(self).run()


def as_good(losses: Sequence[npt.NDArray[np.float64]]) -> tuple[int, list[int]]:
    """Return the place of the lowest mean loss, and those within one standard error of it, on the same pictures.

    Args:
        losses: of every candidate, by picture; NaN where it has none. Pairs are compared on the pictures both have.
    """
    best = int(np.argmin([np.nanmean(own) for own in losses]))
    kept = []
    for place, own in enumerate(losses):
        num = min(len(own), len(losses[best]))
        difference = own[:num] - losses[best][:num]
        difference = difference[~np.isnan(difference)]
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        if place == best or difference.mean() <= error:
            kept.append(place)
    return best, kept


class _Work:
    """One probe while it runs."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.start = time.monotonic()
        self.order = _stratified_order(probe.split.labels, probe.seed)
        self.cells = _cells(probe)
        self.trunks: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}
        self.rates: dict[int, float] = {}
        """Seconds a picture and billion multiply-adds of a network, as last seen."""
        self.bad: list[str] = []

    def run(self) -> Probed:
        first = min(self.cells, key=lambda c: (abs(c.size - FIRST_SIZE), c.gmacs, -c.crop_ratio))
        rungs = self._rungs()
        self._measure([first], rungs[0])
        # Of one size together: every picture is decoded once for all of them.
        for _, group in groupby((cell for cell in self.cells if cell is not first), key=lambda c: c.size):
            if own := self._affordable(list(group), rungs[0]):
                self._measure(own, rungs[0])
        for num in rungs[1:]:
            survivors = self._survivors(num)
            if len(survivors) < 2:
                break
            for _, group in groupby(survivors, key=lambda c: c.size):
                self._measure(list(group), num)
        return self._found()

    def _rungs(self) -> list[int]:
        num = len(self.order)
        first = min(max(RUNGS[0], _PER_CLASS * len(self.probe.split.classes)), RUNGS[-1])
        return sorted({min(num, max(first, rung)) for rung in RUNGS})

    def _survivors(self, num: int) -> list[Cell]:
        """Drop what goes no further: what a cell as cheap beats, the worse half of the rest, what there is no time for.

        A cell that cannot be told from the best is never of the worse half.
        """
        measured = self._measured()
        for cell in measured:
            for other in measured:
                if other is not cell and other.gmacs <= cell.gmacs and _is_beaten(cell, by=other):
                    cell.state, cell.why = "dropped", f"{other.name} costs no more and is better"
                    break
        left = sorted(self._measured(), key=lambda c: c.loss)
        _, good = as_good([cell.losses for cell in left])
        num_kept = max(len(left) // 2, 2)
        kept = [cell for place, cell in enumerate(left) if place < num_kept or place in good]
        going_on = self._affordable(kept, num)
        if len(going_on) < 2:
            return []
        for cell in left:
            if cell not in going_on:
                half = f"among the worse half on {len(cell.places):,} pictures"
                cell.state, cell.why = "dropped", "no time for a larger sample" if cell in kept else half
        return sorted(going_on, key=lambda c: (c.size, c.gmacs))

    def _measured(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state == "measured"]

    def _affordable(self, cells: list[Cell], num: int) -> list[Cell]:
        """Return the cells, from the first on, that would end in time together."""
        left = self.probe.seconds - (time.monotonic() - self.start)
        chosen: list[Cell] = []
        for cell in cells:
            missing = num - len(cell.places)
            left -= missing * cell.gmacs * self._rate(cell.network)
            if left < 0:
                break
            chosen.append(cell)
        return chosen

    def _rate(self, network: Network) -> float:
        return self.rates.get(id(network), max(self.rates.values(), default=0.0))

    def _measure(self, cells: Sequence[Cell], num: int) -> None:
        """Bring cells that have seen as many pictures to a sample of `num`."""
        start = time.monotonic()
        for seen, group in groupby(cells, key=lambda c: len(c.places)):
            self._features(list(group), self.order[seen:num])
        for cell in cells:
            cell.found = cross_validate(
                cell.features,
                cell.labels,
                len(self.probe.split.classes),
                seed=self.probe.seed,
                between=self._require_going,
            )
            cell.losses = np.full(len(cell.labels), np.nan)
            cell.losses[cell.found.places] = cell.found.tempered_losses()
            cell.state, cell.why = "measured", ""
        share = (time.monotonic() - start) / sum(cell.gmacs for cell in cells)
        for cell in cells:
            cell.seconds += share * cell.gmacs
            self.probe.told(cell)

    def _features(self, cells: Sequence[Cell], places: Places) -> None:
        """Run the trunks of cells over pictures that they have not seen."""
        probe, runtime = self.probe, self.probe.runtime
        part = probe.split.take(probe.split.name, places)
        views = [cell.preprocess for cell in cells]
        made: list[list[Tensor]] = [[] for _ in cells]
        times: list[list[float]] = [[] for _ in cells]
        labels: list[Tensor] = []
        read: list[Tensor] = []
        done = 0
        policy = probe.reading.policy
        with closing(evaluation_batches(part, views, probe.reading.batch_size, policy, self.bad)) as batches:
            for images, own, indices in batches:
                for number, cell in enumerate(cells):
                    pixels = normalise(runtime.images(images[number]), cell.preprocess.mean, cell.preprocess.std)
                    start = time.perf_counter()
                    with torch.inference_mode(), runtime.autocast():
                        made[number].append(self._trunk(cell)(pixels).float().cpu())
                    times[number].append((time.perf_counter() - start) / len(own))
                labels.append(own)
                read.append(indices)
                done += len(own)
                probe.progress(f"probing at {cells[0].size} px", done, len(part))
                self._require_going()
        if not labels:
            raise UserError(f"none of {len(part)} pictures can be read, from {part.paths[0]} on")
        seen = places[torch.cat(read).numpy()]
        for number, cell in enumerate(cells):
            cell.features = torch.cat([cell.features, *made[number]]) if len(cell.places) else torch.cat(made[number])
            cell.labels = torch.cat([cell.labels, *labels])
            cell.places = np.concatenate([cell.places, seen])
            steady = sorted(times[number][1:] or times[number])
            self._keep_speed(cell, steady[len(steady) // 2])

    def _keep_speed(self, cell: Cell, seconds: float) -> None:
        """Keep what a picture took: one number for a network at a size, the first that was measured."""
        same = [c for c in self.cells if c.network is cell.network and c.size == cell.size and c.ms]
        cell.ms = same[0].ms if same else 1000 * seconds
        for other in self.cells:
            if other.network is cell.network and other.size == cell.size:
                other.ms = cell.ms
        self.rates[id(cell.network)] = cell.ms / 1000 / cell.gmacs

    def _trunk(self, cell: Cell) -> Callable[[Tensor], Tensor]:
        """Return what gives the features in front of the head, folded where that gives the network's own values."""
        key = id(cell.network), cell.size
        if key not in self.trunks:
            probe = self.probe
            model = probe.runtime.place(at_size(cell.network.model, cell.size))
            with evaluation_mode(model):
                images = first_batch(probe.split, cell.preprocess, probe.runtime, replace(probe.reading, batch_size=8))
                self.trunks[key] = cut_network(model, (), images).features
            model.eval()
        return self.trunks[key]

    def _require_going(self) -> None:
        if self.probe.runtime.stop.received:
            raise Stopped

    def _found(self) -> Probed:
        last = self._measured()
        place, kept = as_good([cell.losses for cell in last])
        best, pays = last[place], min((last[k] for k in kept), key=lambda c: c.gmacs)
        why = f"the lowest loss of {len(last)} ({best.loss:.3f})"
        if pays is not best:
            lowest = f"the lowest ({best.loss:.3f}, {best.name})"
            why = f"loss {pays.loss:.3f}, within one standard error of {lowest}, and cheaper"
        return Probed(tuple(self.cells), best, pays, why, tuple(self.bad))


def _is_beaten(cell: Cell, by: Cell) -> bool:
    num = min(len(cell.losses), len(by.losses))
    difference = cell.losses[:num] - by.losses[:num]
    difference = difference[~np.isnan(difference)]
    return len(difference) > 1 and difference.mean() > difference.std(ddof=1) / np.sqrt(len(difference))


def _cells(probe: Probe) -> list[Cell]:
    """Return the cells there are, the cheapest first.

    Raises:
        UserError: no network takes any of the sizes.
    """
    cells, refusal = [], None
    for network in probe.networks:
        for size in sorted(probe.sizes):
            try:
                work = gmacs(at_size(network.model, size), size)
            except UserError as error:
                refusal = error
                continue
            ratios = probe.crop_ratios if network.preprocess.is_cropped else (network.preprocess.crop_ratio,)
            cells += [Cell(network, size, ratio, work) for ratio in ratios]
    if not cells:
        raise refusal or UserError("there is no network to probe")
    return sorted(cells, key=lambda c: (c.size, c.gmacs, -c.crop_ratio))


def _stratified_order(labels: Places, seed: int) -> Places:
    """Return an order of the pictures in which every beginning has the classes in their proportion, int64 `[N]`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    counts = np.bincount(labels)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / counts[label]
    return np.lexsort((order, place)).astype(np.int64)
