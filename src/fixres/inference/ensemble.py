"""Several sizes of one picture taken together: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, evaluate
from fixres.evaluation.logit_outcomes import image_outcomes
from fixres.evaluation.measure import answer_of, conditions_of, open_for, product_views
from fixres.evaluation.metrics import Outcomes, paired_difference, result_fields
from fixres.io.progress import Progress

_ROWS = 4096
"""Images whose probabilities are averaged at a time."""


def measure_ensemble(
    product: Product, sizes: Sequence[int], request: SplitRequest, progress: Progress | None = None
) -> dict[str, Any]:
    """Return the object of `eval --json` with every size alone, and under `ensemble` their mean.

    Raises:
        UserError: fewer than two sizes, or whatever `fixres eval` refuses.
    """
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes):
        raise UserError(
            f"--ensemble-sizes {listed_sizes(sizes)}: it takes two sizes or more, each once, for example 352,384"
        )
    collection = open_for(product, request)
    runtime, reading = conditions_of(product, request)
    placed = replace(product, model=runtime.place(product.model))
    views = product_views(placed, [product.preprocess.at(size) for size in sizes])
    split = collection.split(request.split or collection.report)
    found = evaluate(views, split, runtime, reading, progress, keep_logits=True)
    together, near_ties = mean_outcomes(found, len(split.classes))
    alone = found.results
    best = max(range(len(alone)), key=lambda row: alone[row]["top1"])
    return {
        **answer_of(product, collection, split, found),
        "results": alone,
        "ensemble": {
            "sizes": list(sizes),
            **result_fields(together, near_ties),
            "gmacs": sum(result["gmacs"] for result in alone),
            "images_per_second": 0.0,
        },
        "against_best": {
            "size": alone[best]["size"],
            **vars(paired_difference(found.outcomes[best].hits, together.hits)),
        },
    }


def mean_outcomes(found: Evaluation, num_classes: int) -> tuple[Outcomes, int]:
    """Return what the mean of all views' probabilities says of every image, and how many of them are near ties."""
    assert found.logits is not None, "evaluate keeps logits when it is asked to"
    labels = torch.from_numpy(found.labels)
    batches = [
        # The logarithm of a probability is as good a logit as the one it came from.
        image_outcomes(
            mean_probabilities([torch.from_numpy(one[first : first + _ROWS]) for one in found.logits]).log(),
            labels[first : first + _ROWS],
        )
        for first in range(0, len(labels), _ROWS)
    ]
    predictions, confidences, losses, ranks, near_ties = (
        np.concatenate([part.numpy() for part in parts]) for parts in zip(*batches, strict=True)
    )
    return Outcomes(found.labels, predictions, ranks, confidences, losses, num_classes), int(near_ties.sum())


def mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the mean over views of the probabilities `[B, C]`, float64; never 0, so that a loss stays finite."""
    mean = torch.stack([one.double().softmax(1) for one in logits]).mean(0)
    return mean.clamp(min=torch.finfo(torch.float64).tiny)


def listed_sizes(sizes: Sequence[int]) -> str:
    """Return sizes as they are typed, by commas."""
    return ",".join(map(str, sizes))
