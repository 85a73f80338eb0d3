"""What a run could ship and what it does: the solved heads, the trained and the fixed network on the same pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from fixres.data.class_weights import class_weights
from fixres.data.sampling import stratified_folds
from fixres.evaluation.shipping import Candidate, Kind, cheapest_probe, choose_to_ship, loss_difference
from fixres.evaluation.temperature_scaling import cross_fitted_losses, fit_temperature
from fixres.models.moves import make_plan
from fixres.models.sizes import at_size
from fixres.training.cached_solver.cross_validation import NUM_FOLDS
from fixres.training.context import RunContext
from fixres.training.handover import Handover
from fixres.training.head_start import solve_head
from fixres.training.stage_plan import StagePlan


@dataclass(frozen=True)
class Contender:
    """A network that could ship, and what its sheet says."""

    kind: Kind
    label: str
    """Of its row in the comparison."""
    model: nn.Module
    size: int
    train_size: int
    moves: str
    weights: str
    """ema | raw."""
    decay: float | None = None
    """Of a probe: the strength of its head's pull."""


def last_made(plan: StagePlan, handover: Handover) -> Contender:
    """Return what the last stage of a run made."""
    kind: Kind = "trained" if handover.before is None else "fixed"
    size, train_size = plan.size, handover.train_size
    return Contender(kind, kind, handover.model, size, train_size, plan.move_plan.moves, handover.label)


def solved_probes(context: RunContext, plan: StagePlan, handover: Handover) -> list[Contender]:
    """Solve the head of the network a run started from, at the sizes the recipe names; the smallest first.

    It names none: the train size and that of a fix, where a head that the first stage started from is one of them.
    """
    assert handover.start is not None, "nothing to solve a head on was kept"
    stages = context.recipe.run_stages
    first, sizes = stages[0], set(context.recipe.evaluation.probe_sizes)
    if not sizes:
        sizes = {plan.size, handover.train_size} if handover.before is not None and len(stages) > 1 else {plan.size}
        if first.head == "solved" and isinstance(first.size, int):
            sizes.add(first.size)
    weights = class_weights(context.recipe.data.class_weights, context.collection.split("train"))
    found = []
    for size in sorted(sizes):
        model = at_size(copy.deepcopy(handover.start), size)
        asked = replace(plan, stage=first, size=size, class_weights=weights)
        # A first stage that starts from a solved head has solved this one already.
        cache = "head-0" if (first.head, first.size) == ("solved", size) else f"probe-{size}"
        chosen = solve_head(context, asked, model, handover.has_new_start, cache).chosen
        decay = chosen.decay if chosen else None
        model = context.runtime.place(model)
        found.append(Contender("probe", f"probe {size}", model, size, size, "head", "raw", decay))
    return found


def contenders(context: RunContext, plan: StagePlan, handover: Handover) -> list[Contender]:
    """Return everything a run could ship, by the work it took."""
    last, stages = last_made(plan, handover), context.recipe.run_stages
    found = solved_probes(context, plan, handover)
    if handover.before is not None and len(stages) > 1:
        stage, size, model = stages[-2], handover.train_size, handover.before
        moves = make_plan(at_size(model, size), stage.moves, size, stage.freeze, stage.norm_statistics).moves
        found.append(Contender("trained", "train size", model, size, size, moves, handover.before_label))
    return [*found, last]


def choose(context: RunContext, found: Sequence[Contender]) -> Contender:
    """Measure contenders on the selecting split, each with temperatures of its own, and return what ships."""
    select = context.collection.select
    results, candidates, indices = [], [], []
    for contender in found:
        measured = context.measure(contender.model, select, [contender.size], keep_logits=True)
        result = measured.results[0]
        assert measured.logits is not None
        logits, labels = torch.from_numpy(measured.logits[0]), torch.from_numpy(measured.labels)
        losses = cross_fitted_losses(logits, labels, stratified_folds(measured.labels, NUM_FOLDS, 0))
        candidates.append(Candidate(contender.kind, losses, result["gmacs"]))
        after = {"temperature": fit_temperature(logits, labels), "loss_calibrated": float(losses.mean())}
        results.append({**{key: result[key] for key in ("top1", "loss", "gmacs")}, **after})
        indices.append(measured.indices)
    assert all(np.array_equal(own, indices[0]) for own in indices), "every contender is measured on the same pictures"
    place, base = choose_to_ship(candidates), candidates[cheapest_probe(candidates)]
    rows = []
    for number, (contender, result) in enumerate(zip(found, results, strict=True)):
        gap, error = loss_difference(candidates[number], base)
        rows.append(
            {
                "kind": contender.kind,
                "label": contender.label,
                "size": contender.size,
                "decay": contender.decay,
                **result,
                "difference": gap,
                "standard_error": error if np.isfinite(error) else None,
                "is_shipped": number == place,
            }
        )
    context.log.event("candidates", split=select, num_images=len(indices[0]), candidates=rows)
    return found[place]
