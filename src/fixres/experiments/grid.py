"""The paper's grid: train sizes x test sizes x what moves x seeds. Every cell is written when it is done, and kept."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from fixres.checkpoints.resolve import load
from fixres.config.loading import flatten, to_yaml
from fixres.config.recipe import Recipe
from fixres.config.registry import MOVES, solved_by
from fixres.data.collections import open_collection
from fixres.errors import UserError, started_rank
from fixres.experiments.cost import training_work
from fixres.io.files import write_text
from fixres.io.tensors import copy_state
from fixres.models import sizes
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.models.sizes import at_size
from fixres.runtime.device import Runtime
from fixres.runtime.run_folder import Listener, MuteLog, read_events
from fixres.runtime.run_lock import RunLock
from fixres.training.absolute_paths import with_absolute_paths
from fixres.training.cached_solver.solve_stage import solve_stage
from fixres.training.context import RunContext, Stopwatch
from fixres.training.loop import StageTrainer
from fixres.training.resume import MAY_DIFFER
from fixres.training.run import run_recipe
from fixres.training.stage_plan import describe_stage
from fixres.training.start_checks import AS_USUAL, StartChecks

LATER_SETTINGS = {
    "data": ("train_on",),
    **dict.fromkeys(
        ("train", "fix"), ("stop_step", "norm_statistics", "decay", "head", "head_sizes", "mix", "mix_also")
    ),
}
"""Settings that studies of earlier versions did not have, by section."""
WORK = "work"
"""In the study's folder: what the cell that is under way needs."""


@dataclass(frozen=True)
class Grid:
    """What is to be measured."""

    recipe: Recipe
    """Its train size, its fix size and what it moves, and its seed give way."""
    train_sizes: tuple[int, ...]
    test_sizes: tuple[int, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Epochs of single arms, in place of the recipe's."""


@dataclass(frozen=True)
class Cell:
    """One training, one arm, one test size."""

    arm: str
    train_size: int
    """Of `direct`, the test size."""
    test_size: int
    seed: int

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"train-{self.train_size}_seed-{self.seed}_{self.arm}_test-{self.test_size}"


def all_arms() -> tuple[str, ...]:
    """Return what a grid compares.

    none: the trained network as it is; direct: trained at the test size itself; all others: what a fix moves, from the
    least on.
    """
    moves = [name for name, entry in MOVES.items() if entry.is_arm]
    return ("none", *sorted(moves, key=lambda name: name in solved_by("sgd")), "direct")


def check_grid(grid: Grid) -> None:
    """Refuse what cannot be measured, before anything runs.

    Raises:
        UserError: a recipe with stages of its own, no sizes, a size or an arm that does not suit the network, or epochs
            for an arm without any.
    """
    if grid.recipe.stages:
        raise UserError("a grid needs a recipe with train and fix; this one has stages")
    if not (grid.train_sizes and grid.test_sizes and grid.arms and grid.seeds):
        raise UserError(
            "a grid needs sizes, arms and seeds\n  --train-sizes 64,96 --test-sizes 64,96,128 --seeds 0,1,2"
        )
    unknown = [arm for arm in grid.arms if arm not in all_arms()]
    if unknown:
        raise UserError(f"--arms: no arm '{unknown[0]}'\n  arms: {', '.join(all_arms())}")
    *most, last = [arm for arm in all_arms() if arm not in ("none", *solved_by("cached"))]
    for arm in grid.epochs:
        if arm not in grid.arms or arm not in (*most, last):
            raise UserError(
                f"--arm-epochs {arm}: only {', '.join(most)} and {last} have epochs, where they are among --arms"
            )
    reasons = unsuited_arms(grid.recipe, grid.arms, (*grid.train_sizes, *grid.test_sizes))
    if reasons:
        rest = ",".join(arm for arm in grid.arms if arm not in reasons)
        raise UserError("\n  ".join(dict.fromkeys(reasons.values())) + f"\n  --arms {rest or 'none,direct'}")


def unsuited_arms(recipe: Recipe, arms: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    """Return why some arms do not suit the recipe's network, by arm.

    Raises:
        UserError: the network cannot take one of the sizes.
    """
    model = build_model(recipe.model.name, 2, recipe.model.kwargs)
    for size in sizes:
        model = at_size(model, size)
    found = {}
    for arm in arms:
        if arm in ("none", "direct"):
            continue
        try:
            make_plan(model, arm, sizes[-1], norm_statistics=recipe.fix.norm_statistics)
        except UserError as error:
            found[arm] = str(error).splitlines()[0]
    return found


def run_grid(
    grid: Grid,
    folder: Path,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checks: StartChecks = AS_USUAL,
) -> list[dict[str, Any]]:
    """Train, fix and measure every cell that is not there yet; return all of them.

    Args:
        grid: what to measure.
        folder: holds one file per cell under cells/ and the trainings under train-SIZE/ and direct-SIZE/.
        resume: go on with the cells that are missing.
        listeners: told about the trainings, and an event `cell` for every cell.
        checks: how sure it has to be of its folder, and every run of its pictures.

    Raises:
        UserError: the folder holds cells already and `resume` is not set, or those of another recipe; or a setting
            that does not suit the network; or another study writes to the folder.
        Stopped: a signal came. Cells that are done are kept, and so is the training under way.
    """
    check_grid(grid)
    if not resume and (folder / "cells").exists():
        raise UserError(f"{folder} already holds a study\n  go on with --resume, or give another folder with --out")
    with RunLock(folder, take_over=checks.take_over) if started_rank() == 0 else nullcontext():
        return _run_cells(grid, folder, listeners, checks)


def _run_cells(grid: Grid, folder: Path, listeners: Sequence[Listener], checks: StartChecks) -> list[dict[str, Any]]:
    wanted = cells_of(grid)
    key = _key(grid.recipe)
    done = {cell: found for cell in wanted if (found := _read(folder, cell, _keyed(key, grid, cell))) is not None}

    def tell(cell: Cell, found: dict[str, Any]) -> None:
        done[cell] = found
        if started_rank() == 0:
            write_text(folder / "cells" / f"{cell.name}.json", json.dumps(found) + "\n")
        for listener in listeners:
            listener({"event": "cell", "done": len(done), "total": len(wanted), **brief(found)})

    trainings = dict.fromkeys((cell.seed, cell.arm == "direct", cell.train_size) for cell in wanted)
    for seed, is_direct, train_size in trainings:
        same = (c for c in wanted if (c.seed, c.arm == "direct", c.train_size) == (seed, is_direct, train_size))
        own = [cell for cell in same if cell not in done]
        if not own:
            continue
        # With as many epochs as the others, a direct training is one of them.
        is_shorter = is_direct and "direct" in grid.epochs
        run = folder / f"{'direct' if is_shorter else 'train'}-{train_size}" / f"seed-{seed}"
        recipe = _train_recipe(grid, train_size, seed, grid.epochs.get("direct") if is_shorter else None)
        run_recipe(recipe, run, resume=True, listeners=listeners, checks=checks)
        bench = _Bench.open(recipe, run, folder / WORK, listeners)
        with bench.context.runtime.stop:
            for cell in own:
                found = bench.measure(cell, grid.epochs.get(cell.arm))
                tell(cell, {**found, "key": _keyed(key, grid, cell)})
        if started_rank() == 0:
            shutil.rmtree(folder / WORK, ignore_errors=True)
    return [done[cell] for cell in wanted]


def cells_of(grid: Grid) -> list[Cell]:
    """Return the cells of a grid; `direct` has one for each test size and seed."""
    found = []
    for seed in grid.seeds:
        for arm in grid.arms:
            for test_size in grid.test_sizes:
                trained = (test_size,) if arm == "direct" else grid.train_sizes
                found += [Cell(arm, train_size, test_size, seed) for train_size in trained]
    return found


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell without its account of every picture."""
    return {name: value for name, value in found.items() if name not in ("correct", "losses", "key")}


def _train_recipe(grid: Grid, size: int, seed: int, epochs: int | None) -> Recipe:
    recipe = grid.recipe
    train = recipe.train.model_copy(update={"enabled": True, "size": size, **({"epochs": epochs} if epochs else {})})
    fix = recipe.fix.model_copy(update={"enabled": False})
    evaluation = recipe.evaluation.model_copy(update={"sizes": (), "ship": "last", "also": (), "corrupt": ""})
    changed = {"seed": seed, "train": train, "fix": fix, "evaluation": evaluation}
    return with_absolute_paths(recipe.model_copy(update=changed))


def _key(recipe: Recipe) -> str:
    """Return a digest of every setting that decides what a cell finds."""
    kept = {
        name: value
        for name, value in flatten(with_absolute_paths(recipe).model_dump(mode="json")).items()
        if not name.startswith(MAY_DIFFER) or name in ("evaluation.keep", "evaluation.select_size")
    }
    for section, names in LATER_SETTINGS.items():
        defaults = type(getattr(recipe, section)).model_construct().model_dump(mode="json")
        for key in (f"{section}.{name}" for name in names):
            # Cells of before there was such a setting are those of its default.
            if kept[key] == defaults[key.rpartition(".")[2]]:
                kept.pop(key)
    for name in ("seed", "train.size", "train.enabled", "fix.size", "fix.enabled", "fix.moves", "fix.solver"):
        kept.pop(name)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _keyed(key: str, grid: Grid, cell: Cell) -> str:
    return f"{key}-{grid.epochs[cell.arm]}" if cell.arm in grid.epochs else key


def _read(folder: Path, cell: Cell, key: str) -> dict[str, Any] | None:
    path = folder / "cells" / f"{cell.name}.json"
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged\n  remove it, and the cell is measured again") from None
    if found.get("key") != key:
        raise UserError(
            f"{folder} holds cells of another recipe, {cell.name} for one\n  give another folder with --out"
        )
    return found


@dataclass
class _Bench:
    """A trained network, and what fixing and measuring it needs."""

    context: RunContext
    model: nn.Module
    train_seconds: float
    train_gmacs: float
    """Of the whole training."""

    @classmethod
    def open(cls, recipe: Recipe, run: Path, work: Path, listeners: Sequence[Listener]) -> _Bench:
        product = load(run)
        runtime = Runtime(recipe.runtime)
        collection = open_collection(recipe.data, split_file=run / "split.json")
        log = MuteLog(work)
        log.listeners = tuple(listeners)
        context = RunContext(
            recipe, to_yaml(recipe), work, collection, runtime, product.preprocess, log, product.model_args, Stopwatch()
        )
        world = runtime.processes.shard.world
        stage = describe_stage(recipe, collection, product.model, 0, product.train_size, world)
        seconds = math.fsum(e["seconds"] for e in read_events(run) if e["event"] == "stage_done")
        _, gmacs = training_work(stage.timeline, product.model, stage.move_plan, stage.stage.stop_step)
        return cls(context, product.model, seconds, gmacs)

    def measure(self, cell: Cell, epochs: int | None) -> dict[str, Any]:
        """Fix a copy of the network as the cell says, measure it on the report split, and return the cell."""
        context, size = self.context, cell.test_size
        model = copy.deepcopy(at_size(self.model, size))
        seconds, gmacs, how = 0.0, 0.0, ""
        if cell.arm not in ("none", "direct"):
            seconds, gmacs, how, model = self._fix(model, cell, epochs)
        model = context.runtime.place(model)
        found = context.measure(model, context.collection.report, [size])
        result = found.results[0]
        return {
            **vars(cell),
            "split": context.collection.report,
            "num_images": found.num_images,
            "top1": result["top1"],
            "loss": result["loss"],
            "gmacs": result["gmacs"],
            "solver": how,
            "seconds": round(seconds, 3),
            "train_seconds": round(self.train_seconds, 3),
            "training_gmacs": round(self.train_gmacs + gmacs, 1),
            "correct": found.correct()[0].astype(int).tolist(),
            "losses": [round(float(loss), 6) for loss in found.losses[0]],
        }

    def _fix(self, model: nn.Module, cell: Cell, epochs: int | None) -> tuple[float, float, str, nn.Module]:
        """Return the seconds of the fix, its work in GMACs, its solver and the fixed network."""
        context = self.context
        changes = {"enabled": True, "size": cell.test_size, "moves": cell.arm}
        changes |= {"solver": "auto" if cell.arm in solved_by("cached") else "sgd"}
        changes |= {"epochs": epochs} if epochs else {}
        recipe = context.recipe.model_copy(update={"fix": context.recipe.fix.model_copy(update=changes)})
        context = replace(context, recipe=recipe, recipe_text=to_yaml(recipe))
        run = describe_stage(
            recipe, context.collection, model, 1, cell.test_size, context.runtime.processes.shard.world
        )
        num_train = len(context.collection.split("train"))
        forward = sizes.gmacs(model, cell.test_size)
        try:
            if run.stage.solver == "cached":
                solved = solve_stage(context, run, model)
                return solved.seconds, solved.num_passes * num_train * forward, "cached", model
            start = time.perf_counter()
            state = StageTrainer(context, run, model).fit()
            model.load_state_dict(copy_state(state.shipped))
            work = training_work(run.timeline, model, run.move_plan, run.stage.stop_step)[1]
            return time.perf_counter() - start, work, "sgd", model
        finally:
            shutil.rmtree(context.folder / "checkpoints", ignore_errors=True)
