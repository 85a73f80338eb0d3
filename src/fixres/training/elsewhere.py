"""What the sizes of a run give on other pictures than its own (`evaluation.also`, `evaluation.corrupt`)."""

from __future__ import annotations

from fixres.config.recipe import Recipe
from fixres.data.collections import Collection
from fixres.errors import UserError
from fixres.evaluation.evaluate import network_views
from fixres.evaluation.other_pictures import Column, columns_of, open_elsewhere
from fixres.training.context import RunContext
from fixres.training.handover import Handover
from fixres.training.stage_plan import StagePlan
from fixres.training.train_size_control import label_before
from fixres.training.what_ships import Contender


def elsewhere(recipe: Recipe, collection: Collection) -> tuple[Column, ...]:
    """Return the other pictures a recipe names; none where it names none.

    Raises:
        UserError: a collection cannot be opened or has other classes, or there is no such corruption.
    """
    asked = recipe.evaluation
    if not (asked.also or asked.corrupt):
        return ()
    others = {uri: open_elsewhere(uri, collection.classes, recipe.data, "evaluation.also") for uri in asked.also}
    return columns_of(others, asked.corrupt, collection.split(collection.report))


def measure_elsewhere(context: RunContext, plan: StagePlan, handover: Handover, shipped: Contender) -> None:
    """Measure what was before a fix, what came out of it and what ships on other pictures, and leave that in the log.

    The product is there already: where other pictures cannot be read, the run has a note in place of their figures.
    """
    try:
        _measure(context, plan, handover, shipped)
    except UserError as error:
        context.log.event("note", text=f"other pictures were not measured: {error}")


def _measure(context: RunContext, plan: StagePlan, handover: Handover, shipped: Contender) -> None:
    columns = elsewhere(context.recipe, context.collection)
    if not columns:
        return
    networks = [("fixed" if handover.before is not None else "trained", handover.model, plan.size)]
    if handover.before is not None and not handover.had_new_head:
        sizes = sorted({handover.train_size, plan.size})
        before = [(label_before(size, handover.train_size), handover.before, size) for size in sizes]
        networks = [*before, *networks]
    if shipped.kind == "probe":
        networks = [(shipped.label, shipped.model, shipped.size), *networks]
    rows = []
    for label, model, size in networks:
        views = network_views(model, [context.preprocess.at(size)])
        top1 = [column.top1(views, context.runtime, context.reading)[0] for column in columns]
        rows.append({"label": label, "size": size, "top1": top1})
    told = [{"name": column.name, "num_images": len(column.split)} for column in columns]
    context.log.event("elsewhere", columns=told, rows=rows)
