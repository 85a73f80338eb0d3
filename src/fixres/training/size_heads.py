"""A head and last-norm statistics for every size, each from the one network that a fix found."""

from __future__ import annotations

import copy
from collections.abc import Collection as Names
from dataclasses import replace
from typing import Any

from torch import nn

from fixres.checkpoints.product import SizeHead
from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.sizes import at_size
from fixres.training.cached_solver.solve import solve
from fixres.training.cached_solver.solve_stage import problem_of
from fixres.training.context import RunContext
from fixres.training.handover import Handover
from fixres.training.mix import mix_fix
from fixres.training.stage_plan import StagePlan, describe_stage


def size_label(size: int) -> str:
    """Return what the row of a further size is called in the comparison."""
    return f"fixed at {size} px"


def require_size_heads(recipe: Recipe, collection: Collection, model: nn.Module, index: int) -> None:
    """Refuse further sizes that the network cannot take or whose heads cannot be solved, before anything runs.

    Raises:
        UserError: naming the size.
    """
    stage = recipe.run_stages[index]
    for size in stage.head_sizes:
        plan = describe_stage(recipe, collection, model, index, size)
        if plan.stage.solver != "cached":
            why = plan.notes[0].partition(";")[0] if plan.notes else "it is trained by sgd"
            raise UserError(
                f"{plan.key}.head_sizes: a head for every size is solved on cached features, and {why}\n"
                f"  leave {plan.key}.head_sizes out, or fix at one size after the other"
            )


def solve_size_heads(context: RunContext, plan: StagePlan, handover: Handover) -> dict[int, nn.Module]:
    """Do at every further size of a fix what it did at its own, and return the networks by size, smallest first.

    Each equals that of a fix at that size alone, bit for bit: it starts from the network the fix found, not from the
    one it made. Features are kept like those of the fix until the run is done.

    Raises:
        UserError: pictures cannot be read.
        Stopped: a signal came; features that are complete are kept for a rerun.
    """
    before = handover.before
    if before is None or plan.stage.solver != "cached":
        return {}
    found = {}
    for size in sorted({*plan.stage.head_sizes} - {plan.size}):
        world = context.runtime.processes.shard.world
        own = describe_stage(context.recipe, context.collection, before, plan.index, size, world)
        model = context.runtime.place(at_size(copy.deepcopy(before), size))
        problem = problem_of(context, own, model, f"stage-{plan.index}-at-{size}")
        solved = solve(replace(problem, is_new_head=handover.had_new_head))
        mix_fix(context, own, at_size(before, size), model, is_new_head=handover.had_new_head)
        context.log.event("size_head", stage=plan.name, stage_index=plan.index, size=size, **solved.as_dict())
        found[size] = model
    return found


def kept_heads(
    fixed: nn.Module, moved: Names[str], heads: dict[int, nn.Module], rows: dict[int, dict[str, Any]]
) -> dict[int, SizeHead]:
    """Return what a product keeps of further sizes: the tensors of each, and its row of the report.

    These are the ones in which it differs and the ones that a fix may move, so that a head that came out as before is
    there like any other.
    """
    main = copy_state(fixed)
    kept = {}
    for size, model in heads.items():
        own = copy_state(model)
        names = sorted({*changed_tensors(main, own), *moved} & own.keys())
        row = rows.get(size, {})
        told: dict[str, Any] = {key: row[key] for key in ("top1", "top1_ci95", "loss", "gmacs") if key in row}
        kept[size] = SizeHead({name: own[name] for name in names}, told)
    return kept
