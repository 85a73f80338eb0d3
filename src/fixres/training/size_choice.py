"""The size of a fix: what is measured on the selecting split, and which size it decides for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.metrics import without_confusion
from fixres.models.sizes import Offer, offer_sizes
from fixres.resolution import choose_size
from fixres.training.context import RunContext
from fixres.training.stage_plan import is_fix


def decide_size(context: RunContext, model: nn.Module, index: int, train_size: int, is_new_head: bool = False) -> int:
    """Return the size of stage `index`. Before a fix, measure the network against size on the selecting split."""
    stage = context.recipe.run_stages[index]
    if is_new_head:
        return _size_of_new_head(context, model, index, train_size)
    if stage.size != "auto" and not (is_fix(context.recipe, index) and context.measures):
        return stage.size
    model = context.runtime.place(model)
    sizes = sizes_to_measure(context, model, train_size, stage.size)
    found = sweep(context, model, sizes, "before")
    if stage.size != "auto":
        return stage.size
    at_least = _offer(context, model, train_size).matching
    # With a head for every size, the one that ships is one of them.
    able = [place for place, one in enumerate(sizes) if not stage.head_sizes or one in stage.head_sizes]
    works = [found.results[place]["gmacs"] for place in able]
    size, why = choose_size([sizes[place] for place in able], found.correct()[able], works, at_least)
    context.log.event("chosen", size=size, why=why, split=context.collection.select, num_images=found.num_images)
    return size


def _size_of_new_head(context: RunContext, model: nn.Module, index: int, train_size: int) -> int:
    """Return the size of stage `index`; of a fix that begins with a random head, whose accuracy says nothing.

    Where the recipe leaves it open, it is the size at which objects look most nearly as large as in training.
    """
    stage = context.recipe.run_stages[index]
    if stage.size != "auto":
        return stage.size
    matching = _offer(context, model, train_size).matching
    size = min(sizes_to_measure(context, model, train_size, "auto"), key=lambda one: (abs(one - matching), one))
    text = f"test size {size} px: the head is new, so accuracy before the fix cannot choose it; "
    context.log.event("note", text=f"{text}at {matching} px objects look as large as in training")
    return size


def sweep_sizes(wanted: Sequence[int], train_size: int, stage_size: int | str) -> list[int]:
    """Return the sizes to measure: those wanted, the train size and, where it has one, the stage's own."""
    own = {train_size} if isinstance(stage_size, str) else {train_size, stage_size}
    return sorted(own.union(wanted))


def sizes_to_measure(context: RunContext, model: nn.Module, train_size: int, stage_size: int | str) -> list[int]:
    """Return the sizes of the recipe, or else those worth measuring, with those of `sweep_sizes`."""
    wanted = context.recipe.evaluation.sizes or _offer(context, model, train_size).sizes
    return sweep_sizes(wanted, train_size, stage_size)


def _offer(context: RunContext, model: nn.Module, train_size: int) -> Offer:
    return offer_sizes(model, context.preprocess.at(train_size), context.recipe.train)


def sweep(
    context: RunContext, model: nn.Module, sizes: list[int], label: str, *, keep_logits: bool = False
) -> Evaluation:
    """Measure and record accuracy against size on the selecting split."""
    select = context.collection.select
    found = context.measure(model, select, sizes, keep_logits=keep_logits)
    results = [without_confusion(r) for r in found.results]
    context.log.event("sweep", split=select, label=label, num_images=found.num_images, results=results)
    return found
