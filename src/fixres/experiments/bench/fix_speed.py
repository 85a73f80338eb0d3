"""What a fix costs by the cached solver, and what it costs as published, from the same trained networks.

Every side is a whole fix of the same network at the same size, run as `fixres fix` runs it. The clock is that of the
log, `solver_seconds`: from the first picture read to the last weight moved, conversion and search included, start-up
and the evaluations before and after left out. The published recipes ship their last epoch, as published, so that their
clock holds one evaluation of the selecting split, after that epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load, unfixed
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest, SplitRequest
from fixres.evaluation.measure import measure_product, open_for, own_split
from fixres.experiments.bench.harness import spread
from fixres.experiments.questions import FixBench, Published
from fixres.experiments.seeds import difference, last_comparison, row_differences
from fixres.models.sizes import at_size
from fixres.models.split_trunk import BrokenWeightsError, require_linear_head
from fixres.runtime.run_folder import Listener, read_events
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe
from fixres.training.train_size_control import CONTROL

EPOCHS: dict[Published, int] = {"v1": 56, "v2": 31}
"""Epochs of the published scripts for ResNet-50 (FixRes, `main_finetune.py`)."""
CACHED = "cached"


def bench_fix(bench: FixBench, folder: Path, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
    """Fix every checkpoint on every side and return what each cost and how accurate it is.

    Args:
        bench: what to run.
        folder: receives a run folder for every fix.
        listeners: told about the fixes, and an event `fix_measured` after each.

    Returns:
        "ratio": seconds of the first published recipe over those of the cached solver, median over checkpoints;
        "forward_seconds": one forward pass over the training split at full speed for each checkpoint, below which
        no fix can get; "sides": for each side its seconds and top-1 on both splits, and for the published ones the
        ratio and the paired differences, cached minus published, in points; "gain": what the cached fix gains on the
        reported split over the network before it, split into what solving the head again gains at the train size
        ("head") and the rest ("size"), in points, empty where a fix has no such control.

    Raises:
        UserError: a checkpoint cannot be fixed at this size, or two of them do not see the same pictures.
    """
    names: tuple[str, ...] = (CACHED, *dict.fromkeys(bench.vs))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    correct: dict[tuple[str, str], list[np.ndarray]] = {}
    floors, passes, roles = [], [], {}
    total = len(bench.checkpoints) * len(names)
    for checkpoint, product in _opened(bench):
        floors.append(_forward_seconds(product, bench))
        for name in names:
            run = folder / f"{len(floors) - 1}-{name}"
            workers = _fix(product, bench, name, run, listeners).data.workers
            events = read_events(run)
            seconds[name].append(next(e["solver_seconds"] for e in events if e["event"] == "fix"))
            if name == CACHED:
                passes.append(next(e["num_passes"] for e in events if e["event"] == "solved"))
            start = next(e for e in events if e["event"] == "start")
            roles = {"select": start["select"], "report": start["report"]}
            for split in dict.fromkeys(roles.values()):
                measured = measure_product(
                    load(run), EvalRequest(split=split, workers=None if workers == "auto" else workers)
                )
                correct.setdefault((name, split), []).append(measured.found.correct()[0])
            done = sum(map(len, seconds.values()))
            found = {"checkpoint": checkpoint, "side": name, "seconds": seconds[name][-1]}
            for listener in listeners:
                listener({"event": "fix_measured", "done": done, "total": total, **found})
    sides = {name: _side(name, seconds, correct) for name in names}
    return {
        "checkpoints": list(bench.checkpoints),
        "size": bench.size,
        "epochs": {name: bench.epochs or EPOCHS[name] for name in bench.vs},
        **roles,
        "num_images": {split: len(found[0]) for (name, split), found in correct.items() if name == CACHED},
        "forward_seconds": floors,
        "num_passes": passes,
        "ratio": sides[bench.vs[0]]["ratio"] if bench.vs else None,
        "sides": sides,
        "gain": _gain([folder / f"{place}-{CACHED}" for place in range(len(floors))]),
    }


def _gain(runs: Sequence[Path]) -> dict[str, Any]:
    labels = [{row["label"] for row in last_comparison(run)["rows"]} for run in runs]
    if not all({"train size", CONTROL, "fixed"} <= own for own in labels):
        return {}
    pairs = {"head": (CONTROL, "train size"), "size": ("fixed", CONTROL), "both": ("fixed", "train size")}
    return {name: vars(row_differences(runs, *rows)[0]) for name, rows in pairs.items()}


def _opened(bench: FixBench) -> list[tuple[str, Product]]:
    """Open every checkpoint and check what can be before the first fix, which may take hours.

    Raises:
        UserError: a missing checkpoint, one that cannot be fixed at the size, or pictures that are not the same.
    """
    found, lists = [], []
    for checkpoint in bench.checkpoints:
        product = unfixed(load(checkpoint))
        network = at_size(product.model, bench.size)
        try:
            require_linear_head(network, bench.size)
        except BrokenWeightsError:
            raise
        except UserError as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"{first}, so there is nothing to compare\n  fixres fix {checkpoint} --size {bench.size} --solver sgd"
            ) from error
        collection = open_for(product, SplitRequest(data=bench.data))
        lists.append({name: split.file_list_hash() for name, split in collection.splits.items()})
        if lists[-1] != lists[0]:
            raise UserError(
                f"{checkpoint} and {bench.checkpoints[0]} were not made from the same pictures, split in the same way"
            )
        found.append((checkpoint, product))
    return found


def _forward_seconds(product: Product, bench: FixBench) -> float:
    """Return the seconds of one forward pass over the training split at the size of the fix, reading included."""
    # A network made for its size is put to the new one in place: the fixes are to find their own as it was.
    own = replace(product, model=at_size(product.model, bench.size))
    result = measure_product(own, EvalRequest(data=bench.data, split="train", sizes=(bench.size,))).found
    return float(result.num_images / result.results[0]["images_per_second"])


def _fix(product: Product, bench: FixBench, side: str, run: Path, listeners: Sequence[Listener]) -> Recipe:
    settings: dict[str, Any] = {"size": bench.size, "solver": "cached"}
    if side != CACHED:
        epochs = bench.epochs or EPOCHS[side]  # type: ignore[index]
        settings = {"size": bench.size, "solver": "sgd", "augment": side, "epochs": epochs}
        settings |= {"lr": bench.lr} if bench.lr is not None else {}
    recipe = fix_recipe(product, bench.data, settings, bench.seed)
    # The control is solved once the clock has stopped.
    changed: dict[str, Any] = (
        {} if side == CACHED else {"control": False, "keep": "last", "every_epochs": settings["epochs"]}
    )
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update=changed)})
    run_recipe(recipe, run, listeners=listeners, split_from=own_split(product, bench.data))
    return recipe


def _side(
    name: str, seconds: dict[str, list[float]], correct: dict[tuple[str, str], list[np.ndarray]]
) -> dict[str, Any]:
    own = {split: np.array(found) for (side, split), found in correct.items() if side == name}
    answer: dict[str, Any] = {
        "seconds": seconds[name],
        "top1": {split: [100 * float(value) for value in found.mean(1)] for split, found in own.items()},
    }
    if name == CACHED:
        return answer
    ratios = [theirs / ours for ours, theirs in zip(seconds[CACHED], seconds[name], strict=True)]
    answer |= spread("ratio", ratios)
    answer["cached_minus_this"] = {
        split: vars(difference(100.0 * (np.array(correct[CACHED, split]).astype(float) - found)))
        for split, found in own.items()
    }
    return answer
