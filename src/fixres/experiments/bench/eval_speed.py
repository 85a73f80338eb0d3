"""How fast a split is evaluated: on a CPU beside timm's `validate.py` with its defaults, elsewhere alone.

Both sides read the same JPEGs with the same network, crop and size; timm's is what its script does unless told
otherwise: its loader with 4 worker processes and batches of 256, contiguous tensors, PyTorch. A rate is counted in the
steady state, from the end of the first batch to the end of the last, and what comes before is the start-up. Reading
goes on ahead of the network on both sides, so that a part of it falls into the start-up.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.evaluate import NetworkView, Reading, evaluate
from fixres.experiments.bench.harness import Pictures, Turn, compare, race, timm_loader, training_split
from fixres.experiments.questions import EvalBench
from fixres.io.progress import Progress
from fixres.models.build import architecture, build_model
from fixres.models.pretrained import published_preprocess
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime

_THEIR_BATCH, _THEIR_WORKERS = 256, 4
"""Defaults of validate.py."""


@dataclass(frozen=True)
class _Pass(Turn):
    """One evaluation. `cpu_rate` counts this process and its workers from start to end."""

    startup: float
    """Seconds."""
    predictions: np.ndarray


def bench_eval(bench: EvalBench, product: Product, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Return a row per size with every side's rates and their ratios, as `fixres bench eval --json` writes them.

    Raises:
        UserError: no such data, too few pictures, a backend that cannot take the network, or timm beside a device.
    """
    others = [name for name in bench.vs if name != "none"]
    if others and bench.device != "cpu":
        raise UserError(f"timm's side runs on the CPU, ours would run on {bench.device}\n  add --vs none")
    split = _split(bench, product, _THEIR_BATCH if others else 0)
    heats = []
    for size in bench.sizes:
        given = (bench, product.model, split, product.preprocess.at(size))
        sides: dict[str, Callable[[], _Pass]] = {name: partial(_ours, name, *given) for name in bench.backends}
        sides |= {name: partial(_timm, *given) for name in others}
        heats.append({name: partial(_apart, name, bench, side) for name, side in sides.items()})
    rows = [_row(*found) for found in zip(bench.sizes, race(heats, bench.repeat, progress), strict=True)]
    return {
        "ratio": rows[0]["sides"][bench.backends[0]].get("ratio"),
        "model": product.architecture,
        "n": len(split),
        "repeats": bench.repeat,
        "device": bench.device,
        "threads": _threads(bench),
        "batch_size": bench.batch_size,
        "workers": _workers(bench),
        "results": rows,
    }


def _split(bench: EvalBench, product: Product, their_batch: int) -> Split:
    split = training_split(bench.data, bench.images)
    least = max(bench.batch_size, their_batch)
    if len(split) <= least:
        raise UserError(
            f"{len(split)} pictures are no more than one batch of {least}, and the first batch is not counted\n"
            "  give more pictures"
        )
    # Labels only have to fit the network's outputs: what is right is not what is measured.
    classes = tuple(str(i) for i in range(max(2, len(product.classes))))
    return replace(split, classes=classes, labels=split.labels % len(classes))


def _threads(bench: EvalBench) -> int:
    return bench.threads or resolve_workers("auto")


def _workers(bench: EvalBench) -> int:
    return resolve_workers("auto" if bench.workers is None else bench.workers)


def _apart(name: str, bench: EvalBench, side: Callable[[], _Pass]) -> _Pass:
    """Run one pass in a process of its own: what one side does to the allocator or the threads is not the other's.

    Raises:
        UserError: the pass was refused.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(_threads(bench))
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        try:
            sender.send(side())
        except UserError as error:
            sender.send(error)

    child = context.Process(target=run)
    child.start()
    sender.close()
    try:
        answer: _Pass | UserError = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process that measured {name} has ended") from None
    finally:
        child.join()
    if isinstance(answer, UserError):
        raise answer
    return answer


def _ours(name: str, bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess) -> _Pass:
    runtime = Runtime(RuntimeSettings(device=bench.device, threads=_threads(bench)))
    ends: list[tuple[int, float]] = []
    reading = Reading(bench.batch_size, _workers(bench))
    start, before = time.perf_counter(), os.times()
    view = NetworkView(runtime.place(model), preprocess, backend=name)  # type: ignore[arg-type]
    found = evaluate([view], split, runtime, reading, lambda done, _: ends.append((done, time.perf_counter())))
    return _pass(ends, start, before, found.predictions[0])


@torch.inference_mode()
def _timm(bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess) -> _Pass:
    ends: list[tuple[int, float]] = []
    model = model.eval()
    criterion = nn.CrossEntropyLoss()
    found = []
    start, before = time.perf_counter(), os.times()
    num = 0
    for images, labels in timm_loader(Pictures(split), preprocess, _THEIR_BATCH, _THEIR_WORKERS):
        logits = model(images)
        criterion(logits, labels).item()
        logits.topk(min(5, logits.shape[1]), dim=1)
        found.append(logits.argmax(1).numpy())
        num += len(labels)
        ends.append((num, time.perf_counter()))
    return _pass(ends, start, before, np.concatenate(found))


def _pass(ends: Sequence[tuple[int, float]], start: float, before: os.times_result, predictions: np.ndarray) -> _Pass:
    (first, opened), (last, closed) = ends[0], ends[-1]
    gc.collect()
    after = os.times()
    # The first four: user and system time of this process and of the workers that have ended.
    cpu = sum(after[:4]) - sum(before[:4])
    return _Pass((last - first) / (closed - opened), last / cpu, opened - start, predictions)


def _row(size: int, passes: dict[str, list[_Pass]]) -> dict[str, Any]:
    pairs = {name: (name, "timm") for name in passes if "timm" in passes and name != "timm"}
    sides = compare(passes, pairs, has_cpu=True)
    for name, found in passes.items():
        sides[name]["startup_seconds"] = round(statistics.median(p.startup for p in found), 1)
        if name in pairs:
            sides[name]["same_top1"] = float((found[0].predictions == passes["timm"][0].predictions).mean())
    return {"size": size, "sides": sides}


def open_network(checkpoint: str) -> Product:
    """Return a checkpoint, or for `random:NAME` an architecture with 1,000 outputs and random weights.

    Raises:
        UserError: there is no such checkpoint or architecture.
    """
    # A process that has computed on several threads cannot be forked.
    torch.set_num_threads(1)
    scheme, _, name = checkpoint.partition(":")
    if scheme != "random":
        return load(checkpoint)
    torch.manual_seed(0)
    model = build_model(name, 1000)
    preprocess = published_preprocess(model)
    return Product(
        model=model,
        architecture=architecture(model),
        classes=tuple(map(str, range(1000))),
        preprocess=preprocess,
        train_size=preprocess.size,
        weights="raw",
        model_args={},
        has_names=False,
        details={},
        source=checkpoint,
    )
