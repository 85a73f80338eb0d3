"""Several sizes of one picture taken together: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fixres.checkpoints.product import Product
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import Collection
from fixres.data.loader import evaluation_batches, resolve_workers
from fixres.data.splits import Split
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Evaluation, Reading, predict_logits
from fixres.evaluation.measure import Request, open_for
from fixres.evaluation.metrics import Tally, paired_difference
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
            f"--ensemble-sizes {listed_sizes(sizes)}: it takes two sizes or more, each once, for example 352,384"
        )
    collection, runtime, reading = open_for_sizes(product, request)
    model = runtime.place(product.model).eval()
    views = [View(at_size(model, size), product.preprocess.at(size)) for size in sizes]
    split = collection.split(request.split or collection.report)
    found = measure_together(views, split, runtime, reading, progress)
    *alone, ensemble = found.results
    best = max(range(len(alone)), key=lambda row: alone[row]["top1"])
    correct = found.correct()
    return {
        **shared_fields(product, collection, split, found),
        "results": alone,
        "ensemble": ensemble,
        "against_best": {"size": alone[best]["size"], **vars(paired_difference(correct[best], correct[-1]))},
    }


def listed_sizes(sizes: Sequence[int]) -> str:
    """Return sizes as they are typed, by commas."""
    return ",".join(map(str, sizes))


def open_for_sizes(product: Product, request: Request) -> tuple[Collection, Runtime, Reading]:
    """Return the collection and the conditions to measure sizes together under."""
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


def shared_fields(product: Product, collection: Collection, split: Split, found: Evaluation) -> dict[str, Any]:
    """Return what the JSON says of network and pictures."""
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
