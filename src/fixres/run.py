"""A whole run, top to bottom: open the pictures, build the network, run the stages, measure, write the product."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fixres import checkpoint, legacy, models
from fixres.comparison import Carried, Outcome, decide_size, finish
from fixres.config import Recipe
from fixres.data.collections import Collection, open_collection
from fixres.errors import UserError
from fixres.product import Product, load
from fixres.recipes import flatten, read_document, to_yaml, validate
from fixres.recipes.yamltext import parse
from fixres.resolution import Preprocess
from fixres.runlog import Listener, RunLog, environment, write_text, write_with
from fixres.runtime import Runtime
from fixres.train import StageRun, Workshop, describe_stage, run_stage


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
    text = to_yaml(recipe)
    was_there = folder.exists()
    saved, how = find_start(folder, text, resume)
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
    shop = Workshop(recipe, text, folder, collection, runtime, start.preprocess, log)
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
    _check_same_recipe(saved["recipe"], recipe_text, folder)
    return saved, f"start: from the checkpoint at step {saved['step']} of stage {saved['stage_index'] + 1}"


def _check_same_recipe(saved: str, now: str, folder: Path) -> None:
    """Refuse to go on under another recipe; comments, runtime and output may differ."""
    old, new = (_settings(text) for text in (saved, now))
    different = [
        f"  {key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    ]
    if different:
        raise UserError(f"{folder} was started with another recipe\n" + "\n".join(different[:12]))


def _settings(text: str) -> dict[str, Any]:
    ignored = ("runtime.", "output.", "data.workers", "evaluation.batch_size", "evaluation.every_epochs")
    settings = flatten(parse(text, "recipe.yaml").values)
    return {key: value for key, value in settings.items() if not key.startswith(ignored)}


class Start(NamedTuple):
    """A network with the weights a run starts from, its test-time preprocessing, and what became of its head."""

    model: nn.Module
    preprocess: Preprocess
    note: str


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


def starting_network(recipe: Recipe, collection: Collection) -> Start:
    """Build the network of a recipe with the weights it starts from, and its test-time preprocessing.

    A head for other classes than the collection's is replaced by a random one.

    Raises:
        UserError: unknown model, or weights that do not fit.
    """
    settings = recipe.model
    num_classes = len(collection.classes)
    if settings.num_classes not in ("data", num_classes):
        raise UserError(
            f"model.num_classes {settings.num_classes}, but {collection.uri} has {num_classes}\n"
            "  leave it out: the head follows the data"
        )
    product: Product | None = None
    note = f"the head starts from random weights, for {num_classes} classes"
    if settings.weights == "none":
        note = ""
        model = models.build(settings.name, num_classes, settings.kwargs, settings.init)
    elif settings.weights == "pretrained":
        model = models.build(settings.name, num_classes, settings.kwargs, settings.init)
        _load_body(model, models.fetch_pretrained(settings.name), f"the pretrained weights of {settings.name}")
    elif settings.weights.startswith("package:"):
        model = _packaged(settings.name, settings.weights, num_classes)
    else:
        product = load(settings.weights, model_name=settings.name)
        if product.architecture.split(".")[0] != settings.name.split(".")[0]:
            raise UserError(f"{settings.weights} holds '{product.architecture}', the recipe says '{settings.name}'")
        model = product.model
        if product.classes == collection.classes:
            note = ""
        else:
            models.reset_head(model, num_classes)
    statistics = models.input_statistics(model)
    evaluation = recipe.evaluation
    kept = product.preprocess if product is not None and product.details else None
    interpolation = kept.interpolation if kept else statistics.interpolation
    preprocess = Preprocess(
        size=models.default_size(model),
        crop_ratio=evaluation.crop_ratio,
        resize=evaluation.resize,
        interpolation=interpolation if evaluation.interpolation == "model" else evaluation.interpolation,  # type: ignore[arg-type]
        mean=(kept.mean if kept else statistics.mean) if settings.mean == "model" else settings.mean,
        std=(kept.std if kept else statistics.std) if settings.std == "model" else settings.std,
        exif=recipe.data.exif,
        alpha=recipe.data.alpha,
        exact=evaluation.exact,
    )
    return Start(model, preprocess, note)


def _load_body(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load everything but the head, which keeps its random weights when the number of classes differs."""
    own = model.state_dict()
    heads = tuple(f"{name}." for name in models.head_names(model))
    for name in own:
        if name.startswith(heads) and name in state and state[name].shape != own[name].shape:
            state[name] = own[name]
    models.load_strict(model, state, source)


def fix_recipe(product: Product, uri: str | None, settings: dict[str, Any], seed: int) -> Recipe:
    """Return the recipe that fixes `product`: no training stage, one fix stage with `settings`.

    The pictures, and how they were cropped in training, come from the recipe of the run the product belongs to when
    it is there.

    Raises:
        UserError: no data given and none stored.
    """
    stored = product.details.get("data", {})
    path = Path(product.source).parent / "recipe.yaml"
    raw: dict[str, Any] = dict(read_document(path).values) if path.exists() else {}
    data = {**raw.get("data", {}), "uri": uri or stored.get("uri", "")}
    if not data["uri"]:
        raise UserError(f"{product.source} does not say which data it is for\n  --data URI")
    p = product.preprocess
    evaluation = {**raw.get("evaluation", {}), "interpolation": p.interpolation}
    evaluation |= {"crop_ratio": p.crop_ratio, "resize": p.resize, "exact": p.exact}
    if p.resize in ("squash", "pad"):
        evaluation.pop("crop_ratio")
    own_fix = raw.get("fix") or {}
    train = raw.get("train") or (raw.get("stages") or [{}])[0]
    return validate(
        {
            **{key: value for key, value in raw.items() if key in ("optim", "schedule", "ema", "augment", "runtime")},
            "seed": seed,
            "data": {**data, "exif": p.exif, "alpha": p.alpha},
            "model": {"name": product.architecture, "weights": product.source, "mean": p.mean, "std": p.std},
            "train": {**train, "enabled": False, "size": product.train_size},
            "fix": {**(own_fix if own_fix.get("enabled") else {}), **settings, "enabled": True},
            "evaluation": evaluation,
        }
    )


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


def _packaged(name: str, weights: str, num_classes: int) -> nn.Module:
    wanted = models.PACKAGED_WEIGHTS.get(weights)
    if wanted is None:
        raise UserError(f"unknown weights '{weights}'\n  allowed: {', '.join(models.PACKAGED_WEIGHTS)}")
    if name != wanted:
        raise UserError(f"{weights} holds '{wanted}', the recipe says '{name}'\n  --model.name {wanted}")
    path = legacy.packaged_lite0_file()
    model = models.build(name, 1000)
    state = legacy.from_lukemelas(checkpoint.read_weights(Path(path)), model, weights)
    models.load_strict(model, state, weights)
    models.reset_head(model, num_classes)
    return model


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
    started = time.perf_counter()
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
        stage_started = time.perf_counter()
        state = run_stage(shop, run, carried.model, resumed)
        seconds = round(time.perf_counter() - stage_started, 3)
        shop.log.event("stage_done", stage=run.name, stage_index=index, size=size, seconds=seconds)
        if run.name == "fix":
            shop.log.event("fix", size=size, plan=_plan_fields(run), solver_seconds=seconds)
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
    return finish(shop, run, carried, started)


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
