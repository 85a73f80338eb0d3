"""What one stage is: its settings, what it may move, its number of steps, and the solver that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from fixres.config.defaults import named_stages
from fixres.config.recipe import Ema, Recipe, Stage
from fixres.config.rules import cached_conflict
from fixres.data.class_weights import class_weights
from fixres.data.collections import Collection
from fixres.data.progressive_sizes import Timeline, stage_timeline
from fixres.data.sampling import describe_length, num_epoch_samples
from fixres.errors import UserError, counted
from fixres.models.build import architecture
from fixres.models.moves import Plan, make_plan
from fixres.models.sizes import at_size
from fixres.models.split_trunk import BrokenWeightsError, require_solvable
from fixres.runtime.device import Runtime
from fixres.training.lr_schedule import Curve, is_stale, kept_of_start

LARGEST_START = 0.01
"""Share of its start that an average may keep: of random weights, more shows in the accuracy."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of one run: its settings with size and solver decided, and what it may move."""

    index: int
    name: str
    key: str
    """How the recipe names it: train, fix or stages.N."""
    stage: Stage
    size: int
    move_plan: Plan
    """The tensors it may move."""
    timeline: Timeline
    class_weights: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    """What is not as one would expect: another solver than by default, an epoch of another length than the recipe's."""
    warning: str = ""
    """What the stage cannot come out well with; empty: nothing."""

    @property
    def total_steps(self) -> int:
        """Steps of the stage, unless it ends early."""
        return self.timeline.total_steps

    @property
    def last_step(self) -> int:
        """Steps after which the stage ends: all of them, or those of `stop_step`."""
        return self.stage.stop_step or self.total_steps

    def stopped_at(self, step: int) -> StagePlan:
        """Return the same stage, ending after `step`."""
        return replace(self, stage=self.stage.model_copy(update={"stop_step": step}))

    @property
    def curve(self) -> Curve:
        """The learning rate of every step."""
        return Curve(self.stage, self.timeline)

    def share(self, runtime: Runtime, step: int) -> int:
        """Return the pictures of a step's batch that belong to one process."""
        return self.timeline.at(step).batch_size // runtime.processes.shard.world

    def largest_share(self, runtime: Runtime) -> tuple[int, int]:
        """Return (pictures of one process, size) of the steps that need the most memory."""
        choices = {choice for epoch in set(self.timeline.choices) for choice in epoch}
        largest = max(choices, key=lambda choice: choice.batch_size * choice.size**2)
        return largest.batch_size // runtime.processes.shard.world, largest.size

    @property
    def fewest_images(self) -> int:
        """Images a forward pass needs: two where it has live statistics or mixes images."""
        return 2 if self.move_plan.live_norms or self.stage.mixup or self.stage.cutmix else 1

    def slower(self) -> str:
        """Return the setting of a quarter of the stage's learning rate, in the key it came from."""
        stage = self.stage
        given, value = ("lr", stage.lr) if stage.lr_rule == "none" else ("base_lr", stage.base_lr)
        return f"{self.key}.{given} {value / 4:.2g}"

    def is_over(self, step: int, best_step: int, every_epochs: int) -> bool:
        """Return whether the stage ends after `step` steps: all done, or no better for as long as `patience` says."""
        if step >= self.last_step or not self.timeline.is_epoch_end(step):
            return step >= self.last_step
        epoch, best = round(self.timeline.epochs_done(step)), round(self.timeline.epochs_done(best_step))
        return epoch % every_epochs == 0 and is_stale(epoch, best, every_epochs, self.stage.patience)


def describe_stage(
    recipe: Recipe, collection: Collection, model: nn.Module, index: int, size: int, world: int = 1
) -> StagePlan:
    """Work out the plan and the number of steps of stage `index` at `size`, for `world` processes.

    Raises:
        UserError: a batch larger than the training split or that the processes cannot share, a size the network
            cannot take, or moves it cannot do.
    """
    stage = recipe.run_stages[index]
    split = collection.split("train")
    key = stage_key(recipe, index)
    is_mixed = bool(stage.mixup or stage.cutmix)
    name = "fix" if is_fix(recipe, index) else "train" if index == 0 else f"train{index + 1}"
    network = at_size(model, size)
    plan = make_plan(network, stage.moves, size, stage.freeze, stage.norm_statistics)
    stage, note = _decide_solver(stage, network, plan, size)
    if stage.solver == "cached":
        if (num := num_epoch_samples(len(split), stage.epoch_samples)) < min(len(split), len(split.classes)):
            few = f"{key}.epoch_samples {stage.epoch_samples}: {num} pictures for {len(split.classes)} classes"
            raise UserError(f"{few}\n  give more, or leave it out: a solved head sees every picture once")
        # It sees every picture once: no steps, and what a balanced order would show is a weight.
        weights = class_weights("auto" if stage.sampler == "balanced" else recipe.data.class_weights, split)
        timeline = Timeline((), (0,), 0, (recipe.seed, index))
        return StagePlan(index, name, key, stage, size, plan, timeline, weights)
    timeline = stage_timeline(split, stage, size, seed=recipe.seed, stage_index=index, key=key)
    if stage.stop_step > timeline.total_steps:
        raise UserError(
            f"{key}.stop_step {stage.stop_step} never comes: the stage has {counted(timeline.total_steps, 'step')}"
            f"\n  leave it out, or use at most {timeline.total_steps}"
        )
    batches = {choice.batch_size for epoch in set(timeline.choices) for choice in epoch}
    for batch_size in sorted(batches):
        unit = 2 * world if is_mixed else world
        if batch_size % unit:
            below = max(batch_size - batch_size % unit, unit)
            pairs = " in pairs, as mixup and cutmix need" if is_mixed else ""
            raise UserError(
                f"{key}.batch_size {batch_size} cannot be shared by {world} processes{pairs}\n"
                f"  use {below} or {below + unit}"
            )
    _require_sizes(model, size, timeline.sizes)
    if plan.live_norms and min(batches) == world:
        one = "batch_size 1" if world == 1 else f"batch_size {world} on {world} processes"
        raise UserError(
            f"{one} leaves {plan.live_norms[0]} without statistics\n  give at least {2 * world}, or moves: head"
        )
    weights = class_weights(recipe.data.class_weights, split)
    notes = tuple(filter(None, (note, describe_length(len(split), stage.epoch_samples, key))))
    warning = average_warning(recipe.ema, stage, stage.stop_step or timeline.total_steps, key)
    return StagePlan(index, name, key, stage, size, plan, timeline, weights, notes, warning)


def _decide_solver(stage: Stage, network: nn.Module, plan: Plan, size: int) -> tuple[Stage, str]:
    """Return the stage with `cached` or `sgd` as its solver, and why `auto` became sgd.

    Raises:
        UserError: cached was asked for, and does not suit the network; or its outputs are not finite.
    """
    if stage.solver == "sgd":
        return stage, ""
    reason = cached_conflict(stage)
    try:
        if not reason:
            require_solvable(network, plan, size)
    except UserError as error:
        if stage.solver == "cached" or isinstance(error, BrokenWeightsError):
            raise
        reason = str(error).splitlines()[0]
    decided = stage.model_copy(update={"solver": "sgd" if reason else "cached"})
    return decided, f"{reason}; the stage is trained by sgd" if reason else ""


def average_warning(ema: Ema, stage: Stage, steps: int, key: str) -> str:
    """Return what to say of a stage whose average still is its start to more than 1 % after `steps`; else nothing."""
    if not stage.ema or stage.solver == "cached":
        return ""
    kept = kept_of_start(steps, decay=ema.decay, rule=ema.rule, ramp_steps=ema.ramp_steps)
    if kept <= LARGEST_START:
        return ""
    forgets = kept_of_start(steps, decay=ema.decay, rule="timm") <= LARGEST_START
    instead = "--ema.rule timm forgets its start" if forgets else f"--{key}.ema false keeps no average"
    return (
        f"after {counted(steps, 'step')} of {key} the weight average (EMA), which is what is kept, still is "
        f"{float(f'{100 * kept:.2g}'):g} % its starting weights (ema.decay {ema.decay:g}, ema.rule {ema.rule})\n"
        f"  {instead}"
    )


def _require_sizes(model: nn.Module, size: int, sizes: Sequence[int]) -> None:
    """Refuse several sizes in a stage for a network that is built for one, and sizes that suit no network like it."""
    network = at_size(model, size)
    for other in sizes:
        if at_size(network, other) is not network:
            raise UserError(
                f"'{architecture(model)}' is built for one size: no stage can train it at {size} and {other}"
                "\n  give each size a stage of its own: stages: [...]; some take model.kwargs {dynamic_img_size: true}"
            )


def is_fix(recipe: Recipe, index: int) -> bool:
    """Return whether stage `index` of those that run adapts a trained network: the `fix`, or a partial later stage."""
    stage = recipe.run_stages[index]
    return index > 0 and stage.moves != "all" if recipe.stages else stage is recipe.fix


def stage_key(recipe: Recipe, index: int) -> str:
    """Return how the recipe names stage `index` of those that run: train, fix or stages.N."""
    return [key for key, stage in named_stages(recipe) if stage.enabled][index]
