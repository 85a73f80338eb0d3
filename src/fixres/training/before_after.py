"""What a run reports in the end: accuracy before and after its last stage, and the product it writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import Sheet
from fixres.checkpoints.resolve import license_of
from fixres.evaluation.activation_statistics import write_activations
from fixres.evaluation.evaluate import Evaluation, conditions
from fixres.evaluation.metrics import PairedDifference, paired_difference, without_confusion
from fixres.io.files import write_text
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.sizes import bound_size
from fixres.training.context import Workshop
from fixres.training.size_choice import log_sweep, sizes_to_measure, sweep_sizes
from fixres.training.stage_plan import StageRun

PICTURES = "comparison.csv"
"""In the run folder: one row per reported picture, with what each row of the comparison predicts."""


@dataclass
class Carried:
    """What one stage hands to the next."""

    model: nn.Module
    train_size: int
    """Size of the last stage that trained, not fixed."""
    label: str = "raw"
    """Which weights it holds: ema | raw."""
    before: nn.Module | None = None
    """The network as the last fix found it."""


@dataclass
class Outcome:
    """What a run found on its report split: one row, or three around a fix."""

    folder: Path
    size: int
    split: str
    num_images: int
    rows: list[dict[str, Any]]
    paired: PairedDifference | None = None


def finish(shop: Workshop, run: StageRun, carried: Carried) -> Outcome:
    """Measure what ships on the report split, compare it with what was before a fix, and write the product."""
    model = carried.model
    moved: dict[str, Tensor] = {}
    if carried.before is not None:
        moved = tensors_before(carried.before, model)
        sizes = sweep_sizes(sizes_to_measure(shop, model, carried.train_size), carried.train_size, run.size)
        log_sweep(shop, shop.measure(model, shop.collection.select, sizes), "fixed")
        if shop.runtime.processes.is_main:
            views = [shop.preprocess.at(size) for size in sizes if size != carried.train_size]
            write_activations(
                shop.folder,
                carried.before,
                model,
                shop.collection.split(shop.collection.select),
                [shop.preprocess.at(carried.train_size), *views],
                shop.recipe.run_stages[0] if shop.recipe.stages else shop.recipe.train,
                (shop.runtime, shop.reading),
            )
        outcome, final = _compare(shop, run, carried)
    else:
        outcome, final = _report(shop, run, model)
    sheet = Sheet(
        classes=shop.collection.classes,
        preprocess=shop.preprocess.at(run.size),
        train_size=carried.train_size,
        moves=run.plan.moves,
        weights=carried.label,
        results=[{"split": outcome.split, "num_images": outcome.num_images, **_lasting(r)} for r in final.results],
        evaluation=conditions(
            shop.collection.split(outcome.split), outcome.num_images, shop.reading.batch_size, shop.runtime
        ),
        data={
            "uri": shop.collection.uri,
            "split_seed": shop.recipe.data.split_seed,
            "holdout": shop.recipe.data.holdout,
            "license": shop.recipe.data.license,
            "weights": shop.recipe.model.weights,
            "weights_license": license_of(shop.recipe.model.weights),
        },
        model_args=shop.model_args,
        seed=shop.recipe.seed,
        before_size=bound_size(carried.before) if carried.before is not None else None,
    )
    if shop.runtime.processes.is_main:
        save_product(shop.folder / "model", model, sheet, moved)
    shop.log.event("done", seconds=round(shop.watch.seconds, 3))
    shop.log.status("done", 0)
    return outcome


def tensors_before(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `before` that a fix changed, or that a new size reshaped."""
    old, new = copy_state(before), copy_state(after)
    return {name: old[name] for name in sorted(changed_tensors(old, new)) if name in old}


def _report(shop: Workshop, run: StageRun, model: nn.Module) -> tuple[Outcome, Evaluation]:
    """Measure a run without a fix: against size on the selecting split, at its own size on the report split."""
    if shop.recipe.evaluation.sizes:
        sizes = sorted({run.size, *shop.recipe.evaluation.sizes})
        log_sweep(shop, shop.measure(model, shop.collection.select, sizes), "before")
    found = shop.measure(model, shop.collection.report, [run.size])
    rows = [{"label": "trained", **result} for result in found.results]
    _write_pictures(shop, ["trained"], [found])
    return _record(shop, run.size, rows, None, found.num_images), found


def _compare(shop: Workshop, run: StageRun, carried: Carried) -> tuple[Outcome, Evaluation]:
    """Measure before and after a fix on the same pictures."""
    assert carried.before is not None
    sizes = sorted({carried.train_size, run.size})
    earlier = shop.measure(carried.before, shop.collection.report, sizes)
    fixed = shop.measure(carried.model, shop.collection.report, [run.size])
    rows = [{"label": _label(result["size"], carried.train_size), **result} for result in earlier.results]
    rows.append({"label": "fixed", **fixed.results[0]})
    at_train = sizes.index(carried.train_size)
    paired = paired_difference(earlier.correct()[at_train], fixed.correct()[0])
    labels = [row["label"] for row in rows]
    _write_pictures(shop, labels, [earlier, fixed])
    return _record(shop, run.size, rows, paired, fixed.num_images), fixed


def _label(size: int, train_size: int) -> str:
    if size == train_size:
        return "train size"
    return "larger size only" if size > train_size else "smaller size only"


def _write_pictures(shop: Workshop, labels: list[str], evaluations: Sequence[Evaluation]) -> None:
    """Write for every picture what each row of the comparison predicts, how surely, and the loss it pays."""
    if not shop.runtime.processes.is_main:
        return
    split = shop.collection.split(shop.collection.report)
    classes = shop.collection.classes
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "path",
            "label",
            *labels,
            *(f"{label} loss" for label in labels),
            *(f"{label} probability" for label in labels),
        ]
    )
    predictions, losses, probabilities = (
        np.concatenate([getattr(found, name) for found in evaluations])
        for name in ("predictions", "losses", "probabilities")
    )
    for column, index in enumerate(evaluations[0].indices):
        predicted = [classes[int(k)] for k in predictions[:, column]]
        paid = [f"{value:.6f}" for value in (*losses[:, column], *probabilities[:, column])]
        label = classes[int(evaluations[0].labels[column])]
        writer.writerow([split.paths[int(index)], label, *predicted, *paid])
    write_text(shop.folder / PICTURES, buffer.getvalue())


def _record(
    shop: Workshop, size: int, rows: list[dict[str, Any]], paired: PairedDifference | None, num_images: int
) -> Outcome:
    outcome = Outcome(shop.folder, size, shop.collection.report, num_images, rows, paired)
    fields = asdict(paired) if paired else None
    shop.log.event("comparison", split=outcome.split, num_images=num_images, rows=rows, paired=fields)
    return outcome


def _lasting(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a repeated run would find again: no speed, and no confusion matrix in a file people read."""
    return {key: value for key, value in without_confusion(result).items() if key != "images_per_second"}
