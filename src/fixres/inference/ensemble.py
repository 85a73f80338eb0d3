"""Several sizes of one picture taken together: their average, and the larger only where the smaller hesitates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice, tee
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import Collection
from fixres.data.loader import evaluation_batches, resolve_workers
from fixres.data.splits import Split
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Evaluation, Reading, predict_logits
from fixres.evaluation.measure import Request, open_for
from fixres.evaluation.metrics import Tally, paired_difference
from fixres.inference.cascade import AIM, Twice, choose_threshold, curve
from fixres.inference.predict import Picture, Prediction, Predictor
from fixres.io.files import write_text
from fixres.models.sizes import at_size, gmacs
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

Progress = Callable[[int, int], None]


class View(NamedTuple):
    """A network, and how pictures reach it."""

    network: nn.Module
    preprocess: Preprocess


def measure_together(
    views: Sequence[View], split: Split, runtime: Runtime, reading: Reading, progress: Progress | None = None
) -> Evaluation:
    """Evaluate every view and, in the last row, the mean of their probabilities. Pictures are decoded once.

    Raises:
        UserError: more than one process, an unreadable picture, or logits that are not finite.
        Stopped: a signal came.
    """
    if runtime.processes.shard.world > 1:
        raise UserError("sizes are taken together on one process\n  run it without torchrun")
    preprocesses = [view.preprocess for view in views]
    tallies = [Tally(len(split.classes)) for _ in range(len(views) + 1)]
    rows: list[list[tuple[Tensor, Tensor, Tensor]]] = []
    indices, labels, bad = [], [], list[str]()
    shape = min(reading.batch_size, len(split))
    batches = evaluation_batches(
        split,
        preprocesses,
        batch_size=reading.batch_size,
        workers=reading.workers,
        bad=bad,
        on_bad_image=reading.on_bad_image,
    )
    with closing(batches):
        for images, own_labels, own_indices in batches:
            scores = [
                predict_logits(view.network, batch, view.preprocess, runtime, shape).double()
                for view, batch in zip(views, images, strict=True)
            ]
            if not all(bool(torch.isfinite(s).all()) for s in scores):
                raise UserError("the network's outputs are not finite; its weights are broken")
            # The logarithm of a probability is as good a logit as the one it came from.
            scores.append(mean_probabilities(scores).log())
            rows.append([tally.add(s, own_labels) for tally, s in zip(tallies, scores, strict=True)])
            indices.append(own_indices)
            labels.append(own_labels)
            if progress:
                progress(tallies[0].num_images, len(split))
            if runtime.stop.received:
                raise Stopped

    def values(kind: int) -> np.ndarray:
        return np.stack([torch.cat([batch[row][kind] for batch in rows]).numpy() for row in range(len(tallies))])

    costs = [gmacs(view.network, view.preprocess.size) for view in views]
    results: list[dict[str, Any]] = [
        {"size": p.size, "resize_size": p.resize_size, "crop_ratio": p.crop_ratio, "interpolation": p.interpolation}
        for p in preprocesses
    ]
    results.append({"sizes": [p.size for p in preprocesses]})
    return Evaluation(
        num_images=tallies[0].num_images,
        results=[
            {**fields, **tally.result(), "gmacs": cost, "images_per_second": 0.0}
            for fields, tally, cost in zip(results, tallies, [*costs, sum(costs)], strict=True)
        ],
        indices=torch.cat(indices).numpy(),
        labels=torch.cat(labels).numpy(),
        predictions=values(0),
        probabilities=values(1),
        losses=values(2),
        bad_images=bad,
    )


def mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the mean over views of the probabilities `[B, C]`, float64; never 0, so that a loss stays finite."""
    mean = torch.stack([one.double().softmax(1) for one in logits]).mean(0)
    return mean.clamp(min=torch.finfo(torch.float64).tiny)


def measure_ensemble(
    product: Product, sizes: Sequence[int], request: Request, progress: Progress | None = None
) -> dict[str, Any]:
    """Return the object of `eval --json` with every size alone, and under `ensemble` their mean.

    Raises:
        UserError: fewer than two sizes, or whatever `fixres eval` refuses.
    """
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes):
        raise UserError(
            f"--ensemble-sizes {_listed(sizes)}: it takes two sizes or more, each once, for example 352,384"
        )
    collection, runtime, reading = _opened(product, request)
    model = runtime.place(product.model).eval()
    views = [View(at_size(model, size), product.preprocess.at(size)) for size in sizes]
    split = collection.split(request.split or collection.report)
    found = measure_together(views, split, runtime, reading, progress)
    *alone, ensemble = found.results
    best = max(range(len(alone)), key=lambda row: alone[row]["top1"])
    correct = found.correct()
    return {
        **_about(product, collection, split, found),
        "results": alone,
        "ensemble": ensemble,
        "against_best": {"size": alone[best]["size"], **vars(paired_difference(correct[best], correct[-1]))},
    }


def measure_cascade(
    product: Product, sizes: Sequence[int], request: Request, progress: Progress | None = None
) -> dict[str, Any]:
    """Choose the threshold of a cascade on the selecting split and measure it on the reported one.

    Which weights the smaller size uses: see `first_of`.

    Raises:
        UserError: sizes that are not two, the smaller first, or whatever `fixres eval` refuses.
    """
    if len(sizes) != 2 or sizes[0] >= sizes[1]:
        raise UserError(f"--cascade {_listed(sizes)}: it takes two sizes, the smaller first, for example 128,224")
    collection, runtime, reading = _opened(product, request)
    first = first_of(product, sizes[0])
    small, large = (
        View(at_size(runtime.place(one.model).eval(), size), product.preprocess.at(size))
        for one, size in ((first, sizes[0]), (product, sizes[1]))
    )
    choosing, reported, how = _roles(collection, request.split)
    chosen = _twice(measure_together([small, large], choosing, runtime, reading, progress))
    found = measure_together([small, large], reported, runtime, reading, progress)
    twice = _twice(found)
    threshold = choose_threshold(chosen)
    point = twice.point(threshold)
    paired = paired_difference(twice.large, twice.correct(threshold))
    is_as_good = paired.ci95[1] >= 0
    return {
        **_about(product, collection, reported, found),
        "results": found.results[:-1],
        "cascade": {
            "sizes": list(sizes),
            "weights": [first.weights, product.weights],
            "weights_why": which_weights(product, sizes),
            "threshold": threshold,
            "chosen_on": choosing.name,
            "num_chosen_on": len(choosing),
            "how": how,
            "on_select": chosen.point(threshold),
            **{key: value for key, value in point.items() if key != "threshold"},
            "against_large": vars(paired),
            "is_as_good": is_as_good,
            "aim": AIM,
            "is_reached": is_as_good and point["cost_ratio"] <= AIM,
            "curve": curve(twice),
        },
    }


def first_of(product: Product, size: int) -> Product:
    """Return the product to use at the smaller size of a cascade.

    Below the size the network was fixed at it has the weights from before the fix, where the product holds them: the
    fixed ones are made for that size and larger ones.
    """
    if _holds_before_fix(product) and size < product.preprocess.size:
        return load(product.source, "before_fix")
    return product


def which_weights(product: Product, sizes: Sequence[int]) -> str:
    """Return which weights the two sizes of a cascade use, and why, for people."""
    small, large = sizes
    if product.weights == "before_fix":
        return f"{small} px and {large} px with the weights from before the fix"
    if not _holds_before_fix(product):
        return f"{small} px and {large} px with the same weights, {product.weights}: there are none from before a fix"
    fixed = product.preprocess.size
    if small < fixed:
        return f"{small} px with the weights from before the fix, {large} px with the fixed ones"
    return f"{small} px and {large} px with the fixed weights, which are made for {fixed} px"


def _holds_before_fix(product: Product) -> bool:
    return bool(product.details.get("before_fix")) and product.weights != "before_fix"


def require_keeping(product: Product, sizes: Sequence[int], model_name: str | None = None) -> Path:
    """Return the config.json that can keep a cascade of these sizes.

    Raises:
        UserError: the product is no folder of ours, or not what such a folder predicts with.
    """
    words = f"--cascade {_listed(sizes)} --save"
    if product.weights == "before_fix":
        raise UserError(
            "--save keeps a threshold for the weights that ship, and these are those from before the fix\n"
            f"  leave --weights out: fixres eval {product.source.removesuffix('#before_fix')} {words}"
        )
    path = Path(product.source) / "config.json"
    if not product.details or not path.is_file():
        named = f" --model {model_name}" if model_name else ""
        raise UserError(
            f"--save keeps the threshold in a model folder that fixres wrote, and {product.source} is none\n"
            f"  fixres import {product.source}{named} --out DIR, then fixres eval DIR --data URI {words}"
        )
    return path


def save_cascade(product: Product, found: dict[str, Any]) -> Path:
    """Write the sizes and the threshold of a cascade into the product's config.json, for `predict --cascade`.

    Raises:
        UserError: see `require_keeping`.
    """
    path = require_keeping(product, found["cascade"]["sizes"])
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: found["cascade"][key] for key in ("sizes", "threshold", "chosen_on")}
    content["fixres"]["cascade"] = kept
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path


def _listed(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))


class CascadePredictor:
    """Applies a product's cascade to pictures: the larger size only where the smaller is not confident."""

    def __init__(
        self,
        product: Product,
        runtime: Runtime,
        top_k: int = 5,
        batch_size: int = 16,
        *,
        workers: int = 0,
        threshold: float | None = None,
    ) -> None:
        """Build both networks. The arguments are those of `Predictor`; only the smaller size uses the workers.

        Raises:
            UserError: the product holds no cascade.
        """
        kept = product.details.get("cascade")
        if not kept:
            raise UserError(
                f"{product.source} holds no cascade\n  fixres eval {product.source} --cascade SMALL,LARGE --save"
            )
        small, large = (int(size) for size in kept["sizes"])
        self.passed_on_below = float(kept["threshold"])
        """Best probability at the smaller size below which the larger one answers."""
        self.sizes = (small, large)
        self.weights_why = which_weights(product, self.sizes)
        """Which weights the two sizes use."""
        own = first_of(product, small)
        self.small = Predictor(own.at(small), runtime, top_k, batch_size, workers=workers, threshold=threshold)
        self.large = Predictor(product.at(large), runtime, top_k, batch_size, threshold=threshold)
        self.product, self.runtime, self.top_k = self.large.product, runtime, self.large.top_k

    def __call__(self, pictures: Iterable[Picture], shape: int = 0) -> Iterator[Prediction]:
        """Yield one prediction per picture, in order, as `Predictor`; its `size` says which of the two answered."""
        pictures, again = tee(pictures)
        found = zip(self.small(pictures, shape), again, strict=True)
        # Padded to full batches: which pictures come together at the larger size depends on the others' answers.
        while chunk := list(islice(found, self.small.batch_size)):
            answers = [prediction for prediction, _ in chunk]
            unsure = [i for i, p in enumerate(answers) if p.top and p.top[0][1] < self.passed_on_below]
            larger = self.large([chunk[i][1] for i in unsure], self.large.batch_size)
            for i, prediction in zip(unsure, larger, strict=True):
                answers[i] = prediction
            yield from answers


def _twice(found: Evaluation) -> Twice:
    correct = found.correct()
    small, large = found.results[0]["gmacs"], found.results[1]["gmacs"]
    return Twice(correct[0], correct[1], found.probabilities[0], small, large)


def _opened(product: Product, request: Request) -> tuple[Collection, Runtime, Reading]:
    collection = open_for(product, request)
    logged = product.details.get("evaluation", {})
    runtime = Runtime(
        RuntimeSettings(device=request.device, threads=int(logged.get("threads", 0)) if request.device == "auto" else 0)
    )
    reading = Reading(
        batch_size=int(logged.get("batch_size", 64)) if request.batch_size is None else request.batch_size,
        workers=resolve_workers("auto" if request.workers is None else request.workers),
        on_bad_image=request.on_bad_image,
    )
    return collection, runtime, reading


def _roles(collection: Collection, asked: str | None) -> tuple[Split, Split, str]:
    """Return the pictures to choose on, those to report on, and how they came about."""
    report = collection.split(asked or collection.report)
    select = collection.select
    if select in collection.splits and select not in (report.name, "train"):
        return collection.split(select), report, "two splits"
    order = np.random.default_rng(0).permutation(len(report))
    if len(order) < 2:
        raise UserError(f"{report.name} has {len(order)} picture: too few to choose on some and report on others")
    half = len(order) // 2
    first, second = (report.take(report.name, np.sort(part)) for part in (order[:half], order[half:]))
    return replace(first, name=f"one half of {report.name}"), second, f"the halves of {report.name}"


def _about(product: Product, collection: Collection, split: Split, found: Evaluation) -> dict[str, Any]:
    return {
        "checkpoint": product.source,
        "model": product.architecture,
        "data": collection.uri,
        "split": split.name,
        "num_images": found.num_images,
        "num_classes": len(product.classes),
        "weights": product.weights,
        "num_bad_images": len(found.bad_images),
        "bad_images": found.bad_images,
    }
