"""What an exported file costs in accuracy and gives in speed and size, beside the product as PyTorch computes it.

All of them answer the reported split through one evaluation, that of `fixres eval`. They are then timed in turns, each
from pictures that are ready for it to logits, one at a time and a full batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.data.loader import evaluation_batches
from fixres.data.splits import Split
from fixres.data.transforms import normalise
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, NetworkView, Reading, evaluate
from fixres.evaluation.measure import answer_of, conditions_of, open_for
from fixres.evaluation.metrics import paired_difference
from fixres.experiments.bench.harness import Turn, compare, race, spread
from fixres.experiments.questions import ExportBench
from fixres.io.progress import Progress
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

PRODUCT = "product"
"""The row that the others are compared with."""
_TURN_SECONDS = 0.5
"""A turn ends with the batch in which this is over."""


@dataclass(frozen=True)
class Written:
    """A product in one format at one size, ready to compute."""

    backend: str
    """Who computes it."""
    precision: str
    """fp32 | int8."""
    num_bytes: int
    """Of the files that hold the network."""
    run: Callable[[np.ndarray], np.ndarray]
    """From normalised float32 `[B, 3, S, S]` to logits float32 `[B, C]`."""


Write = Callable[[Product, str, int], Written]
"""From a product at the size wanted, a format and a number of threads; raises UserError where it cannot be written."""


class _FileNetwork(nn.Module):
    """A file in the place of its network, which is asked for nothing but shapes: those of its layers are the same."""

    def __init__(self, network: nn.Module, written: Written) -> None:
        super().__init__()
        self.network, self.run = network, written.run

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, C]`."""
        if images.is_meta:
            shapes: Tensor = self.network(images)
            return shapes
        return torch.from_numpy(self.run(images.contiguous().numpy()))


@dataclass(frozen=True)
class _Side:
    """One row: a network at a size, or why there is none."""

    size: int
    format: str
    written: Written | str


def bench_export(
    bench: ExportBench,
    product: Product,
    write: Write,
    step: Callable[[str], None],
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Return a row for every size and format, the product's own first, as `fixres bench export --json` writes them.

    Args:
        bench: what to measure; `formats` names them all.
        product: what is exported. It is moved to the CPU.
        write: writes a format.
        step: told in words what is being done.
        progress: called with what is done and what there is, of the evaluation, then of the turns.

    Raises:
        UserError: no data, or a size that the network cannot take.
    """
    request = SplitRequest(data=bench.data, batch_size=bench.batch_size, workers=bench.workers, device="cpu")
    collection = open_for(product, request)
    split = collection.split(collection.report)
    runtime, reading = conditions_of(product, request)
    products = {size: product.at(size) for size in bench.sizes or (product.preprocess.size,)}
    # Before any network is placed: the memory format of its weights would go into the files.
    sides = [
        _Side(size, name, _written(own, name, write, runtime.threads, step))
        for size, own in products.items()
        for name in (PRODUCT, *bench.formats)
    ]
    views = _views(sides, products, runtime)
    step(f"measuring on {split.name}, n = {len(split):,}")
    found = evaluate(list(views.values()), split, runtime, reading, progress)
    step(f"timing, {bench.repeat} rounds")
    times = _times(bench, views, split, runtime, reading, progress)
    return answer_of(product, collection, split, found) | {
        "threads": runtime.threads,
        "repeats": bench.repeat,
        "results": _rows(sides, views, found, times),
    }


def _written(product: Product, name: str, write: Write, threads: int, step: Callable[[str], None]) -> Written | str:
    """Return a side of the bench, or why there is none; the product's own computes nothing through `run`."""
    if name == PRODUCT:
        return Written("torch", "fp32", _num_bytes(product), lambda images: images)
    step(f"writing {name} at {product.preprocess.size} px")
    try:
        return write(product, name, threads)
    except UserError as error:
        return str(error)


def _num_bytes(product: Product) -> int:
    """Return the bytes of the weights file, where the product is a folder of one, else of the tensors."""
    path = Path(product.source) / "model.safetensors"
    if path.is_file():
        return path.stat().st_size
    return sum(tensor.numel() * tensor.element_size() for tensor in product.model.state_dict().values())


_Key = tuple[int, str]
"""Size and format."""


def _views(sides: Sequence[_Side], products: Mapping[int, Product], runtime: Runtime) -> dict[_Key, NetworkView]:
    views = {}
    for side in sides:
        if isinstance(side.written, str):
            continue
        own = products[side.size]
        network = runtime.place(own.model).eval()
        if side.format != PRODUCT:
            network = _FileNetwork(network, side.written).eval()
        views[side.size, side.format] = NetworkView(network, own.preprocess)
    return views


def _times(
    bench: ExportBench,
    views: Mapping[_Key, NetworkView],
    split: Split,
    runtime: Runtime,
    reading: Reading,
    progress: Progress,
) -> dict[_Key, list[dict[str, Any]]]:
    """Return by size and format a row for one picture and for a full batch."""
    heats, keys = [], []
    for size in dict.fromkeys(size for size, _ in views):
        own = {name: view for (at, name), view in views.items() if at == size}
        inputs = _inputs(split, own[PRODUCT].preprocess, reading.batch_size)
        for num in dict.fromkeys((1, len(inputs))):
            keys.append((size, num))
            # Each gets the pictures in the memory format it computes in.
            heats.append(
                {
                    name: partial(
                        _turn, view.network, runtime.images(inputs[:num]) if name == PRODUCT else inputs[:num]
                    )
                    for name, view in own.items()
                }
            )
    times: dict[_Key, list[dict[str, Any]]] = {key: [] for key in views}
    for (size, num), turns in zip(keys, race(heats, bench.repeat, progress), strict=True):
        speeds = compare(turns, {name: (name, PRODUCT) for name in turns if name != PRODUCT}, has_cpu=True)
        for name, own_turns in turns.items():
            taken = spread("milliseconds", [1000 / turn.rate for turn in own_turns])
            row = {"batch_size": num} | {key: round(value, 4) for key, value in taken.items()}
            times[size, name].append(row | speeds[name])
    return times


def _inputs(split: Split, preprocess: Preprocess, num: int) -> Tensor:
    """Return the first pictures of a split, normalised float32 `[B, 3, S, S]`."""
    first = split.take(split.name, np.arange(min(num, len(split))))
    ((pixels,), _, _) = next(evaluation_batches(first, [preprocess], num))
    return normalise(pixels, preprocess.mean, preprocess.std).contiguous()


@torch.inference_mode()
def _turn(network: nn.Module, inputs: Tensor) -> Turn:
    # The side before has left its own in the caches, and its threads may wait for more work with the cores busy.
    network(inputs)
    num, seconds = 0, 0.0
    start, before = time.perf_counter(), time.process_time()
    while seconds < _TURN_SECONDS:
        network(inputs)
        num += len(inputs)
        seconds = time.perf_counter() - start
    return Turn(num / seconds, num / max(time.process_time() - before, 1e-9))


def _rows(
    sides: Sequence[_Side],
    views: Mapping[_Key, NetworkView],
    found: Evaluation,
    times: Mapping[_Key, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    results = dict(zip(views, found.results, strict=True))
    hits = dict(zip(views, found.correct(), strict=True))
    rows = []
    for side in sides:
        key = side.size, side.format
        row: dict[str, Any] = {"size": side.size, "format": side.format}
        if isinstance(side.written, str):
            rows.append(row | {"reason": side.written})
            continue
        # Those of an evaluation would be of batches that other sides have cleared the caches for.
        kept = {name: value for name, value in results[key].items() if name not in ("confusion", "images_per_second")}
        row |= {"backend": side.written.backend, "precision": side.written.precision, **kept}
        if side.format != PRODUCT:
            row["minus_product"] = vars(paired_difference(hits[side.size, PRODUCT], hits[key]))
        rows.append(row | {"megabytes": side.written.num_bytes / 1e6, "times": times[key]})
    return rows
