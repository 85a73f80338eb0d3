"""The probe: how good new heads on the frozen features of small networks are, before anything is trained.

Cells (a network at a size and a crop) run from the cheapest on, and each finished row is handed out at once. Above
`SAMPLE` pictures all cells see a stratified sample first; those that can still be chosen go on to more pictures, as far
as the budget allows. `training/cached_solver/cross_validation.py` solves the heads and measures them on pictures they
were not solved on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.data.collections import Collection
from fixres.data.sampling import Indices, stratified_folds, stratified_order
from fixres.data.splits import Split
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Reading
from fixres.io.progress import NamedProgress
from fixres.models.sizes import at_size
from fixres.models.small_networks import PretrainedNetwork
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.cross_validation import HELD_OUT_FROM, cross_validate, solve_head
from fixres.training.cached_solver.logistic_head import Head
from fixres.training.frozen_features import Extractor, Views
from fixres.training.probe_cells import (
    CROP_RATIOS,
    FIRST_SIZE,
    SIZES,
    Cell,
    Choice,
    Costs,
    Loader,
    Row,
    choose,
    hopeless,
    offer_cells,
)

CHOICES = "choices.json"
"""In a run folder of `train PHOTOS`: what was tried, what was chosen and why, and the seconds it took."""
SAMPLE = 600
"""Pictures of the first sample; so few are measured at once."""
MOST = 10_000
"""Pictures of a split beyond which more would not change a choice, and only cost."""
_GROWTH = 3
_CHUNK = 512
"""Pictures held at a time beyond the sample."""
_HOLD_BYTES = 1 << 30
_MANY_CLASSES = 100
"""Classes above which one fold is held out: the heads of five would take longer than the features."""


@dataclass(frozen=True)
class ProbeJob:
    """What is to be probed, and with what."""

    networks: Sequence[PretrainedNetwork]
    split: Split
    """Heads are solved on it, and measured by cross-validation, with `select` where that is small."""
    load: Loader
    runtime: Runtime
    reading: Reading
    select: Split | None = None
    """From 1,000 pictures on heads are measured on it; fewer are cross-validated with the others."""
    sizes: Sequence[int] = SIZES
    crop_ratios: Sequence[float] = CROP_RATIOS
    first_size: int = FIRST_SIZE
    """Side in pixels of the first cell; smaller ones come last."""
    seconds_left: Callable[[], float] | None = None
    """Asked before each cell: one that would probably take longer is not begun; the first always is. None: no limit."""
    seed: int = 0
    on_row: Callable[[Row], None] = lambda _: None
    """Called with a row as soon as it is finished."""
    on_first: Callable[[Row, nn.Module, Head, Costs], None] = lambda row, model, head, costs: None
    """Called with the first row, its network at its size and the head solved for it: enough for a first product."""
    progress: NamedProgress = lambda what, done, total: None


def select_of(collection: Collection) -> Split | None:
    """Return the selecting pictures of a collection for a probe: none where they train, or few are reported on as well.

    What is reported on chooses nothing here, but where it is the only split of many to measure heads on.
    """
    split = collection.split(collection.select)
    is_few_reported = collection.select == collection.report and len(split) < HELD_OUT_FROM
    return None if collection.select == "train" or is_few_reported else split


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe found."""

    rows: tuple[Row, ...]
    """One per cell, the last word on each, in the order they were to run."""
    choice: Choice
    bad_images: tuple[str, ...]
    """Pictures that could not be read, of those that were."""
    seconds: float
    costs: Costs
    _solve: Callable[[Row], Head]

    def head(self, row: Row) -> Head:
        """Return the head of a chosen row, solved at its strength on all its pictures that are not the selecting ones.

        Raises:
            ValueError: the row was out of the running.
        """
        return self._solve(row)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {
            "rows": [row.as_dict() for row in self.rows],
            "best": self.choice.best.as_dict(),
            "cheapest": self.choice.cheapest.as_dict(),
            "chosen": self.choice.best.as_dict(),
            "why": self.choice.why,
            "num_bad_images": len(self.bad_images),
            "bad_images": list(self.bad_images),
            "seconds": round(self.seconds, 2),
        }


def probe(job: ProbeJob) -> Probed:
    """Measure the cells within the budget.

    Raises:
        UserError: a network or a picture cannot be read, or there are too few pictures.
        Stopped: a signal came; it is looked at between batches, in a `with runtime.stop` of the caller's.
    """
    return _Probing(job).run()


@dataclass
class _Part:
    """A split, and the order in which its pictures come in: every first part of it is stratified."""

    split: Split
    order: Indices
    num_classes: int
    seen: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Places of the split whose features there are, those that cannot be read left out."""


class _Probing:
    """A probe under way."""

    def __init__(self, job: ProbeJob) -> None:
        if not len(job.split):
            raise UserError(f"the split '{job.split.name}' is empty")
        self.job, self.start = job, time.perf_counter()
        job.runtime.keep_memory()
        self.is_held_out = job.select is not None and len(job.select) >= HELD_OUT_FROM
        splits = [job.split] if job.select is None else [job.split, job.select]
        self.parts = [
            _Part(split, stratified_order(split.labels, job.seed)[:MOST], len(split.classes)) for split in splits
        ]
        self.networks = {network: job.load(network) for network in job.networks}
        self.cells = offer_cells(self.networks, job.sizes, job.crop_ratios, job.first_size)
        self.rows: dict[Cell, Row] = {}
        self.features: dict[Cell, list[Tensor]] = {}
        """Of the cells that may still be chosen: a tensor for each part."""
        self.extractors: dict[tuple[PretrainedNetwork, int], Extractor] = {}
        self.ms: dict[tuple[PretrainedNetwork, int], float] = {}
        """Milliseconds a picture: one figure for a network and a size."""
        self.bad: list[str] = []
        self.costs = Costs(math.inf, 0.0)

    def run(self) -> Probed:
        rounds = list(_rounds(max(len(part.order) for part in self.parts)))
        for first, end in rounds:
            if first == 0:
                self._first_round(end, is_all=end == rounds[-1][1])
            elif not self._next_round(first, end, is_all=end == rounds[-1][1]):
                break
        rows = tuple(self.rows[cell] for cell in self.cells)
        seconds = time.perf_counter() - self.start
        choice = choose([self.rows[cell] for cell in self.features])
        return Probed(rows, choice, tuple(self.bad), seconds, self.costs, self._solve)

    def _first_round(self, num: int, *, is_all: bool) -> None:
        """Run every cell the budget has time for on the same pictures, decoded once for each size."""
        views = [Views(part.split.take(part.split.name, part.order[:num]), *self._means) for part in self.parts]
        for place, cell in enumerate(self.cells):
            self.job.progress("probing", place, len(self.cells))
            lacking = self._outclassed(cell)
            if place and not lacking:
                new = sum(len(view.places) for view in views)
                lacking = self._lacking(self._predict(cell, new, new, is_decoded=views[0].has(cell.preprocess)))
            if lacking:
                self._put(Row(cell, "not run", lacking))
                continue
            start = time.perf_counter()
            self._decode(cell, views)
            self.features[cell] = [self._features(cell, view) for view in views]
            for part, view in zip(self.parts, views, strict=True):
                part.seen = part.order[:num][view.places]
            self._measure(cell, time.perf_counter() - start, is_all=is_all)
            if not place:
                row = self.rows[cell]
                self.job.on_first(row, self.extractors[cell.network, cell.size].model, self._solve(row), self.costs)
            self._drop_hopeless()
        self.bad = [name for view in views for name in view.bad]

    def _outclassed(self, cell: Cell) -> str:
        """Return why a network with a crop is not tried at the next size; empty where it is, or there is no limit.

        Half of those that were measured at the size before go on, the best by loss: successive halving over sizes,
        since the larger ones cost most (Jamieson and Talwalkar 2016).
        """
        if self.job.seconds_left is None:
            return ""
        before = [self.rows[c] for c in self.cells[: self.cells.index(cell)] if c.wanted != cell.wanted]
        known = [row for row in before if row.loss is not None]
        if not known or not any(row.cell.kind == cell.kind for row in before):
            return ""
        last = known[-1].cell.wanted
        ranked = sorted((row for row in known if row.cell.wanted == last), key=lambda row: row.loss or 0.0)
        kept = ranked[: max(1, (len(ranked) + 1) // 2)]
        if any(row.cell.kind == cell.kind for row in kept):
            return ""
        return f"{kept[0].cell} and others were better at {last} px"

    def _next_round(self, first: int, end: int, *, is_all: bool) -> bool:
        """Take the cells that may be chosen, best first, to more pictures; return whether there was time for any."""
        waiting = sorted(self.features, key=lambda cell: self.rows[cell].loss or 0.0)
        new = [part.order[first:end] for part in self.parts]
        num, going, predicted = sum(map(len, new)), [], 0.0
        for cell in waiting:
            own = self._predict(cell, num, num + sum(len(part.seen) for part in self.parts))
            if lacking := self._lacking(predicted + own):
                self._put(replace(self.rows[cell], why=f"on a sample only: {lacking}"))
            else:
                going.append(cell)
                predicted += own
        if not going:
            return False
        seconds = dict.fromkeys(going, 0.0)
        for part_place, (part, places) in enumerate(zip(self.parts, new, strict=True)):
            for chunk in range(0, len(places), _CHUNK):
                view = Views(part.split.take(part.split.name, places[chunk : chunk + _CHUNK]), *self._means)
                decoding = view.decode([cell.preprocess for cell in going]) / len(going)
                for cell in going:
                    start = time.perf_counter()
                    own_features = self.features[cell]
                    own_features[part_place] = torch.cat([own_features[part_place], self._features(cell, view)])
                    seconds[cell] += decoding + time.perf_counter() - start
                part.seen = np.concatenate([part.seen, places[chunk : chunk + _CHUNK][view.places]])
                self.bad += view.bad
                self.job.progress("probing on more pictures", len(part.seen), len(part.order))
        for cell in going:
            self._measure(cell, self.rows[cell].seconds + seconds[cell], is_all=is_all)
        for cell in waiting:
            if cell not in going:
                self.features.pop(cell)
        self._drop_hopeless()
        return True

    @property
    def _means(self) -> tuple[Reading, Runtime]:
        return self.job.reading, self.job.runtime

    def _decode(self, cell: Cell, views: Sequence[Views]) -> None:
        """Decode what a cell needs, and all other cells of its size that are still to come with it."""
        if views[0].has(cell.preprocess):
            return
        coming = self.cells[self.cells.index(cell) :]
        for done in self.cells[: self.cells.index(cell)]:
            is_wanted = any(done.preprocess == other.preprocess for other in coming)
            if not is_wanted or sum(view.num_bytes for view in views) > _HOLD_BYTES:
                for view in views:
                    view.drop(done.preprocess)
        wanted = [other.preprocess for other in coming if other.size == cell.size]
        seconds = sum(view.decode(wanted) for view in views)
        each = seconds / sum(len(view.places) for view in views)
        self.costs = self.costs._replace(decode=min(self.costs.decode, each))

    def _features(self, cell: Cell, view: Views) -> Tensor:
        """Return the features `[n, D]` of the pictures in a view."""
        found = []
        for images in view.batches(cell.preprocess):
            if self.job.runtime.stop.received:
                raise Stopped
            found.append(self._extractor(cell, images).features(images))
        return torch.cat(found)

    def _extractor(self, cell: Cell, images: Tensor) -> Extractor:
        key = cell.network, cell.size
        if key not in self.extractors:
            model = self.job.runtime.place(at_size(self.networks[cell.network][0], cell.size)).eval()
            extractor = Extractor(model, cell.preprocess, self.job.runtime, self.job.reading.batch_size)
            extractor.prepare(images)
            self.extractors[key] = extractor
        return self.extractors[key]

    def _measure(self, cell: Cell, seconds: float, *, is_all: bool) -> None:
        """Solve the heads of a cell on the features there are, and hand its row out."""
        start = time.perf_counter()
        labels = np.concatenate([part.split.labels[part.seen] for part in self.parts])
        held_out = None
        if self.is_held_out:
            held_out = np.repeat([False, True], [len(part.seen) for part in self.parts])
        elif self.parts[0].num_classes > _MANY_CLASSES:
            held_out = (stratified_folds(labels, 5, self.job.seed) == 0) & (np.bincount(labels)[labels] > 1)
        try:
            found = cross_validate(
                torch.cat(self.features[cell]),
                torch.from_numpy(labels),
                self.parts[0].num_classes,
                seed=self.job.seed,
                held_out=held_out,
                between=self._between,
            )
        except ValueError as error:
            raise UserError(f"too few pictures to compare networks: {error}\n  add pictures to every class") from None
        losses = found.tempered_losses()
        solving = time.perf_counter() - start
        self.costs = self.costs._replace(head=solving / len(labels))
        row = Row(
            cell,
            "measured" if is_all else "sample",
            how=found.how,
            n=len(losses),
            top1=found.top1,
            loss=float(losses.mean()),
            losses=losses,
            decay=found.decay,
            ms=self.ms.setdefault((cell.network, cell.size), self.extractors[cell.network, cell.size].ms),
            seconds=seconds + solving,
        )
        self._put(row)

    def _between(self) -> None:
        if self.job.runtime.stop.received:
            raise Stopped

    def _put(self, row: Row) -> None:
        self.rows[row.cell] = row
        self.job.on_row(row)

    def _drop_hopeless(self) -> None:
        """Forget the features of cells that will not be chosen; their rows say why they went no further."""
        for cell in list(self.features):
            if why := hopeless(self.rows[cell], list(self.rows.values())):
                self.rows[cell] = replace(self.rows[cell], why=why)
                self.features.pop(cell)

    def _predict(self, cell: Cell, num_new: int, num_all: int, *, is_decoded: bool = False) -> float:
        """Return the seconds that a cell will probably take, by what others took.

        Its features are computed of `num_new` pictures and its heads solved on `num_all`.
        """
        work = {(other.network, other.size): other.gmacs for other in self.cells}
        known = {key: ms / 1000 for key, ms in self.ms.items()}
        own = [seconds / work[key] for key, seconds in known.items() if key[0] == cell.network]
        rate = max(own or [seconds / work[key] for key, seconds in known.items()])
        computing = known.get((cell.network, cell.size), rate * cell.gmacs)
        decoding = 0.0 if is_decoded else self.costs.decode
        return num_new * (computing + decoding) + num_all * self.costs.head

    def _lacking(self, predicted: float) -> str:
        """Return why there is no time for what would take `predicted` seconds; empty where there is."""
        left = math.inf if self.job.seconds_left is None else self.job.seconds_left()
        return "" if predicted <= left else f"it takes about {predicted:.0f} s, and {max(0.0, left):.0f} s are left"

    def _solve(self, row: Row) -> Head:
        if row.cell not in self.features or row.decay is None:
            raise ValueError(f"{row.cell} was out of the running")
        labels = torch.from_numpy(self.parts[0].split.labels[self.parts[0].seen])
        return solve_head(self.features[row.cell][0], labels, self.parts[0].num_classes, row.decay)


def _rounds(num: int) -> Iterator[tuple[int, int]]:
    """Yield from and to which picture each round goes, the last to all `num`."""
    first, end = 0, SAMPLE
    while first < num:
        # A round that would leave a few pictures for another takes them along.
        end = num if 1.5 * end >= num else end
        yield first, end
        first, end = end, end * _GROWTH
