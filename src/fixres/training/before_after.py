"""What a run reports in the end: accuracy before and after its last stage, and the product it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from fixres.checkpoints.folder_write import save_product
from fixres.errors import UserError
from fixres.evaluation.activation_statistics import FILE as ACTIVATIONS
from fixres.evaluation.activation_statistics import write_activations
from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.results import Run
from fixres.io.tensors import changed_tensors, copy_state
from fixres.training.comparison_table import PICTURES, write_pictures
from fixres.training.context import RunContext
from fixres.training.elsewhere import measure_elsewhere
from fixres.training.handover import Handover
from fixres.training.product_promises import can_promise, promises_of
from fixres.training.product_sheet import sheet_of
from fixres.training.size_choice import sizes_to_measure, sweep
from fixres.training.size_heads import kept_heads, solve_size_heads
from fixres.training.stage_plan import StagePlan
from fixres.training.train_size_control import Before, Compared, compare
from fixres.training.what_ships import Contender, choose, contenders, last_made


def finish(context: RunContext, plan: StagePlan, handover: Handover) -> Run:
    """Measure what ships on the report split, compare it with what else there was, and write the product.

    What only the report shows comes after the product: where that cannot be written, the run has a note in its place.
    """
    shipped, probes = last_made(plan, handover), []
    if context.recipe.evaluation.ship == "best":
        able = contenders(context, plan, handover)
        shipped, probes = choose(context, able), [one for one in able if one.kind == "probe"]
    if not context.measures:
        return _unmeasured(context, shipped, handover)
    sizes: list[int] = []
    on_select: tuple[Evaluation, int] | None = None
    if handover.before is not None:
        sizes = sizes_to_measure(context, handover.model, handover.train_size, plan.size)
        is_kept = shipped.kind == "fixed" and can_promise(context.collection, len(sizes))
        swept = sweep(context, handover.model, sizes, "fixed", keep_logits=is_kept)
        on_select = (swept, sizes.index(shipped.size)) if is_kept else None
    heads = solve_size_heads(context, plan, handover)
    kept = shipped.label if can_promise(context.collection) else ""
    found = _compared(context, plan, handover, probes, (kept, heads))
    outcome = _record(context, found, shipped)
    labels = [row["label"] for row in outcome.rows]
    promises = promises_of(context, shipped, labels, found.evaluations, on_select)
    if context.runtime.processes.is_main:
        rows = {row["size"]: row for row in found.rows if str(row["label"]).startswith("fixed")}
        if heads and shipped.kind != "fixed":
            context.log.event("note", text=f"the heads of further sizes are not kept: what ships is {shipped.label}")
        own = kept_heads(shipped.model, plan.move_plan.tensors, heads, rows) if shipped.kind == "fixed" else {}
        _save(context, outcome, shipped, handover, {"promises": promises, "heads": own})
        _or_note(context, PICTURES, lambda: write_pictures(context, labels, found.evaluations))
        _or_note(context, ACTIVATIONS, lambda: _write_activations(context, handover, sizes))
    measure_elsewhere(context, plan, handover, shipped)
    context.log.event("done", seconds=round(context.watch.seconds, 3))
    context.log.status("done", 0)
    return outcome


def _unmeasured(context: RunContext, shipped: Contender, handover: Handover) -> Run:
    """Write the product of a run that trained on everything that has a label, and has no figures of its own."""
    outcome = Run(context.folder, shipped.size, "", 0, (), None)
    if context.runtime.processes.is_main:
        _save(context, outcome, shipped, handover)
    context.log.event("done", seconds=round(context.watch.seconds, 3))
    context.log.status("done", 0)
    return outcome


def _save(
    context: RunContext, outcome: Run, shipped: Contender, handover: Handover, more: Mapping[str, Any] | None = None
) -> None:
    """Write the product; `more`: fields of its sheet that say what else was made."""
    moved: dict[str, Tensor] = {}
    if shipped.kind == "fixed" and handover.before is not None:
        moved = tensors_before(handover.before, shipped.model)
    sheet = replace(sheet_of(context, outcome, shipped, handover), **(more or {}))
    save_product(context.folder / "model", shipped.model, sheet, moved)


def _or_note(context: RunContext, name: str, write: Callable[[], None]) -> None:
    try:
        write()
    except (UserError, OSError, UnicodeError) as error:
        context.log.event("note", text=f"{name} was not written: {error}")


def _write_activations(context: RunContext, handover: Handover, sizes: Sequence[int]) -> None:
    """Write what the head is given at every size, before a fix and after it; nothing where there was no fix."""
    if handover.before is None:
        return
    views = [context.preprocess.at(size) for size in sizes if size != handover.train_size]
    write_activations(
        context.folder,
        handover.before,
        handover.model,
        context.collection.split(context.collection.select),
        [context.preprocess.at(handover.train_size), *views],
        context.recipe.run_stages[0] if context.recipe.stages else context.recipe.train,
        (context.runtime, context.reading),
    )


def tensors_before(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `before` that a fix changed, or that a new size reshaped."""
    old, new = copy_state(before), copy_state(after)
    return {name: old[name] for name in sorted(changed_tensors(old, new)) if name in old}


def _compared(
    context: RunContext,
    plan: StagePlan,
    handover: Handover,
    probes: Sequence[Contender],
    made: tuple[str, Mapping[int, nn.Module]],
) -> Compared:
    """Measure everything on the report split: probes, before a fix, and what the last stage made.

    `made`: the row of which logits are kept, and the networks of further sizes.
    """
    shipped, heads = made
    report = context.collection.report
    first = [
        (one.label, context.measure(one.model, report, [one.size], keep_logits=one.label == shipped)) for one in probes
    ]
    if handover.before is not None:
        before = Before(handover.before, handover.train_size, handover.had_new_head)
        found = compare(context, plan, before, handover.model, heads, shipped)
    else:
        if context.recipe.evaluation.sizes:
            sweep(context, handover.model, sorted({plan.size, *context.recipe.evaluation.sizes}), "trained")
        last = context.measure(handover.model, report, [plan.size], keep_logits=shipped == "trained")
        found = Compared([{"label": "trained", **last.results[0]}], [last])
    rows = [{"label": label, **measured.results[0]} for label, measured in first]
    return replace(
        found, rows=[*rows, *found.rows], evaluations=[*(measured for _, measured in first), *found.evaluations]
    )


def _record(context: RunContext, found: Compared, shipped: Contender) -> Run:
    """Log the comparison and return it."""
    rows, split, num_images = found.rows, context.collection.report, found.evaluations[-1].num_images
    if context.recipe.evaluation.ship == "best":
        rows = [{**row, "is_shipped": row["label"] == shipped.label} for row in rows]
    differences = tuple(found.fields.get("differences", ()))
    outcome = Run(context.folder, shipped.size, split, num_images, tuple(rows), found.paired, differences)
    fields = {"paired": asdict(found.paired) if found.paired else None, **found.fields}
    context.log.event("comparison", split=split, num_images=num_images, rows=rows, **fields)
    return outcome
