"""A stage of a run by the cached solver: what it asks for, and what it leaves in the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from fixres.config.stage import Stage
from fixres.data.sampling import num_solved_on, stratified_order
from fixres.errors import counted
from fixres.io.tensors import copy_state
from fixres.training.cached_solver.solve import WORDS, Problem, Solution, solve
from fixres.training.context import RunContext
from fixres.training.freeze import verify_plan
from fixres.training.stage_plan import StagePlan

CACHE = "cache"
"""In the run folder: features, while the stage is not done."""


def _num_seen(num_train: int, stage: Stage) -> int:
    """Return how many training pictures a stage solves a head on: all of them, where training by sgd follows."""
    return num_solved_on(num_train, stage.epoch_samples) if stage.solver == "cached" else num_train


def problem_of(context: RunContext, plan: StagePlan, model: nn.Module, cache: str) -> Problem:
    """Return what a stage asks of a network on the device; `cache` is a folder of its own in RUN/cache."""

    def progress(what: str, done: int, total: int) -> None:
        context.log.progress(what=WORDS.get(what, what), done=done, total=total)

    train = context.collection.split("train")
    num = _num_seen(len(train), plan.stage)
    if num < len(train):
        train = train.take(train.name, np.sort(stratified_order(train.labels, context.recipe.seed)[:num]))
    return Problem(
        model=model,
        plan=plan.move_plan,
        train=train,
        select=context.collection.split(context.collection.select),
        preprocess=context.preprocess.at(plan.size),
        runtime=context.runtime,
        reading=context.reading,
        cache=context.folder / CACHE / cache,
        num_views=plan.stage.views,
        cache_gib=plan.stage.cache_gib,
        label_smoothing=plan.stage.label_smoothing,
        class_weights=plan.class_weights,
        decay=plan.stage.decay,
        progress=progress,
    )


def solve_stage(context: RunContext, plan: StagePlan, model: nn.Module, is_new_head: bool = False) -> Solution:
    """Solve a stage in place, leave a record in the log, and return it, its seconds with the interrupted ones.

    A new head is pulled towards zero, and is no candidate as it is.

    Raises:
        UserError: the network does not suit the solver, or pictures cannot be read.
        Stopped: a signal came; features that are complete are kept for a rerun.
    """
    before = copy_state(model)
    model = context.runtime.place(model)
    found = solve(replace(problem_of(context, plan, model, f"stage-{plan.index}"), is_new_head=is_new_head))
    # A statistic over the whole set is no running one, so its count of batches has nothing to count.
    moving = tuple(name for name in plan.move_plan.statistics if not name.endswith("num_batches_tracked"))
    unmoved = verify_plan(before, model.state_dict(), replace(plan.move_plan, statistics=moving))
    tell(context, plan, found)
    if unmoved and (found.chosen is None or found.chosen.decay is not None):
        text = f"{counted(len(unmoved), 'tensor')} this stage trains came out as before: {', '.join(unmoved[:5])}"
        context.log.event("note", text=text)
    seconds = round(found.seconds, 3)
    context.log.event("stage_done", stage=plan.name, stage_index=plan.index, size=plan.size, seconds=seconds)
    return found


def tell(context: RunContext, plan: StagePlan, found: Solution) -> None:
    """Leave a record of a solution in the log."""
    context.log.event("solved", stage=plan.name, stage_index=plan.index, size=plan.size, **found.as_dict())
    context.log.event("note", text=describe(found, context.collection.select))
    context.log.left_out(found.bad_images)
    total = len(context.collection.split("train"))
    num = _num_seen(total, plan.stage)
    if num < total:
        text = f"solved on {num:,} of the {total:,} training pictures: {plan.key}.epoch_samples"
        context.log.event("note", text=text)
    if found.num_views < plan.stage.views:
        context.log.event(
            "note",
            text=f"{found.num_views} of {plan.stage.views} views used: the test-time crop leaves no room to shift it",
        )


def describe(found: Solution, select: str) -> str:
    """Return what the solver did, in one line."""
    passes = f"{counted(found.num_passes, 'pass', 'passes')} over the training pictures, {found.seconds:.1f} s"
    if found.chosen is None:
        return f"running statistics measured on the training pictures: {passes}"
    text, chosen = f"head solved on frozen features: {passes}", found.chosen
    old = next((candidate for candidate in found.candidates if candidate.decay is None), None)
    if chosen.decay is None:
        return f"{text}; none has a lower loss on {select} than the head as it was ({chosen.loss:.4f}), which stays"
    before = f"{old.loss:.4f} before, " if old is not None else ""
    return f"{text}; loss on {select} {before}{chosen.loss:.4f} now (L2 penalty {chosen.decay:.2g})"
