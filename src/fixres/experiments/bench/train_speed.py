"""How fast a network trains, data loading included, against timm's train.py and plain PyTorch, run side by side.

The same network, starting weights, pictures, crops, batch and size; what differs is the loader, the memory layout and
the loop. The sides take turns within every repeat, and ratios are taken within a repeat.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import transforms as v1

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.loader import Draw, ReadPolicy, train_batches
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


@dataclass
class Parts:
    """Seconds of our measured steps, by where they went."""

    steps: list[float] = field(default_factory=list)
    data: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    """Forward, backward and the optimizer: what any loop has to run."""
    running: float = 0.0
    """Model seconds of the step that goes on."""

    def end_step(self, data: float, update: float) -> None:
        """Record a step."""
        self.data.append(data)
        self.update.append(update)
        self.model.append(self.running)
        self.steps.append(data + update)
        self.running = 0.0


def bench_train(bench: TrainBench, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Return images per second of every side, the ratios, and where the time of our step goes.

    Args:
        bench: what to measure.
        folder: empty; pictures and a run folder are made in it.
        progress: called with (repeats done, repeats in all).

    Raises:
        UserError: no such model, or a size it cannot take.
    """
    torch.manual_seed(0)
    model = at_size(build_model(bench.model, 2), bench.size)
    make_photographs(folder / "photos", bench.batch_size * (bench.steps + 1))
    recipe = _recipe(bench, folder / "photos")
    parts = Parts()
    with _backward_timed(parts):
        sides: dict[str, Steps] = {"ours": _ours(bench, recipe, copy.deepcopy(model), folder / "run", parts)}
        for opponent in bench.vs:
            make = _timm if opponent == "timm" else _torch
            sides[opponent] = make(bench, recipe, copy.deepcopy(model), folder / "photos")
        rates: dict[str, list[_Time]] = {name: [] for name in sides}
        for run in sides.values():
            # Once unmeasured: files come into the page cache, kernels are chosen.
            _measure(run, bench)
        for values in (parts.steps, parts.data, parts.update, parts.model):
            values.clear()
        for repeat in range(bench.repeat):
            for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
                # The others run as they do in a program that leaves the C library alone.
                (keep_freed_memory if name == "ours" else release_freed_memory)()
                rates[name].append(_measure(sides[name], bench))
            if progress is not None:
                progress(repeat + 1, bench.repeat)
    return _answer(bench, rates, parts)


class _Time(NamedTuple):
    """One turn of one side. `cpu_rate` is images per second of this process' processor time."""

    rate: float
    cpu_rate: float


def _measure(run: Steps, bench: TrainBench) -> _Time:
    """Return the rates of one turn, its first step apart."""
    steps = run()
    next(steps)
    start, cpu_start = time.perf_counter(), time.process_time()
    count = sum(1 for _ in steps)
    assert count == bench.steps, "every side trains the same number of steps"
    num_images = count * bench.batch_size
    return _Time(num_images / (time.perf_counter() - start), num_images / (time.process_time() - cpu_start))


def _answer(bench: TrainBench, times: dict[str, list[_Time]], parts: Parts) -> dict[str, Any]:
    sides: dict[str, dict[str, float]] = {}
    for name, found in times.items():
        rates = [t.rate for t in found]
        sides[name] = {"images_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}
        if not bench.workers:
            # With loader processes this process' time is only a part of what a side costs.
            sides[name] |= {"images_per_cpu_second": statistics.median(t.cpu_rate for t in found)}
        if name != "ours":
            pairs = list(zip(times["ours"], found, strict=True))
            sides[name] |= _ratios("ratio", [own.rate / other.rate for own, other in pairs])
            if not bench.workers:
                sides[name] |= _ratios("cpu_ratio", [own.cpu_rate / other.cpu_rate for own, other in pairs])
    milliseconds = {
        name: 1000 * statistics.median(values)
        for name, values in (("step", parts.steps), ("data", parts.data), ("model", parts.model))
    }
    host = [update - model for update, model in zip(parts.update, parts.model, strict=True)]
    milliseconds["host"] = 1000 * statistics.median(host)
    return {
        "ratio": {name: round(side["ratio"], 3) for name, side in sides.items() if name != "ours"},
        "sides": {name: {key: round(value, 3) for key, value in side.items()} for name, side in sides.items()},
        "step_milliseconds": {name: round(value, 3) for name, value in milliseconds.items()},
        "host_ratio": round(statistics.median(h / u for h, u in zip(host, parts.update, strict=True)), 4),
        "model": bench.model,
        "size": bench.size,
        "batch_size": bench.batch_size,
        "repeats": bench.repeat,
        "steps": bench.steps,
        "workers": bench.workers,
        "threads": torch.get_num_threads(),
    }


def _ratios(name: str, ratios: Sequence[float]) -> dict[str, float]:
    return {name: statistics.median(ratios), f"{name}_lowest": min(ratios), f"{name}_highest": max(ratios)}


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
    preprocess = _preprocess(bench, model)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=_LR, momentum=0.9, weight_decay=recipe.train.weight_decay)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return iter(
            create_loader(
                dataset,
                input_size=(3, bench.size, bench.size),
                batch_size=bench.batch_size,
                is_training=True,
                scale=recipe.train.crop_scale,
                hflip=0.5,
                color_jitter=None,
                interpolation=preprocess.interpolation,
                mean=preprocess.mean,
                std=preprocess.std,
                num_workers=bench.workers,
                persistent_workers=False,
                device=torch.device("cpu"),
            )
        )

    return _plain_loop(model, optimizer, batches)


def _torch(bench: TrainBench, recipe: Recipe, model: nn.Module, photos: Path) -> Steps:
    """Return the loop of PyTorch's examples: ImageFolder, torchvision's transforms, DataLoader, contiguous tensors."""
    preprocess = _preprocess(bench, model)
    resample = v1.InterpolationMode(preprocess.interpolation)
    crop = v1.RandomResizedCrop(bench.size, recipe.train.crop_scale, interpolation=resample)
    steps = [crop, v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(preprocess.mean, preprocess.std)]
    dataset = ImageFolder(str(photos / "train"), v1.Compose(steps))
    decay = recipe.train.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, weight_decay=decay)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(dataset, bench.batch_size, shuffle=True, num_workers=bench.workers, drop_last=True)
        return iter(loader)

    return _plain_loop(model, optimizer, batches)


def _plain_loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> Steps:
    criterion = nn.CrossEntropyLoss()

    def run() -> Iterator[None]:
        for module in model.modules():
            module.training = True
        for images, labels in batches():
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            yield

    return run
