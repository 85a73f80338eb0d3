"""The head a stage starts with: as it came, new, or solved on the features of the frozen network."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from fixres.data.sampling import sample_seed
from fixres.errors import UserError
from fixres.models.build import reset_head
from fixres.models.moves import make_plan
from fixres.models.split_trunk import BrokenWeightsError, require_linear_head
from fixres.training.cached_solver.solve import Solution, solve
from fixres.training.cached_solver.solve_stage import problem_of, tell
from fixres.training.context import RunContext
from fixres.training.stage_plan import StagePlan

MOST_HEAD_VIEWS = 2
"""The test-time view and its mirror image, at most: what the features of a probe are taken of."""


def set_head(context: RunContext, plan: StagePlan, model: nn.Module, is_new: bool) -> bool:
    """Give a network at the stage's size the head its stage starts with; return whether that is a random one.

    Args:
        context: of the run.
        plan: of the stage.
        model: changed in place.
        is_new: whether its head is a random one already, which is then neither drawn again nor pulled towards.

    Raises:
        UserError: pictures cannot be read.
        Stopped: a signal came; features that are complete are kept for a rerun.
    """
    kind = plan.stage.head
    if kind == "new" and not is_new:
        torch.manual_seed(sample_seed(context.recipe.seed, plan.index, 0, 0, 3) % 2**63)
        reset_head(model, len(context.collection.classes))
    if kind == "solved":
        found = solve_head(context, plan, model, is_new, f"head-{plan.index}")
        tell(context, replace(plan, stage=plan.stage.model_copy(update={"views": found.num_views})), found)
    return kind == "new" or (is_new and kind != "solved")


def solve_head(context: RunContext, plan: StagePlan, model: nn.Module, is_new: bool, cache: str) -> Solution:
    """Solve the head of a network in place; nothing else moves.

    It is the plain logistic regression of a probe: what the stage smooths labels by is not asked for. A rerun after an
    interruption finds the same in `cache`, a folder of its own in RUN/cache.
    """
    model = context.runtime.place(model)
    asked = problem_of(context, plan, model, cache)
    views = min(MOST_HEAD_VIEWS, plan.stage.views)
    head = make_plan(model, "head", plan.size)
    return solve(replace(asked, plan=head, num_views=views, label_smoothing=0.0, is_new_head=is_new))


def require_solvable_head(model: nn.Module, size: int, key: str) -> None:
    """Refuse a network at `size` whose head cannot be solved, before anything runs.

    Raises:
        UserError: naming what it has instead of one linear layer, and the setting `key` that asks for it.
    """
    try:
        require_linear_head(model, size)
    except BrokenWeightsError:
        raise
    except UserError as error:
        what = str(error).splitlines()[0]
        raise UserError(f"{key}: {what}\n  leave it out") from None
