"""How fast a split is evaluated, beside timm's `validate.py` with its defaults, on a CPU.

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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from timm.data import create_loader
from torch import nn

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_collection
from fixres.data.loader import resolve_workers
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.evaluate import NetworkView, Reading, evaluate
from fixres.experiments.bench.loader_speed import Pictures
from fixres.experiments.questions import EvalBench
from fixres.io.progress import Progress
from fixres.models.build import architecture, build_model
from fixres.models.pretrained import published_preprocess
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

_THEIR_BATCH, _THEIR_WORKERS = 256, 4
"""Defaults of validate.py."""


@dataclass(frozen=True)
class _Pass:
    """One evaluation: times in seconds, `cpu` of this process and its workers from start to end."""

    startup: float
    rate: float
    cpu: float
    predictions: np.ndarray


def bench_eval(bench: EvalBench, product: Product, progress: Progress | None = None) -> dict[str, Any]:
    """Return a row per size with every side's rates and their ratios, as `fixres bench eval --json` writes them.

    Raises:
        UserError: no such data, too few pictures, or a backend that cannot take the network.
    """
    split = _split(bench, product)
    rows = []
    names = [*bench.backends, *bench.vs]
    done, total = 0, len(bench.sizes) * bench.repeat * len(names)
    for size in bench.sizes:
        preprocess = product.preprocess.at(size)
        passes: dict[str, list[_Pass]] = {name: [] for name in names}
        for repeat in range(bench.repeat):
            for name in names[:: 1 if repeat % 2 == 0 else -1]:
                passes[name].append(_apart(name, bench, product.model, split, preprocess))
                done += 1
                if progress is not None:
                    progress(done, total)
        rows.append(_row(size, passes, bench, len(split)))
    first = rows[0]["sides"][bench.backends[0]]
    return {
        "ratio": first.get("ratio"),
        "model": product.architecture,
        "n": len(split),
        "repeats": bench.repeat,
        "threads": _threads(bench),
        "batch_size": bench.batch_size,
        "workers": resolve_workers("auto" if bench.workers is None else bench.workers),
        "results": rows,
    }


def _split(bench: EvalBench, product: Product) -> Split:
    collection = open_collection(Data(uri=bench.data, holdout=0))
    split = collection.splits["train"]
    if bench.images and bench.images < len(split):
        split = split.take(split.name, np.linspace(0, len(split) - 1, bench.images).astype(np.int64))
    least = max(bench.batch_size, _THEIR_BATCH if bench.vs else 0)
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


def _apart(name: str, bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess) -> _Pass:
    """Run one pass in a process of its own: what one side does to the allocator or the threads is not the other's.

    Raises:
        UserError: the pass was refused.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, name, bench, model, split, preprocess))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process that measured {name} has ended") from None
    finally:
        child.join()
    if isinstance(answer, Exception):
        raise answer
    found: _Pass = answer
    return found


def _child(
    sender: Connection, name: str, bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess
) -> None:
    torch.set_num_threads(_threads(bench))
    warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
    side = _timm if name == "timm" else _ours
    try:
        answer: _Pass | Exception = side(name, bench, model, split, preprocess)
    except UserError as error:
        answer = error
    sender.send(answer)


def _ours(name: str, bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess) -> _Pass:
    runtime = Runtime(RuntimeSettings(device="cpu", threads=_threads(bench)))
    ends: list[tuple[int, float]] = []
    reading = Reading(bench.batch_size, resolve_workers("auto" if bench.workers is None else bench.workers))
    start, before = time.perf_counter(), os.times()
    view = NetworkView(runtime.place(model), preprocess, backend=name)  # type: ignore[arg-type]
    found = evaluate([view], split, runtime, reading, lambda done, _: ends.append((done, time.perf_counter())))
    return _pass(ends, start, before, found.predictions[0])


@torch.inference_mode()
def _timm(name: str, bench: EvalBench, model: nn.Module, split: Split, preprocess: Preprocess) -> _Pass:
    ends: list[tuple[int, float]] = []
    model = model.eval()
    criterion = nn.CrossEntropyLoss()
    found = []
    start, before = time.perf_counter(), os.times()
    loader = create_loader(
        Pictures(split),
        input_size=(3, preprocess.size, preprocess.size),
        batch_size=_THEIR_BATCH,
        use_prefetcher=True,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=_THEIR_WORKERS,
        crop_pct=preprocess.crop_ratio,
        pin_memory=False,
        device=torch.device("cpu"),
    )
    num = 0
    for images, labels in loader:
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
    return _Pass(opened - start, (last - first) / (closed - opened), last / cpu, predictions)


def _row(size: int, passes: dict[str, list[_Pass]], bench: EvalBench, num: int) -> dict[str, Any]:
    sides: dict[str, dict[str, Any]] = {}
    for name, found in passes.items():
        rates = [p.rate for p in found]
        sides[name] = {
            "images_per_second": round(statistics.median(rates), 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
            "images_per_cpu_second": round(statistics.median(p.cpu for p in found), 1),
            "startup_seconds": round(statistics.median(p.startup for p in found), 1),
        }
        theirs = passes.get("timm")
        if theirs is None or name == "timm":
            continue
        ratios = [own.rate / other.rate for own, other in zip(found, theirs, strict=True)]
        cpu = [own.cpu / other.cpu for own, other in zip(found, theirs, strict=True)]
        sides[name] |= {
            "ratio": round(statistics.median(ratios), 3),
            "ratio_lowest": round(min(ratios), 3),
            "ratio_highest": round(max(ratios), 3),
            "cpu_ratio": round(statistics.median(cpu), 3),
            "same_top1": float((found[0].predictions == theirs[0].predictions).mean()),
        }
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
