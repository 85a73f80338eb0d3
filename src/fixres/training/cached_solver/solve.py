"""The cached solver: exact statistics of the last norms, features of every view once, the head to convergence."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.checkpoints.fingerprint import cache_key
from fixres.data.splits import Split
from fixres.evaluation.evaluate import Reading
from fixres.io.progress import NamedProgress
from fixres.models.build import architecture
from fixres.models.compiled_trunk import pays, with_openvino
from fixres.models.moves import Plan
from fixres.models.sizes import evaluation_mode
from fixres.models.split_trunk import cut_network, require_solvable
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.cached_solver import logistic_head
from fixres.training.cached_solver.feature_cache import Cache
from fixres.training.cached_solver.logistic_head import Candidate, Found, Head, Rows, search
from fixres.training.cached_solver.trunk import Trunk, first_batch
from fixres.training.cached_solver.views import max_views

WORDS = {"statistics": "statistics of the last norm", "train": "features", "select": "features to select on"}
"""What the passes over the pictures are called."""


@dataclass(frozen=True)
class Problem:
    """What is to be solved, and with what."""

    model: nn.Module
    """On the device, at the new size; changed in place by `solve`."""
    plan: Plan
    train: Split
    select: Split
    preprocess: Preprocess
    """At the new size."""
    runtime: Runtime
    reading: Reading
    cache: Path
    """Folder for features, kept until the caller removes it."""
    num_views: int = 2
    cache_gib: float = 2.0
    """What crosses the cut is kept, and features are held in memory, up to here; past it they stay on disk."""
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    decay: float = 0.0
    """Strength of the pull; 0: the one with the least loss on the selecting split."""
    is_new_head: bool = False
    """Whether the head is a random one: the pull is then towards zero, and the head as it is no candidate."""
    progress: NamedProgress = lambda what, done, total: None


@dataclass(frozen=True)
class Solution:
    """What was found; the network holds it already."""

    path: str
    """How the trunk ran: folded, traced, hooked or openvino."""
    num_passes: int
    """Times the trunk saw every training picture, views counted."""
    num_views: int
    chosen: Candidate | None
    """None where only statistics moved."""
    candidates: tuple[Candidate, ...]
    seconds: float
    """Of all of it, those before an interruption included."""
    feature_seconds: float
    """Of which reading pictures and running the trunk took so many."""
    bad_images: tuple[str, ...] = ()
    """Training pictures that were left out because they cannot be read."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the log keeps."""
        return {
            "path": self.path,
            "num_passes": self.num_passes,
            "num_views": self.num_views,
            "decay": self.chosen.decay if self.chosen else None,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "seconds": round(self.seconds, 3),
            "feature_seconds": round(self.feature_seconds, 3),
        }


def solve(problem: Problem) -> Solution:
    """Set statistics and head of `problem.model` to their best values.

    Rerun after an interruption, it takes up where it stopped and finds the same.

    Raises:
        UserError: the plan or the network does not suit the solver, or pictures cannot be read.
    """
    start = time.perf_counter()
    views = min(problem.num_views, max_views(problem.preprocess))
    problem = replace(problem, num_views=views)
    model, plan = problem.model, problem.plan
    problem.runtime.keep_memory()
    require_solvable(model, plan, problem.preprocess.size)
    with evaluation_mode(model):
        trunk = _trunk(problem)
        searching = trunk.cache.seconds(_solution(problem))
        earlier = sum(trunk.cache.seconds(what) for what in WORDS)
        keep = bool(plan.live_norms) and _fits(trunk, problem)
        with torch.no_grad():
            if plan.live_norms:
                _set_statistics(trunk, problem, keep)
        found: Found | None = None
        if plan.trained:
            trunk.features("train", problem.train, views, from_front=keep)
            trunk.features("select", problem.select, 1, from_front=False)
            trunk.cache.drop("front")
        features_done = time.perf_counter()
        if plan.trained:
            found = _solve_head(trunk, problem)
            set_head(model, trunk.cut.head, found.head)
    passes = views if keep or not plan.live_norms else views + 1
    return Solution(
        path=trunk.cut.path,
        num_passes=passes if plan.trained else 1,
        num_views=views,
        chosen=found.chosen if found else None,
        candidates=found.candidates if found else (),
        seconds=earlier + searching + time.perf_counter() - start,
        feature_seconds=earlier + features_done - start,
        bad_images=tuple(trunk.left_out("train", problem.train)) if plan.trained else (),
    )


def _trunk(problem: Problem) -> Trunk:
    """Cut the network and open the cache that belongs to it as it is."""
    model, plan = problem.model, problem.plan
    stamps = {split.name: split.stamp() for split in (problem.train, problem.select)}
    runtime, reading = problem.runtime, problem.reading
    settings = {name: getattr(runtime, name) for name in ("precision", "channels_last", "threads")}
    settings |= {"architecture": architecture(model), "moves": plan.moves, "views": problem.num_views}
    settings |= {name: getattr(reading, name) for name in ("batch_size", "on_bad_image")}
    settings |= {"device": runtime.device.type, "cache_gib": problem.cache_gib}
    images = first_batch(problem.train, problem.preprocess, runtime, reading)
    with torch.inference_mode(), runtime.autocast():
        cut = cut_network(model, plan.live_norms, images, has_head=bool(plan.trained))
        if cut.front and pays(runtime, model, problem.preprocess.size, len(problem.train) * problem.num_views):
            settings["path"] = "openvino"
            cut = with_openvino(cut, images, runtime.threads)
    key = cache_key(model, problem.preprocess, stamps, settings)
    # The main process's: on disks of their own, the others' files may bear other times.
    cache = Cache(problem.cache, runtime.processes.gather(key)[0])
    if runtime.processes.is_main:
        cache.remove_others()
    return Trunk(cut, problem.preprocess, runtime, reading, cache, problem.progress)


def _fits(trunk: Trunk, problem: Problem) -> bool:
    """Return whether what crosses the cut for all views of the training split fits the budget."""
    if trunk.cut.front is None or not problem.plan.trained:
        return False
    images = first_batch(problem.train, problem.preprocess, problem.runtime, problem.reading)[:1]
    with torch.inference_mode(), problem.runtime.autocast():
        crossing = trunk.cut.front(images)
    each = sum(t.numel() * t.element_size() for t in crossing) / len(images)
    return each * len(problem.train) * problem.num_views <= problem.cache_gib * 2**30


def _set_statistics(trunk: Trunk, problem: Problem, keep: bool) -> None:
    """Give every last norm the mean and unbiased variance of its input over the whole training split."""
    found = trunk.statistics(problem.train, problem.num_views, keep)
    for name, moments in zip(trunk.cut.norms, found, strict=True):
        norm: Any = problem.model.get_submodule(name)
        norm.running_mean.copy_(moments.mean)
        norm.running_var.copy_(moments.variance)


def _solution(problem: Problem) -> str:
    """Return the name a solution is kept under: features serve every objective, a solution its own alone."""
    later = [problem.decay, problem.is_new_head]
    objective = json.dumps([problem.label_smoothing, problem.class_weights, *(later if any(later) else ())])
    return f"solution.{hashlib.sha256(objective.encode()).hexdigest()[:8]}"


def _solve_head(trunk: Trunk, problem: Problem) -> Found:
    """Search on the main process; the others, and a rerun, read what it found."""
    processes, name = problem.runtime.processes, _solution(problem)
    if processes.is_main and not trunk.cache.has(name, 0):
        problem.progress("head", 0, 1)
        start = time.perf_counter()
        found = _search(trunk, problem)
        rows = [
            [math.nan if c.decay is None else c.decay, c.loss, c.top1, c.iterations, c is found.chosen]
            for c in found.candidates
        ]
        table = torch.tensor(rows, dtype=torch.float64)
        seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
        tensors = {"weight": found.head.weight, "bias": found.head.bias, "table": table, "seconds": seconds}
        trunk.cache.write(name, 0, tensors)
        problem.progress("head", 1, 1)
    processes.gather(None)
    weight, bias, table = trunk.cache.read(name, 0, "weight", "bias", "table")
    candidates = tuple(
        Candidate(None if math.isnan(decay) else decay, loss, top1, int(iterations))
        for decay, loss, top1, iterations, _ in table.tolist()
    )
    return Found(Head(weight, bias), candidates[int(table[:, -1].argmax())], candidates)


def _search(trunk: Trunk, problem: Problem) -> Found:
    device, num_views = problem.runtime.device, problem.num_views
    if device.type not in ("cpu", "cuda"):
        # The others do not all have float64.
        device = torch.device("cpu")
    layer: Any = problem.model.get_submodule(trunk.cut.head)
    weight = layer.weight.detach().flatten(1).to(device, torch.float64)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(device, torch.float64)
    rows = _rows(trunk, "train", problem.train, num_views, device)
    if len(problem.train) * num_views * weight.shape[1] * 4 <= problem.cache_gib * 2**30:
        rows = rows.held(device)
    select = _rows(trunk, "select", problem.select, 1, device).held(device)
    old, has_bias = Head(weight, bias), layer.bias is not None
    decays: tuple[float | None, ...] = (problem.decay,) if problem.decay else ()
    if problem.is_new_head:
        old, decays = Head(torch.zeros_like(weight), torch.zeros_like(bias)), decays or logistic_head.DECAYS
    return search(rows, select, old, problem.label_smoothing, problem.class_weights, has_bias, decays)


def _rows(trunk: Trunk, what: str, split: Split, num_views: int, device: torch.device) -> Rows:
    labels = torch.from_numpy(split.labels)

    def read(chunk: int, number: int) -> tuple[Tensor, Tensor]:
        features, places = trunk.cache.read(what, chunk, f"view.{number}", "places")
        return features.to(device), labels[places].to(device)

    chunks = range(trunk.num_chunks(split))
    return Rows([partial(read, chunk, number) for number in range(num_views) for chunk in chunks])


def set_head(model: nn.Module, name: str, head: Head) -> None:
    """Give the classifier called `name` the values of a head."""
    layer: Any = model.get_submodule(name)
    with torch.no_grad():
        layer.weight.copy_(head.weight.view_as(layer.weight))
        if layer.bias is not None:
            layer.bias.copy_(head.bias)
