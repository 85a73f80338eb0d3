"""A whole run, top to bottom: open the pictures, build the network, run the stages, measure, write the product."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fixres.config.loading import flatten, to_yaml
from fixres.config.recipe import Recipe
from fixres.data.all_labelled import open_to_train
from fixres.data.collections import Collection
from fixres.errors import EXIT_STOPPED, EXIT_USER_ERROR, Stopped, UserError
from fixres.evaluation.metrics import METRICS, PairedDifference, imbalance
from fixres.evaluation.results import Run
from fixres.io.files import remove_leftovers, write_text
from fixres.models.build import default_size
from fixres.models.moves import Plan
from fixres.models.sizes import at_size
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import (
    Listener,
    MuteLog,
    RunLog,
    environment,
    read_events,
    read_status,
    tell_end_of_dead,
)
from fixres.runtime.run_lock import RunLock
from fixres.runtime.trackers import required_trackers
from fixres.training.absolute_paths import with_absolute_paths
from fixres.training.before_after import finish
from fixres.training.cached_solver.solve_stage import CACHE, solve_stage
from fixres.training.context import RunContext, Stopwatch
from fixres.training.distillation import find_teacher
from fixres.training.elsewhere import elsewhere
from fixres.training.handover import Handover, leave, resume_handover
from fixres.training.head_start import require_solvable_head, set_head
from fixres.training.initial_weights import Start, starting_network
from fixres.training.loop import StageTrainer
from fixres.training.mix import mix_fix, require_mix
from fixres.training.resume import find_start, follow_data, keep_files, look_at, open_again, with_warmups_of
from fixres.training.size_choice import decide_size
from fixres.training.size_heads import require_size_heads
from fixres.training.stage_plan import StagePlan, describe_stage
from fixres.training.start_checks import AS_USUAL, StartChecks

_DETERMINISTIC = (
    "runtime.deterministic: an operation that cannot repeat to the bit stops the run; a step takes about as long on a "
    "CPU (ResNet-18 +14 %, EfficientNet-Lite0 +7 %, within the noise, n = 7), on a GPU it is not measured"
)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    extend: bool = False,
    listeners: Sequence[Listener] = (),
    split_from: Path | None = None,
    checks: StartChecks = AS_USUAL,
) -> Run:
    """Run every stage of a recipe and write the run folder.

    Args:
        recipe: what to do.
        folder: run folder; must not hold a run unless `resume`.
        resume: go on from the last checkpoint, if there is one.
        extend: with `resume`, the recipe may ask for more epochs than before.
        listeners: told about every event and about progress.
        split_from: a split.json to keep to, so that a fix never trains on pictures it will report on.
        checks: how sure of folder and pictures it has to be.

    Raises:
        UserError: anything wrong with the recipe, the pictures, the weights or the folder, or another run writes to it.
        Stopped: SIGTERM, SIGINT or SIGUSR1 came; `resume` goes on from the checkpoint written last.
    """
    recipe = with_absolute_paths(recipe)
    if extend and (folder / "recipe.yaml").exists():
        recipe = with_warmups_of(recipe, (folder / "recipe.yaml").read_text(encoding="utf-8", errors="surrogateescape"))
    text = to_yaml(recipe)
    if not resume:
        find_start(folder, text, resume)
    required_trackers(recipe.output.tracker)
    runtime = Runtime(recipe.runtime)
    processes = runtime.processes
    remove_new = _remover_of_new(folder)
    processes.gather(None)
    lock = RunLock(folder, take_over=checks.take_over)
    with contextlib.ExitStack() as at_end:
        with processes.main_first():
            if processes.is_main:
                at_end.enter_context(lock)
                for part in (folder, folder / "checkpoints", folder / "model"):
                    remove_leftovers(part)
        try:
            # Every process looks at the folder before any of them writes to it.
            saved, how = find_start(folder, text, resume, extend)
            processes.gather(None)
            log: RunLog = MuteLog(folder)
            if processes.is_main:
                log = RunLog(folder, recipe.output.tracker, tuple(listeners), metrics=tuple(METRICS))
                log.require_writer = lock.require_held
            at_end.callback(log.close)
            if saved is not None and not extend and (finished := finished_outcome(folder)) is not None:
                with processes.main_first():
                    follow_data(recipe, saved, checks, log)
                return finished
            with processes.main_first():
                if split_from is not None and split_from.exists() and not (folder / "split.json").exists():
                    write_text(folder / "split.json", split_from.read_text(encoding="utf-8"))
                collection, start = _open(recipe, folder, runtime, saved)
                look = look_at(collection, saved, checks, log)
            watch = Stopwatch(saved["run_seconds"] if saved else 0.0)
            given = (start.preprocess, log, start.model_args, watch, checks.deadline)
            context = RunContext(recipe, text, folder, collection, runtime, *given)
            at_end.enter_context(runtime.stop)
            log.truncate(saved["metrics_bytes"] if saved else 0)
            _announce(context, how, start.note)
            keep_files(look, saved, text, log)
        except UserError:
            # Nothing has run: leave nothing behind that would stand in the way of the corrected command.
            if processes.is_main:
                remove_new()
            raise
        with _telling_the_end(context):
            return _run_stages(context, start, saved)


def _remover_of_new(folder: Path) -> Callable[[], None]:
    """Return what removes everything that comes into a folder from now on, and the folders made for it."""
    before = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]

    def remove() -> None:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in before and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in before:
                path.unlink(missing_ok=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()

    return remove


@contextlib.contextmanager
def _telling_the_end(context: RunContext) -> Iterator[None]:
    """Write to status.json how a run ends that does not end well."""
    try:
        yield
    except RuntimeError as error:
        explained = context.runtime.processes.explain(error)
        _write_end(context, explained)
        if explained is error:
            raise
        raise explained from error
    except BaseException as error:
        _write_end(context, error)
        raise


def _write_end(context: RunContext, error: BaseException) -> None:
    """Write how the run ended; a disk without room for that must not hide why it ended."""
    if not context.runtime.processes.is_main:
        tell_end_of_dead(context.folder)
        return
    with contextlib.suppress(UserError):
        context.log.status("stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed", _exit_code(error))


def _exit_code(error: BaseException) -> int:
    if isinstance(error, Stopped):
        return EXIT_STOPPED
    if isinstance(error, KeyboardInterrupt):
        return 130
    return EXIT_USER_ERROR if isinstance(error, UserError) else 1


def finished_outcome(folder: Path) -> Run | None:
    """Return what a run found if it is done, so that resuming it changes nothing."""
    if read_status(folder).get("state") != "done":
        return None  # the checkpoint says how far the run came
    found = [event for event in read_events(folder) if event["event"] == "comparison"]
    if not found:
        return None
    event = found[-1]
    given = event["paired"]
    paired = PairedDifference(**{**given, "ci95": tuple(given["ci95"])}) if given else None
    rows, differences = tuple(event["rows"]), tuple(event.get("differences") or ())
    then = Run(folder, 0, event["split"], event["num_images"], rows, paired, differences)
    return replace(then, size=then.shipped["size"])


def _open(recipe: Recipe, folder: Path, runtime: Runtime, saved: dict[str, Any] | None) -> tuple[Collection, Start]:
    """Open the pictures, build the network with its starting weights, and check that every stage suits both."""
    if saved is None:
        collection = open_to_train(recipe.data, folder / "split.json")
    else:
        collection = open_again(recipe.data, folder, saved)
    torch.manual_seed(recipe.seed)
    start = starting_network(recipe, collection)
    for index, stage in enumerate(recipe.run_stages):
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int), "training stages have a size"
        plan = describe_stage(recipe, collection, start.model, index, size, runtime.processes.shard.world)
        if stage.head == "solved" or recipe.evaluation.ship == "best":
            asks = f"{plan.key}.head solved" if stage.head == "solved" else "evaluation.ship best"
            require_solvable_head(at_size(start.model, size), size, asks)
        require_size_heads(recipe, collection, start.model, index)
        require_mix(stage.mix_also, collection.classes, recipe.data)
        find_teacher(stage, size, collection, start.preprocess, runtime)
    for size in recipe.evaluation.sizes:
        at_size(start.model, size)
    elsewhere(recipe, collection)
    return collection, start


def _announce(context: RunContext, how: str, note: str) -> None:
    """Write what is about to run before anything runs; how it starts comes first."""
    context.log.event("begin", text=how)
    if context.runtime.processes.is_main:
        write_text(context.folder / "recipe.yaml", context.recipe_text)
        about = {**environment(), "device": context.runtime.describe(), "seed": context.recipe.seed}
        write_text(context.folder / "environment.json", json.dumps(about, indent=2) + "\n")
    collection = context.collection
    context.log.event(
        "start",
        model=context.recipe.model.name,
        weights=context.recipe.model.weights,
        device=context.runtime.describe(),
        uri=collection.uri,
        classes=list(collection.classes),
        num_images={name: len(split) for name, split in collection.splits.items()},
        imbalance={name: round(imbalance(split.counts()), 3) for name, split in collection.splits.items()},
        select=collection.select,
        report=collection.report,
        notes=[*collection.notes_for(context.recipe), *([note] if note else [])],
    )
    if context.recipe.runtime.deterministic:
        context.log.event("note", text=_DETERMINISTIC)
    context.log.settings(flatten(context.recipe.model_dump(mode="json")))
    context.log.status("running")


def _run_stages(context: RunContext, start: Start, saved: dict[str, Any] | None) -> Run:
    """Run the stages in order, carrying the weights that ship from one to the next."""
    recipe = context.recipe
    stages = recipe.run_stages
    train_size = recipe.train.size if isinstance(recipe.train.size, int) else default_size(start.model)
    handover = Handover(start.model, train_size, is_new_head=start.is_new_head)
    kept = copy.deepcopy(start.model) if recipe.evaluation.ship == "best" else None
    first = saved["stage_index"] if saved else 0
    if first:
        handover = resume_handover(context, start.model, first)
    handover.start, handover.has_new_start = kept, start.is_new_head
    handover.may_select_by_loss = saved is None or saved.get("may_select_by_loss", False)
    plan: StagePlan | None = None
    for index in range(first, len(stages)):
        resumed = saved if index == first else None
        train_size, is_new = handover.train_size, handover.is_new_head
        size = resumed["size"] if resumed else decide_size(context, handover.model, index, train_size, is_new)
        world = context.runtime.processes.shard.world
        plan = describe_stage(recipe, context.collection, handover.model, index, size, world)
        handover.before = copy.deepcopy(handover.model) if plan.name == "fix" else None
        handover.before_label, handover.had_new_head = handover.label, handover.is_new_head
        handover.model = at_size(handover.model, size)
        _log_plan(context, plan)
        from_raw = index + 1 < len(stages) and stages[index + 1].start_from == "raw"
        seconds = _solve(context, plan, handover, resumed, from_raw)
        if handover.before is not None:
            before = at_size(handover.before, size)
            mix_fix(context, plan, before, handover.model, is_new_head=handover.had_new_head)
        if plan.name == "fix":
            context.log.event(
                "fix",
                size=size,
                plan=_plan_fields(plan.move_plan),
                solver=plan.stage.solver,
                solver_seconds=round(seconds, 3),
            )
        else:
            handover.train_size = size
        if index + 1 < len(stages):
            leave(context, handover, index + 1, size)
    assert plan is not None, "a recipe has at least one enabled stage"
    outcome = finish(context, plan, handover)
    if context.runtime.processes.is_main:
        # Features are for going on after an interruption; the product is written.
        shutil.rmtree(context.folder / CACHE, ignore_errors=True)
    return outcome


def _solve(
    context: RunContext, plan: StagePlan, handover: Handover, resumed: dict[str, Any] | None, from_raw: bool
) -> float:
    """Run one stage by its solver, leave what the next starts from in `handover`, and return the seconds it took.

    `from_raw`: the next stage wants the weights without the average.
    """
    start = time.perf_counter()
    is_new_head = handover.is_new_head
    if resumed is None:
        is_new_head = set_head(context, plan, handover.model, is_new_head)
    # Whatever a stage trains, the head is part of it.
    handover.is_new_head = is_new_head and not plan.move_plan.trained
    if plan.stage.solver == "cached":
        handover.label = "raw"
        return solve_stage(context, plan, handover.model, is_new_head).seconds
    trainer = StageTrainer(context, plan, handover.model)
    trainer.state.may_select_by_loss = handover.may_select_by_loss
    state = trainer.fit(resumed)
    handover.label = "raw" if from_raw else state.shipped_label
    if not from_raw:
        handover.model.load_state_dict(state.shipped.state_dict())
    return time.perf_counter() - start


def _log_plan(context: RunContext, plan: StagePlan) -> None:
    context.log.event(
        "plan",
        stage=plan.name,
        stage_index=plan.index,
        size=plan.size,
        text=plan.move_plan.describe(),
        total_steps=plan.total_steps,
        num_epochs=plan.timeline.num_epochs,
        solver=plan.stage.solver,
        preprocess=context.preprocess.at(plan.size).describe(),
        crop=plan.stage.crop,
    )
    for note in plan.notes:
        context.log.event("note", text=note)
    if plan.warning:
        context.log.event("warning", text=plan.warning)
    if plan.class_weights is not None:
        pairs = sorted(zip(plan.class_weights, context.collection.classes, strict=True))
        (low, light), (high, heavy) = pairs[0], pairs[-1]
        text = f"class weights from {low:.3g} ({light}) to {high:.3g} ({heavy}), mean 1 over the pictures"
        context.log.event("note", text=text)


def _plan_fields(plan: Plan) -> dict[str, Any]:
    return {
        "moves": plan.moves,
        "tensors": sorted(plan.tensors) if len(plan.tensors) <= 50 else [],
        "num_tensors": len(plan.tensors),
        "num_trained": plan.num_trained,
        "num_parameters": plan.num_parameters,
        "live_norms": list(plan.live_norms),
    }
