"""What a run reports in the end: accuracy before and after its last stage, and the product it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import Sheet
from fixres.checkpoints.resolve import license_of
from fixres.errors import UserError
from fixres.evaluation.activation_statistics import FILE as ACTIVATIONS
from fixres.evaluation.activation_statistics import write_activations
from fixres.evaluation.evaluate import Evaluation, conditions
from fixres.evaluation.metrics import without_confusion
from fixres.evaluation.results import Run
from fixres.io.csv_text import CsvRows
from fixres.io.files import write_text
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.sizes import bound_size
from fixres.training.context import RunContext
from fixres.training.size_choice import sizes_to_measure, sweep
from fixres.training.stage_plan import StagePlan
from fixres.training.train_size_control import Before, Compared, compare

PICTURES = "comparison.csv"
"""In the run folder: one row per reported picture, with what each row of the comparison predicts.

People open it in spreadsheets: names that begin like a formula are marked, and `read_marked` reads it."""


@dataclass
class Handover:
    """What one stage hands to the next."""

    model: nn.Module
    train_size: int
    """Size of the last stage that trained, not fixed."""
    label: str = "raw"
    """Which weights it holds: ema | raw."""
    before: nn.Module | None = None
    """The network as the last fix found it."""
    is_new_head: bool = False
    """Whether the head is a random one that no stage has trained."""
    had_new_head: bool = False
    """Whether that of `before` is."""


def finish(context: RunContext, plan: StagePlan, handover: Handover) -> Run:
    """Measure what ships on the report split, compare it with what was before a fix, and write the product.

    What only the report shows comes after the product: where that cannot be written, the run has a note in its place.
    """
    model = handover.model
    moved: dict[str, Tensor] = {}
    sizes: list[int] = []
    if handover.before is not None:
        moved = tensors_before(handover.before, model)
        sizes = sizes_to_measure(context, model, handover.train_size, plan.size)
        sweep(context, model, sizes, "fixed")
        before = Before(handover.before, handover.train_size, handover.had_new_head)
        outcome, evaluations = _record(context, plan.size, compare(context, plan, before, model))
    else:
        outcome, evaluations = _report(context, plan, model)
    final = evaluations[-1]
    sheet = Sheet(
        classes=context.collection.classes,
        preprocess=context.preprocess.at(plan.size),
        train_size=handover.train_size,
        moves=plan.move_plan.moves,
        weights=handover.label,
        results=[{"split": outcome.split, "num_images": outcome.num_images, **lasting(r)} for r in final.results],
        evaluation=conditions(
            context.collection.split(outcome.split), outcome.num_images, context.reading.batch_size, context.runtime
        ),
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
        before_size=bound_size(handover.before) if handover.before is not None else None,
        has_new_head=handover.had_new_head and handover.before is not None,
    )
    if context.runtime.processes.is_main:
        save_product(context.folder / "model", model, sheet, moved)
        _or_note(
            context, PICTURES, lambda: _write_pictures(context, [row["label"] for row in outcome.rows], evaluations)
        )
        _or_note(context, ACTIVATIONS, lambda: _write_activations(context, handover, sizes))
    context.log.event("done", seconds=round(context.watch.seconds, 3))
    context.log.status("done", 0)
    return outcome


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


def _report(context: RunContext, plan: StagePlan, model: nn.Module) -> tuple[Run, list[Evaluation]]:
    """Measure a run without a fix: against size on the selecting split, at its own size on the report split."""
    if context.recipe.evaluation.sizes:
        sizes = sorted({plan.size, *context.recipe.evaluation.sizes})
        sweep(context, model, sizes, "trained")
    found = context.measure(model, context.collection.report, [plan.size])
    rows = [{"label": "trained", **result} for result in found.results]
    return _record(context, plan.size, Compared(rows, [found]))


def _write_pictures(context: RunContext, labels: list[str], evaluations: Sequence[Evaluation]) -> None:
    """Write for every picture what each row of the comparison predicts, how surely, and the loss it pays."""
    split = context.collection.split(context.collection.report)
    classes = context.collection.classes
    figures = [f"{label} {figure}" for figure in ("loss", "probability") for label in labels]
    rows = [["path", "label", *labels, *figures]]
    predictions, losses, probabilities = (
        np.concatenate([getattr(found, name) for found in evaluations])
        for name in ("predictions", "losses", "probabilities")
    )
    for column, index in enumerate(evaluations[0].indices):
        predicted = [classes[int(k)] for k in predictions[:, column]]
        paid = [f"{value:.6f}" for value in (*losses[:, column], *probabilities[:, column])]
        label = classes[int(evaluations[0].labels[column])]
        rows.append([split.paths[int(index)], label, *predicted, *paid])
    write_text(context.folder / PICTURES, CsvRows(spreadsheet=True).text(rows))


def _record(context: RunContext, size: int, found: Compared) -> tuple[Run, list[Evaluation]]:
    split, num_images = context.collection.report, found.evaluations[-1].num_images
    differences = tuple(found.fields.get("differences", ()))
    outcome = Run(context.folder, size, split, num_images, tuple(found.rows), found.paired, differences)
    fields = {"paired": asdict(found.paired) if found.paired else None, **found.fields}
    context.log.event("comparison", split=split, num_images=num_images, rows=found.rows, **fields)
    return outcome, found.evaluations


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a repeated run would find again: no speed, and no confusion matrix in a file people read."""
    return {key: value for key, value in without_confusion(result).items() if key != "images_per_second"}
