"""A whole run, top to bottom: open the pictures, build the network, run the stages, measure, write the product."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fixres import checkpoint, models
from fixres.comparison import Carried, Outcome, decide_size, finish
from fixres.config import Recipe
from fixres.data.collections import Collection, absolute_uri, open_collection
from fixres.errors import UserError
from fixres.metrics import PairedDifference
from fixres.recipes import flatten, to_yaml
from fixres.recipes.yamltext import parse
from fixres.runlog import Listener, RunLog, environment, read_events, write_text, write_with
from fixres.runtime import Runtime
from fixres.start import Start, starting_network, weights_and_kind
from fixres.train import StageRun, Stopwatch, Workshop, describe_stage, run_stage

MAY_DIFFER = (
    "runtime.",
    "output.",
    "data.workers",
    *(f"evaluation.{name}" for name in ("sizes", "batch_size", "every_epochs", "select_size", "keep")),
)
"""Settings a resumed run may change: none of them decides what a training step sees."""


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    split_from: Path | None = None,
) -> Outcome:
    """Run every stage of a recipe and write the run folder.

    Args:
        recipe: what to do.
        folder: run folder; must not hold a run unless `resume`.
        resume: go on from the last checkpoint, if there is one.
        listeners: told about every event and about progress.
        split_from: a split.json to keep to, so that a fix never trains on pictures it will report on.

    Raises:
        UserError: anything wrong with the recipe, the pictures, the weights or the folder.
    """
    recipe = with_absolute_paths(recipe)
    text = to_yaml(recipe)
    was_there = folder.exists()
    saved, how = find_start(folder, text, resume)
    if saved is not None and (finished := finished_outcome(folder)) is not None:
        return finished
    runtime = Runtime(recipe.runtime)
    try:
        if split_from is not None and split_from.exists() and not (folder / "split.json").exists():
            write_text(folder / "split.json", split_from.read_text(encoding="utf-8"))
        collection, start = _open(recipe, folder)
    except UserError:
        # Nothing has run: leave nothing behind that would stand in the way of the corrected command.
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    log = RunLog(folder, recipe.output.tracker, tuple(listeners))
    watch = Stopwatch(saved["run_seconds"] if saved else 0.0)
    shop = Workshop(recipe, text, folder, collection, runtime, start.preprocess, log, start.model_args, watch)
    try:
        log.truncate(saved["metrics_bytes"] if saved else 0)
        _announce(shop, how, start.note)
        return _run_stages(shop, start.model, saved)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        code = 130 if stopped else 2 if isinstance(error, UserError) else 1
        log.status("stopped" if stopped else "failed", code)
        raise
    finally:
        log.close()


def find_start(folder: Path, recipe_text: str, resume: bool) -> tuple[dict[str, Any] | None, str]:
    """Return the saved state to go on from, if any, and how the run starts, in words. The order counts.

    1. Not resuming, and the folder holds a run: refused.
    2. Not resuming: from the beginning.
    3. Resuming without a checkpoint: from the beginning, and it says so.
    4. Resuming: from the checkpoint, if the recipe is the same.

    Raises:
        UserError: case 1, or case 4 with another recipe or an unreadable checkpoint.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; give a folder with --out")
    holds_run = any((folder / name).exists() for name in ("metrics.jsonl", "checkpoints", "recipe.yaml"))
    if not resume and holds_run:
        raise UserError(f"{folder} already holds a run\n  go on with --resume, or give another folder with --out")
    if not resume:
        return None, "start: from the beginning"
    saved = checkpoint.read_state(folder)
    if saved is None:
        return None, f"start: {folder} holds no checkpoint, so from the beginning"
    changed = compare_recipes(saved["recipe"], recipe_text)
    fatal = [line for key, line in changed.items() if not key.startswith(MAY_DIFFER)]
    if fatal:
        raise UserError(
            f"{folder} was started with another recipe\n  " + "\n  ".join(fatal[:12]) + "\n  go on with the saved one, "
            f"fixres train {folder / 'recipe.yaml'} --out {folder} --resume, or give another folder with --out"
        )
    how = f"start: from the checkpoint at step {saved['step']} of stage {saved['stage_index'] + 1}"
    return saved, "; now ".join([how, *changed.values()])


def finished_outcome(folder: Path) -> Outcome | None:
    """Return what a run found if it is done, so that resuming it changes nothing."""
    status = folder / "status.json"
    if not status.exists() or json.loads(status.read_text(encoding="utf-8")).get("state") != "done":
        return None
    found = [event for event in read_events(folder) if event["event"] == "comparison"]
    if not found:
        return None
    event = found[-1]
    paired = (
        PairedDifference(**{**event["paired"], "ci95": tuple(event["paired"]["ci95"])}) if event["paired"] else None
    )
    return Outcome(folder, event["rows"][-1]["size"], event["split"], event["num_images"], event["rows"], paired)


def compare_recipes(saved: str, now: str) -> dict[str, str]:
    """Return {key: "key: old -> new"} for every setting in which two recipe texts differ."""
    old, new = (flatten(parse(text, "recipe.yaml").values) for text in (saved, now))
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys}


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with the folders it names made absolute, so that it can be run again from anywhere."""
    weights = recipe.model.weights
    path, which = weights_and_kind(weights)
    if path not in ("none", "pretrained") and Path(path).exists():
        weights = str(Path(path).absolute()) + (f"#{which}" if which != "fixed" else "")
    class_weights = recipe.data.class_weights
    if class_weights not in ("none", "auto"):
        class_weights = str(Path(class_weights).absolute())
    state = str(Path(recipe.optim.state).absolute()) if recipe.optim.state else ""
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(
                update={"uri": absolute_uri(recipe.data.uri), "class_weights": class_weights}
            ),
            "model": recipe.model.model_copy(update={"weights": weights}),
            "optim": recipe.optim.model_copy(update={"state": state}),
        }
    )


def _open(recipe: Recipe, folder: Path) -> tuple[Collection, Start]:
    """Open the pictures, build the network with its starting weights, and check that every stage suits both."""
    collection = open_collection(recipe.data, split_file=folder / "split.json")
    torch.manual_seed(recipe.seed)
    start = starting_network(recipe, collection)
    for index, stage in enumerate(recipe.run_stages):
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int), "training stages have a size"
        describe_stage(recipe, collection, start.model, index, size)
    for size in recipe.evaluation.sizes:
        models.at_size(start.model, size)
    return collection, start


def dry_run(recipe: Recipe) -> list[str]:
    """Return what a run would do: data, plan, steps, cost and the shape of the first batch; nothing is written."""
    collection = open_collection(recipe.data)
    torch.manual_seed(recipe.seed)
    model = starting_network(recipe, collection).model
    counts = ", ".join(f"{name} {len(split):,}" for name, split in collection.splits.items())
    lines = [f"{collection.uri}: {counts}", *(f"note: {note}" for note in collection.notes)]
    for index, stage in enumerate(recipe.run_stages):
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int), "training stages have a size"
        run = describe_stage(recipe, collection, model, index, size)
        forward = models.gmacs(models.at_size(model, size), size)
        # A backward pass costs about two forward ones.
        total = (3 if run.plan.moves == "all" else 1) * forward * run.total_steps * stage.batch_size / 1000
        when = " (size chosen when the stage starts)" if stage.size == "auto" else ""
        lines += [
            f"stage {run.name}: {run.plan.describe()}",
            f"  {run.total_steps:,} steps of [{stage.batch_size}, 3, {size}, {size}]{when}, "
            f"about {total:,.1f} teraMACs ({forward:.3f} GMACs a forward pass)",
        ]
    return lines


def _announce(shop: Workshop, how: str, note: str) -> None:
    """Write what is about to run before anything runs; how it starts comes first."""
    shop.log.event("begin", text=how)
    write_text(shop.folder / "recipe.yaml", shop.recipe_text)
    about = {**environment(), "device": shop.runtime.describe(), "seed": shop.recipe.seed}
    write_text(shop.folder / "environment.json", json.dumps(about, indent=2) + "\n")
    collection = shop.collection
    shop.log.event(
        "start",
        model=shop.recipe.model.name,
        weights=shop.recipe.model.weights,
        device=shop.runtime.describe(),
        uri=collection.uri,
        classes=list(collection.classes),
        num_images={name: len(split) for name, split in collection.splits.items()},
        select=collection.select,
        report=collection.report,
        notes=[*collection.notes, *([note] if note else [])],
    )
    shop.log.status("running")


def _run_stages(shop: Workshop, model: nn.Module, saved: dict[str, Any] | None) -> Outcome:
    """Run the stages in order, carrying the weights that ship from one to the next."""
    recipe = shop.recipe
    stages = recipe.run_stages
    carried = Carried(model, recipe.train.size if isinstance(recipe.train.size, int) else models.default_size(model))
    first = saved["stage_index"] if saved else 0
    if first:
        carried = _resume_carried(shop, model, first)
    run: StageRun | None = None
    for index in range(first, len(stages)):
        resumed = saved if index == first else None
        size = resumed["size"] if resumed else decide_size(shop, carried.model, index, carried.train_size)
        run = describe_stage(recipe, shop.collection, carried.model, index, size)
        carried.before = copy.deepcopy(carried.model) if run.name == "fix" else None
        carried.model = models.at_size(carried.model, size)
        _log_plan(shop, run)
        fix_started = time.perf_counter()
        state = run_stage(shop, run, carried.model, resumed)
        if run.name == "fix":
            shop.log.event(
                "fix", size=size, plan=_plan_fields(run), solver_seconds=round(time.perf_counter() - fix_started, 3)
            )
        else:
            carried.train_size = size
        carried.label = state.shipped_label
        if index + 1 < len(stages) and stages[index + 1].start_from == "raw":
            carried.label = "raw"
        else:
            carried.model.load_state_dict(state.shipped.state_dict())
        if index + 1 < len(stages):
            _leave(shop, carried, index + 1, size)
    assert run is not None, "a recipe has at least one enabled stage"
    return finish(shop, run, carried)


def _log_plan(shop: Workshop, run: StageRun) -> None:
    shop.log.event(
        "plan",
        stage=run.name,
        stage_index=run.index,
        size=run.size,
        text=run.plan.describe(),
        total_steps=run.total_steps,
        preprocess=shop.preprocess.at(run.size).describe(),
        crop=run.stage.crop,
    )
    if run.class_weights is not None:
        pairs = sorted(zip(run.class_weights, shop.collection.classes, strict=True))
        (low, light), (high, heavy) = pairs[0], pairs[-1]
        text = f"class weights from {low:.3g} ({light}) to {high:.3g} ({heavy}), mean 1 over the pictures"
        shop.log.event("note", text=text)


def _plan_fields(run: StageRun) -> dict[str, Any]:
    plan = run.plan
    return {
        "moves": plan.moves,
        "tensors": sorted(plan.tensors) if len(plan.tensors) <= 50 else [],
        "num_tensors": len(plan.tensors),
        "num_trained": plan.num_trained,
        "num_parameters": plan.num_parameters,
        "live_norms": list(plan.live_norms),
    }


def _leave(shop: Workshop, carried: Carried, index: int, size: int) -> None:
    """Write what stage `index` starts from, so that a resumed run finds it."""
    content = {
        "weights": carried.model.state_dict(),
        "label": carried.label,
        "size": size,
        "train_size": carried.train_size,
    }
    write_with(shop.folder / "checkpoints" / f"start-{index}.pt", lambda path: torch.save(content, path))


def _resume_carried(shop: Workshop, model: nn.Module, index: int) -> Carried:
    """Return what stage `index` started from."""
    content = checkpoint.read_checkpoint(shop.folder / "checkpoints" / f"start-{index}.pt")
    model = models.at_size(model, content["size"])
    models.load_strict(model, content["weights"], "the weights of the stage before")
    return Carried(shop.runtime.place(model), content["train_size"], content["label"])
