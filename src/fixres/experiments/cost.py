"""What a recipe costs before it runs: steps, samples, multiply-adds, memory and hours. Needs no pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.defaults import LR_RULES
from fixres.config.recipe import Recipe, Stage
from fixres.data.all_labelled import open_to_train
from fixres.data.prepare.known_sets import SETS
from fixres.data.progressive_sizes import Timeline, make_timeline
from fixres.data.sampling import describe_length, num_epoch_samples, num_solved_on
from fixres.data.splits import THIRDS
from fixres.errors import UserError, counted
from fixres.experiments.first_batches import first_measured_batches, first_training_batch
from fixres.experiments.measured_speed import measured_rate
from fixres.models.build import build_shape, in_channels
from fixres.models.moves import Plan, make_plan
from fixres.models.sizes import at_size, gmacs, without_values
from fixres.training.freeze import apply_plan, set_train_mode
from fixres.training.head_start import MOST_HEAD_VIEWS
from fixres.training.initial_weights import starting_network
from fixres.training.stage_plan import StagePlan, average_warning, describe_stage, is_fix, stage_key

OPTIMIZER_COPIES = {"sgd": 1, "nesterov": 1, "lion": 1, "muon": 1, "adamw": 2, "lamb": 2}
"""Numbers an optimizer keeps for each trained parameter; muon's vectors, which have two, are few."""
_PROBE_BATCH = 2
"""Batch normalisation wants two pictures."""


@dataclass(frozen=True)
class Pictures:
    """How many pictures a recipe trains on, of how many classes, and who says so."""

    num_train: int
    num_classes: int
    source: str


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. Weights, gradients, optimizer and average are 4 bytes a number."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    """What autograd keeps for the backward pass of one process's share, and the largest layer's input and output."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class StageCost:
    """What one stage costs."""

    name: str
    size: int
    note: str
    """What had to be assumed; empty: nothing."""
    num_epochs: int
    num_steps: int
    num_samples: int
    """Pictures shown, copies and repetitions counted."""
    num_distinct: int
    """Different pictures in an epoch, at most."""
    batch_size: int
    gmacs: float
    """Of one forward pass of one picture at `size`."""
    teramacs: float
    """Of the whole stage, forward and backward."""
    memory: Memory
    hours: float | None = None


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe costs, stage by stage."""

    name: str
    pictures: Pictures
    num_parameters: int
    devices: int
    stages: tuple[StageCost, ...]

    @property
    def teramacs(self) -> float:
        """Of all stages."""
        return math.fsum(stage.teramacs for stage in self.stages)

    @property
    def hours(self) -> float | None:
        """Of all stages, where the speed is known."""
        hours = [stage.hours for stage in self.stages]
        return None if None in hours else math.fsum(hour for hour in hours if hour is not None)


@dataclass(frozen=True)
class Speed:
    """How fast pictures are trained: stated for the first stage at its size, or measured on this machine."""

    images_per_second: float = 0.0
    is_measured: bool = False


def count_pictures(recipe: Recipe, num_train: int = 0, num_classes: int = 0) -> Pictures:
    """Return the training pictures of a recipe: as given, as published for its data set, or as found on disk.

    Raises:
        UserError: nothing says how many there are.
    """
    uri = recipe.data.uri
    known = SETS.get(uri.partition(":")[2].rstrip("/").rpartition("/")[2]) if uri.startswith("folder:") else None
    if num_train:
        return Pictures(num_train, num_classes or (known.num_classes if known else 1000), "as given")
    if known is not None:
        counts = known.counts
        total = counts.get("train") or math.floor(THIRDS["train"] * counts[""] + 0.5)
        carved = recipe.data.holdout if "train" in counts and len(counts) < len(THIRDS) else 0.0
        left = total - math.floor(total * carved + 0.5)
        return Pictures(left, num_classes or known.num_classes, f"{known.title} as published")
    try:
        collection = open_to_train(recipe.data)
    except UserError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"how many pictures? {first}\n  --train-images N (and --classes N)") from error
    return Pictures(len(collection.split("train")), len(collection.classes), "as found")


def plan_recipe(name: str, recipe: Recipe, pictures: Pictures, devices: int, speed: Speed | None = None) -> RecipeCost:
    """Return what a recipe costs.

    Args:
        name: how the recipe is called.
        recipe: checked.
        pictures: what it trains on.
        devices: processes that share every batch.
        speed: for the hours; None: they stay unknown.

    Raises:
        UserError: a batch that the devices cannot share, or larger than the epoch; a size the network cannot take.
    """
    model = build_shape(recipe.model.name, pictures.num_classes, recipe.model.kwargs)
    stages = []
    first_work = 0.0
    for index, stage in enumerate(recipe.run_stages):
        cost = _stage_cost(recipe, index, stage, model, pictures, devices)
        work = cost.teramacs / max(1, cost.num_samples)
        first_work = first_work or work
        if speed is not None:
            # The stated speed goes down as a picture's multiply-adds go up.
            rate = speed.images_per_second / (work / first_work)
            if speed.is_measured:
                rate = _measured_rate(cost, recipe, stage, pictures, devices)
                if cost.num_steps == 0:
                    # Further sizes go through the trunk as well.
                    rate *= cost.gmacs / work / 1000
            cost = replace(cost, hours=cost.num_samples / rate / 3600)
        stages.append(cost)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return RecipeCost(name, pictures, num_parameters, devices, tuple(stages))


def _stage_cost(
    recipe: Recipe, index: int, stage: Stage, model: nn.Module, pictures: Pictures, devices: int
) -> StageCost:
    size, note = _size(recipe, stage)
    network = at_size(model, size)
    plan = make_plan(network, stage.moves, size, stage.freeze, stage.norm_statistics)
    name = "fix" if is_fix(recipe, index) else "train" if index == 0 else f"train{index + 1}"
    forward = gmacs(network, size)
    if stage.batch_size % devices:
        raise UserError(f"{name}: a batch of {stage.batch_size} cannot be shared by {devices} devices\n  --devices N")
    is_solved = stage.solver in ("cached", "auto")
    if is_solved:
        batch_size = share = recipe.evaluation.batch_size
        num_epochs, num_steps, distinct = 1, 0, num_solved_on(pictures.num_train, stage.epoch_samples)
        shown, (further, more) = distinct * stage.views, _further_sizes(stage, size, model)
        gigamacs = shown * (forward + more)
        views = f"solved on features of {stage.views} views"
        control = _control_words(recipe, index, size, model, distinct)
        note = "; ".join(filter(None, [note, views, control, further]))
    else:
        batch_size, share = stage.batch_size, stage.batch_size // devices
        num_samples = num_epoch_samples(pictures.num_train, stage.epoch_samples)
        timeline = make_timeline(stage, size, num_samples, seed=recipe.seed, stage_index=index)
        num_steps = stage.stop_step or timeline.total_steps
        num_epochs = math.ceil(timeline.epochs_done(num_steps))
        distinct = min(pictures.num_train, -(-num_samples // stage.repeats))
        shown, gigamacs = training_work(timeline, model, plan, stage.stop_step)
        key = stage_key(recipe, index)
        if stage.head == "solved":
            num_views = min(MOST_HEAD_VIEWS, stage.views)
            gigamacs += forward * pictures.num_train * num_views
            first = f"the head is solved first, on features of {counted(num_views, 'view')}"
            note = "; ".join(filter(None, [note, first]))
        length = describe_length(pictures.num_train, stage.epoch_samples, key)
        warning = average_warning(recipe.ema, stage, num_steps, key)
        note = "; ".join(filter(None, [note, length, *warning.split("\n  ")]))
    memory = _memory(recipe, stage, network, plan, size, share, is_solved=is_solved)
    return StageCost(
        name, size, note, num_epochs, num_steps, shown, distinct, batch_size, forward, gigamacs / 1000, memory
    )


def _further_sizes(stage: Stage, size: int, model: nn.Module) -> tuple[str, float]:
    """Return what the heads of further sizes are in words, and their multiply-adds a picture in billions."""
    sizes = sorted({*stage.head_sizes} - {size})
    words = f"heads for {', '.join(map(str, sizes))} px in it" if sizes else ""
    return words, sum(gmacs(at_size(model, own), own) for own in sizes)


def _control_words(recipe: Recipe, index: int, size: int, model: nn.Module, num_train: int) -> str:
    """Return what the control of a fix costs beside it; empty where there is none."""
    stages = recipe.run_stages
    trained = [stage.size for place, stage in enumerate(stages[:index]) if not is_fix(recipe, place)]
    train_size = trained[-1] if trained else recipe.train.size
    is_last_fix = index == len(stages) - 1 and is_fix(recipe, index)
    if not (is_last_fix and recipe.evaluation.control and isinstance(train_size, int)):
        return ""
    if train_size in (size, *stages[index].head_sizes):
        return ""
    teramacs = gmacs(at_size(model, train_size), train_size) * num_train * stages[index].views / 1000
    return f"the same at {train_size} px, to tell what the size gains: {teramacs:,.1f} teraMACs more"


def training_work(timeline: Timeline, model: nn.Module, plan: Plan, stop_step: int = 0) -> tuple[int, float]:
    """Return the pictures of all steps of a stage, and the multiply-adds it takes to train on them, in billions.

    With `stop_step` it ends after that step.

    A backward pass costs about two forward ones: a gradient for the inputs and one for the weights. It is hardly any
    work where the trunk is frozen.
    """
    work = {size: gmacs(at_size(model, size), size) for size in timeline.sizes}
    shown, gigamacs, last_step = 0, 0.0, stop_step or timeline.total_steps
    for epoch, choices in enumerate(timeline.choices):
        steps = range(timeline.first_steps[epoch], min(timeline.first_steps[epoch + 1], last_step))
        if len(choices) == 1:
            num = len(steps) * choices[0].batch_size
            shown += num
            gigamacs += num * work[choices[0].size]
            continue
        for step in steps:
            place = timeline.at(step)
            shown += place.batch_size
            gigamacs += place.batch_size * work[place.size]
    return shown, gigamacs * (1 if plan.is_trunk_frozen else 3)


def _size(recipe: Recipe, stage: Stage) -> tuple[int, str]:
    if stage.size != "auto":
        return stage.size, ""
    train = recipe.train.size
    assert isinstance(train, int), "training stages have a size"
    size = max(recipe.evaluation.sizes, default=train)
    return size, f"the size is chosen when the stage starts; counted at {size} px"


def _memory(
    recipe: Recipe, stage: Stage, model: nn.Module, plan: Plan, size: int, batch: int, *, is_solved: bool = False
) -> Memory:
    """Estimate the bytes of one device; activations from the tensors autograd keeps for a batch of 2, times batch / 2.

    They are counted at 4 bytes a number, at 2 where the recipe says bf16 or fp16. What devices exchange, the buffers of
    the convolutions and what the allocator wastes are not in it.
    """
    numbers = sum(t.numel() for t in model.state_dict().values())
    trained = 0 if is_solved else plan.num_trained
    kept, largest = _activations(model, plan, size, is_solved)
    share = batch / _PROBE_BATCH / (2 if recipe.runtime.precision in ("bf16", "fp16") else 1)
    return Memory(
        weights=4 * numbers,
        gradients=4 * trained,
        optimizer=4 * trained * OPTIMIZER_COPIES[recipe.optim.name],
        average=4 * numbers if stage.ema and not is_solved else 0,
        activations=math.ceil((kept + largest) * share),
    )


def _activations(model: nn.Module, plan: Plan, size: int, is_solved: bool) -> tuple[int, int]:
    """Return the bytes autograd keeps for two pictures in fp32, and those of the largest layer's input and output."""
    network = without_values(model)
    apply_plan(network, plan)
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    largest = 0
    kept: dict[int, int] = {}
    # Held so that no storage is freed and its address used again.
    alive: list[Tensor] = []

    def watch(_module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        largest = max(largest, sum(4 * t.numel() for t in tensors))

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(watch)
    images = torch.zeros(_PROBE_BATCH, in_channels(network), size, size, device="meta")
    set_train_mode(network, plan)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.set_grad_enabled(not is_solved):
        network(images)
    return sum(kept.values()), largest


def _measured_rate(cost: StageCost, recipe: Recipe, stage: Stage, pictures: Pictures, devices: int) -> float:
    """Return pictures per second of 20 steps on this machine's device, times `devices`; reading is not in it."""
    batch = cost.batch_size if cost.num_steps == 0 else max(2, cost.batch_size // devices)
    return devices * measured_rate(recipe, stage, cost.size, pictures.num_classes, batch)


def dry_run(recipe: Recipe) -> list[str]:
    """Return what a run would do: data, plan, steps, cost and what its first batches look like; nothing is written.

    Raises:
        UserError: whatever the run would be refused for, and a picture of a first batch that cannot be read.
    """
    collection = open_to_train(recipe.data)
    torch.manual_seed(recipe.seed)
    start = starting_network(recipe, collection)
    model = start.model
    counts = ", ".join(f"{name} {len(split):,}" for name, split in collection.splits.items())
    lines = [f"{collection.uri}: {counts}", *(f"note: {note}" for note in collection.notes_for(recipe))]
    for index, stage in enumerate(recipe.run_stages):
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int), "training stages have a size"
        run = describe_stage(recipe, collection, model, index, size)
        forward = gmacs(at_size(model, size), size)
        when = " (size chosen when the stage starts)" if stage.size == "auto" else ""
        lines += [f"note: {note}" for note in run.notes]
        lines += [f"warning: {run.warning}"] if run.warning else []
        if run.stage.solver == "cached":
            pictures = num_solved_on(len(collection.split("train")), stage.epoch_samples)
            num, (further, more) = pictures * stage.views, _further_sizes(stage, size, model)
            what = f"cached: {num:,} pictures of [3, {size}, {size}] through the trunk once"
            teramacs = (forward + more) * num / 1000
            pace = [f"  no epochs and no learning rate: the head is solved on {stage.views} views of each picture"]
            control = _control_words(recipe, index, size, model, pictures)
            pace += [f"  {words}" for words in (further, control) if words]
        else:
            what = f"{run.last_step:,} steps of [{stage.batch_size}, 3, {size}, {size}]"
            shown, gigamacs = training_work(run.timeline, model, run.move_plan, stage.stop_step)
            teramacs, pace = gigamacs / 1000, _pace(run, len(collection.split("train")), shown)
            if stage.head == "solved":
                views = counted(min(MOST_HEAD_VIEWS, stage.views), "view")
                pace.append(f"  before the first step the head is solved on features of {views} of each picture")
        lines += [
            f"stage {run.name}: {run.move_plan.describe()}",
            f"  {what}{when}, about {teramacs:,.1f} teraMACs ({forward:.3f} GMACs a forward pass)",
            *pace,
            first_training_batch(recipe, collection, run, start.preprocess.at(run.size)),
        ]
    if recipe.evaluation.ship == "best":
        lines.append("ship best: in the end a head is solved on the starting network, too, at train size and fix size")
    return lines + first_measured_batches(recipe, collection, start.preprocess.at(run.size))


def _pace(run: StagePlan, num_images: int, shown: int) -> list[str]:
    """Return in words how long the epochs of a stage are, how many images it sees, and its learning rate."""
    stage, timeline, curve = run.stage, run.timeline, run.curve
    steps = [timeline.steps_in(epoch) for epoch in range(timeline.num_epochs)]
    fewest = f"{min(steps):,} to " if min(steps) < max(steps) else ""
    rate = f"{stage.lr:.4g}"
    if stage.lr_rule != "none":
        rate += f" ({stage.base_lr:g} x {stage.batch_size} / {LR_RULES[stage.lr_rule]}, {stage.lr_rule})"
    shape = f"{stage.schedule}, {curve.at(0):.4g} at the first step and {curve.at(run.last_step - 1):.4g} at the last"
    warmup = "no warm-up"
    if curve.warmup_steps:
        warmup = f"warm-up {stage.warmup_epochs:g} epochs ({counted(curve.warmup_steps, 'step')}, {stage.warmup_shape})"
    return [
        f"  an epoch: {timeline.num_samples:,} samples of {num_images:,} pictures, "
        f"{fewest}{counted(max(steps), 'step')}; images seen in {counted(timeline.num_epochs, 'epoch')}: "
        f"{shown:,}, {shown / num_images:,.1f} a picture",
        f"  learning rate {rate}: {shape}; {warmup}",
    ]
