"""What the product of a run promises: certified on the selecting split, and what it comes to on the reported one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.promises import certify, probabilities_of, reached
from fixres.training.context import RunContext
from fixres.training.what_ships import Contender

MOST = 60_000_000
"""Pictures times classes: ImageNet's 50,000 of 1,000 fit, in 0.5 GB."""


def promises_of(
    context: RunContext,
    shipped: Contender,
    rows: Sequence[str],
    found: Sequence[Evaluation],
    on_select: tuple[Evaluation, int] | None = None,
) -> Any:
    """Return what `certify` made of the selecting split, with what else that split decided, and what is reached.

    Args:
        context: of the run.
        shipped: what its product holds.
        rows: labels of the comparison's rows.
        found: the evaluations behind them, in order; that of the shipped one has its logits.
        on_select: the shipped one on the selecting split, with logits, and its place there, where that is known.
    """
    collection = context.collection
    if collection.select == "train" or not can_promise(collection):
        return {}
    selecting, at = on_select or (
        context.measure(shipped.model, collection.select, [shipped.size], keep_logits=True),
        0,
    )
    kept = certify(probabilities_of(selecting.logits, at), selecting.labels, collection.classes)
    kept = {"split": collection.select, "uri": collection.uri, "also_chose": also_chosen(context.recipe), **kept}
    if collection.select == collection.report:
        # What certified a promise cannot also say whether it is kept.
        return kept
    place = rows.index(shipped.label)
    for one in found:
        if place < len(one.outcomes):
            figures = reached(kept, probabilities_of(one.logits, place), one.labels, collection.classes)
            return {**kept, "reached": {"split": collection.report, **figures}}
        place -= len(one.outcomes)
    raise AssertionError("the shipped row is behind one of the evaluations")


def can_promise(collection: Collection, num_sizes: int = 1) -> bool:
    """Return whether the probabilities of the selecting and the reported pictures fit in memory, at so many sizes."""
    num = max(len(collection.split(name)) for name in (collection.select, collection.report))
    return num * len(collection.classes) * num_sizes <= MOST


def also_chosen(recipe: Recipe) -> list[str]:
    """Return what the selecting split decided of the network, so that promises hold given it alone."""
    stages = recipe.run_stages
    decided = {
        "the epoch": recipe.evaluation.keep == "best" and any(s.solver == "sgd" for s in stages),
        "the strength of the head's pull": any(
            (s.solver != "sgd" or s.head == "solved") and not s.decay for s in stages
        ),
        "the size": any(s.size == "auto" for s in stages),
        "the share of the fix": any(s.mix == "auto" for s in stages),
        "what ships": recipe.evaluation.ship == "best",
    }
    return [what for what, is_so in decided.items() if is_so]
