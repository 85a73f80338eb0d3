"""How fast a network trains, data loading included, against timm's train.py and plain PyTorch, run side by side.

The same network, starting weights, pictures, crops, batch and size; what differs is the loader, the memory layout and
the loop.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.loader import Draw, ReadPolicy, train_batches
from fixres.experiments.bench.harness import Turn, compare, race, timm_loader, torchvision_chain
from fixres.experiments.bench.loader_speed import make_photographs
from fixres.experiments.questions import TrainBench
from fixres.io.progress import Progress
from fixres.models.build import build_model
from fixres.models.pretrained import published_preprocess
from fixres.models.sizes import at_size
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.runtime.malloc import keep_freed_memory, release_freed_memory
from fixres.runtime.run_folder import RunLog
from fixres.training.context import RunContext, Stopwatch
from fixres.training.loop import StageTrainer
from fixres.training.stage_plan import describe_stage

Steps = Callable[[], Iterator[None]]
"""Trains through every picture once; one item after every step."""
_LR = 0.01
_PARTS = ("step", "data", "model", "host")
"""The whole step; fetching the batch; forward, backward and the optimizer, what any loop has to run; all else."""


@dataclass
class Parts:
    """Where the time of our measured steps went, in seconds of every step."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _PARTS})
    running: float = 0.0
    """Model seconds of the step that goes on."""

    def end_step(self, data: float, update: float) -> None:
        """Record a step."""
        for name, value in zip(_PARTS, (data + update, data, self.running, update - self.running), strict=True):
            self.seconds[name].append(value)
        self.running = 0.0


def bench_train(bench: TrainBench, folder: Path, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Return images per second of every side, the ratios, and where the time of our step goes.

    Args:
        bench: what to measure.
        folder: empty; pictures and a run folder are made in it.
        progress: called with (turns done, turns in all).

    Raises:
        UserError: no such model, or a size it cannot take.
    """
    torch.manual_seed(0)
    model = at_size(build_model(bench.model, 2), bench.size)
    make_photographs(folder / "photos", bench.batch_size * (bench.steps + 1))
    recipe = _recipe(bench, folder / "photos")
    parts = Parts()
    with _backward_timed(parts):
        runs = {"ours": _ours(bench, recipe, copy.deepcopy(model), folder / "run", parts)}
        for opponent in bench.vs:
            make = _timm if opponent == "timm" else _torch
            runs[opponent] = make(bench, recipe, copy.deepcopy(model), folder / "photos")
        sides = {name: partial(_measure, name, run, bench) for name, run in runs.items()}
        for measure in sides.values():
            # Once unmeasured: files come into the page cache, kernels are chosen.
            measure()
        parts.seconds = Parts().seconds
        (turns,) = race([sides], bench.repeat, progress)
    return _answer(bench, turns, parts)


def _measure(name: str, run: Steps, bench: TrainBench) -> Turn:
    """Return the rates of one turn, its first step apart."""
    # The others run as they do in a program that leaves the C library alone.
    (keep_freed_memory if name == "ours" else release_freed_memory)()
    steps = run()
    next(steps)
    start, cpu_start = time.perf_counter(), time.process_time()
    count = sum(1 for _ in steps)
    assert count == bench.steps, "every side trains the same number of steps"
    num_images = count * bench.batch_size
    return Turn(num_images / (time.perf_counter() - start), num_images / (time.process_time() - cpu_start))


def _answer(bench: TrainBench, turns: dict[str, list[Turn]], parts: Parts) -> dict[str, Any]:
    opponents = [name for name in turns if name != "ours"]
    sides = compare(turns, {name: ("ours", name) for name in opponents}, has_cpu=not bench.workers, digits=3)
    updates = zip(parts.seconds["model"], parts.seconds["host"], strict=True)
    return {
        "ratio": {name: sides[name]["ratio"] for name in opponents},
        "sides": sides,
        "step_milliseconds": {name: round(1000 * statistics.median(found), 3) for name, found in parts.seconds.items()},
        "host_ratio": round(statistics.median(host / (model + host) for model, host in updates), 4),
        "model": bench.model,
        "size": bench.size,
        "batch_size": bench.batch_size,
        "repeats": bench.repeat,
        "steps": bench.steps,
        "workers": bench.workers,
        "threads": torch.get_num_threads(),
    }


def _recipe(bench: TrainBench, photos: Path) -> Recipe:
    return validate(
        {
            "data": {"uri": f"folder:{photos}", "holdout": 0, "workers": bench.workers},
            "model": {"name": bench.model},
            "optim": {"lr": _LR},
            "train": {"size": bench.size, "epochs": 1, "batch_size": bench.batch_size},
            "schedule": {"warmup_epochs": 0},
            "runtime": {"device": "cpu"},
            "output": {"tracker": "none"},
        }
    )


def _preprocess(bench: TrainBench, model: nn.Module) -> Preprocess:
    return published_preprocess(model).at(bench.size)


def _ours(bench: TrainBench, recipe: Recipe, model: nn.Module, folder: Path, parts: Parts) -> Steps:
    """Return our own loop: the only place here that knows its pieces."""
    collection = open_collection(recipe.data)
    runtime = Runtime(recipe.runtime)
    preprocess = _preprocess(bench, model)
    log = RunLog(folder, recipe.output.tracker)
    context = RunContext(recipe, "", folder, collection, runtime, preprocess, log, {}, Stopwatch())
    stage = describe_stage(recipe, collection, model, 0, bench.size)
    trainer = StageTrainer(context, stage, model)
    state = trainer.state
    state.micro_batch = bench.batch_size
    _time_model(state.model, state.optimizer, parts)

    def run() -> Iterator[None]:
        # The others' backward passes were added up too.
        parts.running = 0.0
        split, policy = collection.split("train"), ReadPolicy(bench.workers)
        batches = train_batches(split, stage.stage, preprocess, Draw(0, 0), policy)
        start = time.perf_counter()
        for batch in batches:
            fetched = time.perf_counter()
            state.step %= stage.total_steps
            trainer.step((batch.images, batch.labels), _LR)
            done = time.perf_counter()
            parts.end_step(fetched - start, done - fetched)
            yield
            start = time.perf_counter()

    return run


def _time_model(model: nn.Module, optimizer: Any, parts: Parts) -> None:
    """Add the seconds of every forward pass and optimizer step to `parts`, by hooks that any loop runs through."""
    bare = getattr(optimizer, "optimizer", optimizer)
    clock = [0.0]

    def start(*_: Any) -> None:
        clock[0] = time.perf_counter()

    def stop(*_: Any) -> None:
        parts.running += time.perf_counter() - clock[0]

    model.register_forward_pre_hook(start)
    model.register_forward_hook(stop)
    bare.register_step_pre_hook(start)
    bare.register_step_post_hook(stop)


@contextmanager
def _backward_timed(parts: Parts) -> Iterator[None]:
    """Add the seconds of every backward pass to `parts`; other sides pay the same fraction of a microsecond."""
    original = torch.autograd.backward

    def timed(*args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        original(*args, **kwargs)
        parts.running += time.perf_counter() - start

    torch.autograd.backward = timed
    try:
        yield
    finally:
        torch.autograd.backward = original


def _timm(bench: TrainBench, recipe: Recipe, model: nn.Module, photos: Path) -> Steps:
    """Return the loop of timm's train.py with its defaults: its loader, its optimizer factory, contiguous tensors."""
    dataset = create_dataset("", root=str(photos), split="train", is_training=True)
    loader = timm_loader(dataset, _preprocess(bench, model), bench.batch_size, bench.workers, recipe.train)
    decay = recipe.train.weight_decay
    optimizer = create_optimizer_v2(model, opt="sgd", lr=_LR, momentum=0.9, weight_decay=decay)
    return partial(_plain_loop, model, optimizer, loader)


def _torch(bench: TrainBench, recipe: Recipe, model: nn.Module, photos: Path) -> Steps:
    """Return the loop of PyTorch's examples: ImageFolder, torchvision's transforms, DataLoader, contiguous tensors."""
    dataset = ImageFolder(str(photos / "train"), torchvision_chain(_preprocess(bench, model), recipe.train))
    loader = DataLoader(dataset, bench.batch_size, shuffle=True, num_workers=bench.workers, drop_last=True)
    decay = recipe.train.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, weight_decay=decay)
    return partial(_plain_loop, model, optimizer, loader)


def _plain_loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[None]:
    criterion = nn.CrossEntropyLoss()
    for module in model.modules():
        module.training = True
    for images, labels in batches:
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        yield
