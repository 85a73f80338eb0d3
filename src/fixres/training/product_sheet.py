"""What the product of a run says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fixres.checkpoints.licences import license_of
from fixres.checkpoints.product import Sheet
from fixres.evaluation.evaluate import conditions
from fixres.evaluation.metrics import without_confusion
from fixres.evaluation.results import Run
from fixres.models.sizes import bound_size
from fixres.training.context import RunContext
from fixres.training.handover import Handover
from fixres.training.what_ships import Contender


def sheet_of(context: RunContext, outcome: Run, shipped: Contender, handover: Handover) -> Sheet:
    """Return the sheet of what ships, with the figures it reached where anything was measured."""
    is_fixed = shipped.kind == "fixed" and handover.before is not None
    results, measured_as = [], {}
    if outcome.rows:
        row = {key: value for key, value in lasting(outcome.shipped).items() if key not in ("label", "is_shipped")}
        results = [{"split": outcome.split, "num_images": outcome.num_images, **row}]
        split = context.collection.split(outcome.split)
        measured_as = conditions(split, outcome.num_images, context.reading.batch_size, context.runtime)
    return Sheet(
        classes=context.collection.classes,
        preprocess=context.preprocess.at(shipped.size),
        train_size=shipped.train_size,
        moves=shipped.moves,
        weights=shipped.weights,
        results=results,
        evaluation=measured_as,
        data={
            "uri": context.collection.uri,
            "split_seed": context.recipe.data.split_seed,
            "holdout": context.recipe.data.holdout,
            "license": context.recipe.data.license,
            "weights": context.recipe.model.weights,
            "weights_license": license_of(context.recipe.model.weights),
        },
        model_args=context.model_args,
        seed=context.recipe.seed,
        before_size=bound_size(handover.before) if is_fixed and handover.before is not None else None,
        has_new_head=(is_fixed and handover.had_new_head) or (shipped.kind == "probe" and handover.has_new_start),
    )


def lasting(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a repeated run would find again: no speed, and no confusion matrix in a file people read."""
    return {key: value for key, value in without_confusion(result).items() if key != "images_per_second"}
