"""The control of a fix: the head solved again at the train size, so that a gain splits into head and size."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from fixres.errors import UserError
from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.metrics import PairedDifference, paired_difference
from fixres.models.sizes import at_size
from fixres.models.split_trunk import require_solvable
from fixres.training.cached_solver.solve import solve
from fixres.training.cached_solver.solve_stage import problem_of
from fixres.training.context import RunContext
from fixres.training.mix import mix_fix
from fixres.training.size_heads import size_label
from fixres.training.stage_plan import StagePlan

CONTROL = "fixed at the train size"
"""Its row in the comparison."""


@dataclass(frozen=True)
class Control:
    """The network with its head solved at the train size, or why there is none."""

    model: nn.Module | None
    why_not: str = ""


@dataclass(frozen=True)
class Before:
    """What a fix began with."""

    model: nn.Module
    train_size: int
    has_new_head: bool
    """Whether its head is a random one, with which nothing is compared."""


@dataclass(frozen=True)
class Compared:
    """The rows of a comparison, the fixed one last, and what is behind them."""

    rows: list[dict[str, Any]]
    evaluations: list[Evaluation]
    paired: PairedDifference | None = None
    """Fixed minus before."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What the event says beside: `differences`, `control` and `new_head`."""


def compare(
    context: RunContext,
    plan: StagePlan,
    before: Before,
    fixed: nn.Module,
    heads: Mapping[int, nn.Module],
    shipped: str,
) -> Compared:
    """Measure what was before a fix, its control, the further sizes and what came out of it, on the same pictures.

    Logits are kept of the row `shipped`.
    """
    report = context.collection.report
    labels, found = [], []
    if not before.has_new_head:
        sizes = sorted({before.train_size, plan.size})
        found.append(context.measure(before.model, report, sizes, keep_logits=shipped == "train size"))
        labels += [label_before(size, before.train_size) for size in sizes]
    control = solve_control(context, plan, before.model, before.train_size, heads)
    if control.model is not None:
        found.append(context.measure(control.model, report, [before.train_size]))
        labels.append(CONTROL)
    for size, model in heads.items():
        if size != before.train_size or control.model is None:
            found.append(context.measure(model, report, [size]))
            labels.append(size_label(size))
    found.append(context.measure(fixed, report, [plan.size], keep_logits=shipped == "fixed"))
    labels.append("fixed")
    results = [result for one in found for result in one.results]
    correct = np.concatenate([one.correct() for one in found])
    return Compared(
        [{"label": label, **result} for label, result in zip(labels, results, strict=True)],
        found,
        None if before.has_new_head else paired_difference(correct[labels.index("train size")], correct[-1]),
        {
            "differences": differences(labels, correct),
            "control": control.why_not or CONTROL,
            "new_head": before.has_new_head,
        },
    )


def label_before(size: int, train_size: int) -> str:
    """Return what the row of a network before its fix is called, measured at a size."""
    if size == train_size:
        return "train size"
    return "larger size only" if size > train_size else "smaller size only"


def solve_control(
    context: RunContext, plan: StagePlan, before: nn.Module, train_size: int, heads: Mapping[int, nn.Module]
) -> Control:
    """Do at the train size what a cached fix did at its own, to a copy of the network it found.

    Solving a head again gains something at any size: it undoes what the last epochs, or their selection, left. Only
    what is left beside it comes from the size. The features are kept like those of the fix until the run is done.

    Raises:
        UserError: pictures cannot be read.
        Stopped: a signal came; features that are complete are kept for a rerun.
    """
    if not context.recipe.evaluation.control:
        return Control(None, "evaluation.control false leaves it out")
    if plan.stage.solver != "cached":
        return Control(None, "the fix was trained by sgd")
    if plan.size == train_size:
        return Control(None, "the fix is at the train size itself")
    if train_size in heads:
        return Control(heads[train_size])
    model = context.runtime.place(at_size(copy.deepcopy(before), train_size))
    try:
        require_solvable(model, plan.move_plan, train_size)
    except UserError as error:
        return Control(None, str(error).splitlines()[0])
    own = replace(plan, size=train_size)
    found = solve(problem_of(context, own, model, f"stage-{plan.index}-control"))
    mix_fix(context, own, at_size(before, train_size), model, is_new_head=False)
    context.log.event("control", stage=plan.name, stage_index=plan.index, size=train_size, **found.as_dict())
    return Control(model)


def differences(labels: Sequence[str], correct: np.ndarray) -> list[dict[str, Any]]:
    """Return the paired differences of a comparison in points: fixed minus every other row, and what the head gained.

    Args:
        labels: of the rows, the fixed one last.
        correct: bool `[rows, N]`, whether each picture is classified right.
    """
    rows = dict(zip(labels, correct, strict=True))
    pairs = [(labels[-1], label) for label in labels[:-1]]
    if CONTROL in rows and "train size" in rows:
        pairs.append((CONTROL, "train size"))
    return [{"row": row, "minus": minus, **asdict(paired_difference(rows[minus], rows[row]))} for row, minus in pairs]
