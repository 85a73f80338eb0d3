"""Soups: one network whose weights are the mean of several trained ones (Wortsman et al., Model soups, 2022)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.checkpoints.feeding import says_itself
from fixres.checkpoints.feeding_request import Feeding
from fixres.checkpoints.folder_read import WEIGHT_FILES
from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import MEASURED, Product, Sheet
from fixres.checkpoints.resolve import load
from fixres.checkpoints.source import is_bare, weights_and_kind
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import Collection
from fixres.data.loader import evaluation_batches
from fixres.data.splits import Split
from fixres.data.transforms import normalise
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, Reading, conditions, evaluate, network_views
from fixres.evaluation.measure import open_for
from fixres.evaluation.selection import Figures, best_first, figures_of, is_better, is_few
from fixres.models.build import load_strict
from fixres.resolution import Preprocess
from fixres.runtime.cpus import resolve_workers
from fixres.runtime.device import Runtime
from fixres.training.average_request import AverageRequest
from fixres.training.cached_solver.norm_statistics import Moments, merge, moments_of
from fixres.training.product_sheet import lasting

State = dict[str, Tensor]
Say = Callable[[str], None]


@dataclass
class Averaged:
    """What came out. Accuracies are top-1 in percent on the selecting split, None where nothing was measured."""

    product: Product
    used: list[str]
    """Sources in the soup, in the order they were added."""
    alone: dict[str, float] = field(default_factory=dict)
    select: str = ""
    report: str = ""
    soup_top1: float | None = None
    result: dict[str, Any] | None = None
    """The soup on the report split."""
    num_images: int = 0


@dataclass
class _Bench:
    """What measures candidates: all of them on the same pictures under the same conditions."""

    collection: Collection
    runtime: Runtime
    reading: Reading
    preprocess: Preprocess

    def measure(self, model: nn.Module, split: str) -> Evaluation:
        views = network_views(self.runtime.place(model), [self.preprocess])
        pictures = self.collection.split(split)
        keep_logits = split == self.collection.select and is_few(len(pictures))
        return evaluate(views, pictures, self.runtime, self.reading, keep_logits=keep_logits)


def average(request: AverageRequest, say: Say = lambda _: None) -> Averaged:
    """Average the weights, measure the soup where there is data, and write the model folder `request.out`.

    Raises:
        UserError: fewer than two networks, or networks of different architectures, classes or sizes; the folder is
            there already; a greedy soup or recalibration without data.
    """
    if len(request.sources) < 2:
        raise UserError("an average needs at least two checkpoints\n  fixres average CKPT CKPT ... --out DIR")
    if len(set(request.sources)) < len(request.sources):
        raise UserError("a checkpoint is named twice: name every one once")
    if request.out.exists() and any(request.out.iterdir() if request.out.is_dir() else [request.out]):
        raise UserError(f"{request.out} is there already; give another folder with --out")
    files = [_weights_file(source) for source in request.sources]
    products = _load_all(request)
    for source, product in zip(request.sources[1:], products[1:], strict=True):
        _require_alike(request.sources[0], products[0], source, product)
    states = {source: product.model.state_dict() for source, product in zip(request.sources, products, strict=True)}
    bench = _open(request, products[0])
    finished = Averaged(products[0], list(request.sources))
    model = copy.deepcopy(products[0].model)
    if bench is not None:
        _select(request, bench, model, states, finished, say)
    _fill(model, [states[source] for source in finished.used], bench if request.recalibrate else None)
    details = {key: value for key, value in products[0].details.items() if key not in MEASURED}
    finished.product = replace(products[0], model=model.cpu(), heads={}, details=details)
    found = bench.measure(model, bench.collection.report) if bench is not None else None
    if found is not None and bench is not None:
        finished.result, finished.num_images = found.results[0], found.num_images
    digests = {source: _sha256(file) for source, file in zip(request.sources, files, strict=True)}
    save_product(request.out, model.cpu(), _sheet(request, products, finished, digests, bench))
    return finished


def _load_all(request: AverageRequest) -> list[Product]:
    """Load every network; a program feeds those that do not say themselves how they are fed."""
    alone = [is_bare(source) for source in request.sources]
    if request.fed_as is not None and not any(alone):
        raise says_itself(request.sources[0])
    fed_as = [Feeding(fed_as=request.fed_as if one else None) for one in alone]
    return [
        load(source, request.weights, request.model, feeding)
        for source, feeding in zip(request.sources, fed_as, strict=True)
    ]


def mean_state(states: Sequence[Mapping[str, Tensor]]) -> State:
    """Return the mean of every floating tensor, summed in float64; counters are averaged and rounded down.

    Raises:
        UserError: a table of whole numbers differs, whose mean would mean nothing.
    """
    mean: State = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = torch.zeros_like(first, dtype=torch.float64)
            for state in states:
                total += state[name]
            mean[name] = (total / len(states)).to(first.dtype)
        elif name.endswith("num_batches_tracked"):
            mean[name] = torch.stack([state[name] for state in states]).sum(0) // len(states)
        elif all(torch.equal(first, state[name]) for state in states):
            mean[name] = first.clone()
        else:
            raise UserError(f"the tables of whole numbers '{name}' differ and have no mean")
    return mean


def recalibrate(model: nn.Module, split: Split, preprocess: Preprocess, runtime: Runtime, reading: Reading) -> int:
    """Replace BatchNorm statistics by those of a whole split in the test-time view; return the number of layers.

    Every batch is normalised by its own statistics, as in training, while the moments of each layer's input are merged
    in float64: mean, and unbiased variance as BatchNorm stores it, over all pictures and places. Everything else stays
    in evaluation mode. A last batch of one picture is left out.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    with torch.no_grad(), _watched(model, layers) as found:
        for (images,), _, _ in evaluation_batches(split, [preprocess], reading.batch_size, reading.policy):
            if len(images) > 1:
                model(normalise(runtime.images(images), preprocess.mean, preprocess.std))
    # A layer of a branch that testing does not run keeps what it has.
    for layer, (num_batches, moments) in found.items():
        buffers = dict(layer.named_buffers(recurse=False))
        buffers["running_mean"].copy_(moments.mean)
        buffers["running_var"].copy_(moments.variance)
        if "num_batches_tracked" in buffers:
            buffers["num_batches_tracked"].fill_(num_batches)
    return len(layers)


@contextmanager
def _watched(model: nn.Module, layers: list[Any]) -> Iterator[dict[nn.Module, tuple[int, Moments]]]:
    """Let the layers normalise by the batch and leave what they store; yield how many batches each saw, and moments."""
    found: dict[nn.Module, tuple[int, Moments]] = {}
    stored = [(layer, layer.momentum, layer.num_batches_tracked) for layer in layers]

    def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        num_batches, *earlier = found.get(layer, (0,))
        found[layer] = num_batches + 1, merge([*earlier, moments_of(inputs[0])])

    model.eval()
    try:
        with ExitStack() as hooks:
            for layer in layers:
                hooks.enter_context(layer.register_forward_pre_hook(add))
                layer.training, layer.momentum, layer.num_batches_tracked = True, 0.0, None
            yield found
    finally:
        for layer, momentum, counter in stored:
            layer.training, layer.momentum, layer.num_batches_tracked = False, momentum, counter


def _select(
    request: AverageRequest,
    bench: _Bench,
    model: nn.Module,
    states: Mapping[str, State],
    finished: Averaged,
    say: Say,
) -> None:
    """Measure every network alone and the soup on the selecting split; of a greedy soup, decide what is in it."""
    select = bench.collection.select
    calibrate = bench if request.recalibrate else None
    finished.select, finished.report = select, bench.collection.report

    def measured(sources: Sequence[str], calibrate: _Bench | None) -> Figures:
        _fill(model, [states[source] for source in sources], calibrate)
        return figures_of(bench.measure(model, select))

    alone = {}
    for source in states:
        alone[source] = measured([source], None)
        finished.alone[source] = alone[source].top1
        say(f"{source}: {_told(alone[source], select)}")
    if not request.greedy:
        finished.soup_top1 = measured(finished.used, calibrate).top1
        return
    order = best_first(alone)
    used = order[:1]
    best = alone[order[0]] if calibrate is None else measured(used, calibrate)
    for source in order[1:]:
        found = measured([*used, source], calibrate)
        is_taken = not is_better(best, found)
        say(f"with {source}: {_told(found, select)}, {'taken' if is_taken else 'left out'}")
        if is_taken:
            used, best = [*used, source], found
    finished.used, finished.soup_top1 = used, best.top1


def _told(figures: Figures, select: str) -> str:
    by = "" if figures.calibrated_loss is None else f" (loss after temperature {figures.calibrated_loss:.4f})"
    return f"{figures.top1:.2f} % on {select}{by}"


def _fill(model: nn.Module, states: Sequence[State], calibrate: _Bench | None) -> None:
    load_strict(model, mean_state(states), "the average")
    if calibrate is not None:
        placed = calibrate.runtime.place(model)
        train = calibrate.collection.split("train")
        recalibrate(placed, train, calibrate.preprocess, calibrate.runtime, calibrate.reading)


def _open(request: AverageRequest, product: Product) -> _Bench | None:
    """Open the collection; None where there is none, and none is needed."""
    try:
        collection = open_for(product, SplitRequest(data=request.data))
    except UserError:
        # A soup of weights alone is still a soup when the pictures have moved away.
        if request.greedy or request.recalibrate or request.data:
            raise
        return None
    if request.recalibrate and "train" not in collection.splits:
        raise UserError(f"{collection.uri} has no training split to recompute the statistics over")
    reading = Reading(request.batch_size, resolve_workers("auto" if request.workers is None else request.workers))
    return _Bench(collection, Runtime(RuntimeSettings()), reading, product.preprocess)


def _require_alike(first_source: str, first: Product, source: str, product: Product) -> None:
    pairs = {
        "architectures": (first.architecture, product.architecture),
        "arguments of the architecture": (dict(first.model_args), dict(product.model_args)),
        "numbers of classes": (len(first.classes), len(product.classes)),
        "classes": (first.classes, product.classes),
        "test sizes": (first.preprocess.size, product.preprocess.size),
        "train sizes": (first.train_size, product.train_size),
        "preprocessings": (first.preprocess.describe(), product.preprocess.describe()),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            shown = "" if what == "classes" else f": {one} and {other}"
            raise UserError(
                f"{first_source} and {source} have different {what}{shown}\n"
                "  only networks of one architecture, one class list and one size have a mean"
            )


def _weights_file(source: str) -> Path:
    path = Path(weights_and_kind(source)[0])
    for candidate in [path / folder / name for folder in ("model", "") for name in WEIGHT_FILES]:
        if candidate.is_file():
            return candidate
    if path.is_file():
        return path
    raise UserError(
        f"{source} is no run folder, model folder or weights file\n"
        f"  fixres import {source} --out DIR makes a model folder of anything that can be loaded"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sheet(
    request: AverageRequest,
    products: Sequence[Product],
    finished: Averaged,
    digests: Mapping[str, str],
    bench: _Bench | None,
) -> Sheet:
    first = products[0]
    labels = {product.weights for product in products}
    data = dict(first.details.get("data", {}))
    evaluation: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    if bench is not None and finished.result is not None:
        report = bench.collection.split(finished.report)
        data["uri"] = bench.collection.uri
        evaluation = conditions(report, finished.num_images, bench.reading.batch_size, bench.runtime)
        results = [{"split": finished.report, "num_images": finished.num_images, **lasting(finished.result)}]
    made = {
        "kind": "greedy" if request.greedy else "uniform",
        "recalibrated": request.recalibrate,
        "select": finished.select or None,
        "select_top1": finished.soup_top1,
        "ingredients": [
            {
                "source": str(Path(source).absolute()),
                "sha256": digests[source],
                "weights": product.weights,
                "used": source in finished.used,
                "select_top1": finished.alone.get(source),
            }
            for source, product in zip(request.sources, products, strict=True)
        ],
    }
    return Sheet(
        classes=first.classes,
        preprocess=first.preprocess,
        train_size=first.train_size,
        moves=str(first.details.get("moves", "all")),
        weights=labels.pop() if len(labels) == 1 else "raw",
        results=results,
        evaluation=evaluation,
        data=data,
        model_args=first.model_args,
        has_names=first.has_names,
        descriptions=first.descriptions,
        average=made,
    )
