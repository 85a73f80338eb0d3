"""Two sizes in turn: the larger one only for pictures on which the smaller one is not confident."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import unfixed
from fixres.data.collections import Collection
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, evaluate, network_views
from fixres.evaluation.measure import answer_of, conditions_of, open_for
from fixres.evaluation.metrics import paired_difference
from fixres.inference.ensemble import listed_sizes
from fixres.inference.kept_in_product import keep, require_keeping
from fixres.inference.predict import Picture, Prediction, Predictor
from fixres.io.progress import Progress

EVERY = 1.01
"""A threshold above any probability: every picture goes on to the larger size."""
AIM = 0.6
"""The share of the larger size's work at which a cascade is worth its trouble."""


@dataclass(frozen=True)
class Twice:
    """What two sizes make of the same pictures."""

    small: npt.NDArray[np.bool_]
    """`[N]`: whether the smaller size is right."""
    large: npt.NDArray[np.bool_]
    """`[N]`: whether the larger size is right."""
    confidence: npt.NDArray[np.float64]
    """`[N]`: the probability of the class the smaller size predicts."""
    small_gmacs: float
    large_gmacs: float
    """Of one picture at each size."""

    def goes_on(self, threshold: float) -> npt.NDArray[np.bool_]:
        """Return bool `[N]`: which pictures the larger size sees as well."""
        return self.confidence < threshold

    def correct(self, threshold: float) -> npt.NDArray[np.bool_]:
        """Return bool `[N]`: whether the cascade is right."""
        return np.where(self.goes_on(threshold), self.large, self.small)

    def point(self, threshold: float) -> dict[str, Any]:
        """Return what a threshold gives: share that goes on, accuracy in percent, mean GMACs and their ratio."""
        share = float(self.goes_on(threshold).mean())
        # Of a picture in the mean: the smaller size always, the larger for those that go on.
        gmacs = self.small_gmacs + share * self.large_gmacs
        return {
            "threshold": threshold,
            "share": share,
            "top1": 100 * float(self.correct(threshold).mean()),
            "gmacs": gmacs,
            "cost_ratio": gmacs / self.large_gmacs,
        }


def thresholds(twice: Twice) -> npt.NDArray[np.float64]:
    """Return every threshold that differs in what it does, cheapest first: from no picture going on to all of them."""
    return np.concatenate([np.unique(twice.confidence), [EVERY]])


def choose_threshold(twice: Twice) -> float:
    """Return the cheapest threshold at which the cascade is right on no fewer pictures than the larger size.

    There always is one: with all pictures going on, the cascade is the larger size. The answer is too good on the
    pictures it was chosen on, so what it gives is to be measured on others.
    """
    order = np.argsort(twice.confidence, kind="stable")
    sorted_confidence = twice.confidence[order]
    lost = twice.large[order].astype(np.int64) - twice.small[order].astype(np.int64)
    # Right answers missed when the first k pictures in order of confidence go on: those the larger size adds behind k.
    missed = np.concatenate([[lost.sum()], lost.sum() - np.cumsum(lost)])
    found = thresholds(twice)
    numbers = np.searchsorted(sorted_confidence, found, side="left")
    return float(found[int(np.argmax(missed[numbers] <= 0))])


def curve(twice: Twice, num_points: int = 21) -> list[dict[str, Any]]:
    """Return accuracy and cost at up to `num_points` thresholds, spread over the share of pictures that goes on."""
    found = thresholds(twice)
    shares = np.searchsorted(np.sort(twice.confidence), found, side="left") / len(twice.confidence)
    wanted = np.linspace(0, 1, num_points)
    places = sorted({int(np.argmin(np.abs(shares - share))) for share in wanted})
    return [twice.point(float(found[place])) for place in places]


def measure_cascade(
    product: Product, sizes: Sequence[int], request: SplitRequest, progress: Progress | None = None
) -> dict[str, Any]:
    """Choose the threshold of a cascade on the selecting split and measure it on the reported one.

    Which weights the smaller size uses: see `first_of`.

    Raises:
        UserError: sizes that are not two, the smaller first, or whatever `fixres eval` refuses.
    """
    if len(sizes) != 2 or sizes[0] >= sizes[1]:
        raise UserError(f"--cascade {listed_sizes(sizes)}: it takes two sizes, the smaller first, for example 128,224")
    collection = open_for(product, request)
    runtime, reading = conditions_of(product, request)
    first = first_of(product, sizes[0])
    views = [
        view
        for one, size in ((first, sizes[0]), (product, sizes[1]))
        for view in network_views(runtime.place(one.model), [product.preprocess.at(size)])
    ]
    choosing, reported, how = _roles(collection, request.split)
    chosen = _twice(evaluate(views, choosing, runtime, reading, progress))
    found = evaluate(views, reported, runtime, reading, progress)
    twice = _twice(found)
    threshold = choose_threshold(chosen)
    point = twice.point(threshold)
    paired = paired_difference(twice.large, twice.correct(threshold))
    is_as_good = paired.ci95[1] >= 0
    return {
        **answer_of(product, collection, reported, found),
        "results": found.results,
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
    return unfixed(product) if size < product.preprocess.size else product


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


def save_words(sizes: Sequence[int]) -> str:
    """Return the flags that keep a cascade of these sizes."""
    return f"--cascade {listed_sizes(sizes)} --save"


def save_cascade(product: Product, found: dict[str, Any]) -> Path:
    """Write the sizes and the threshold of a cascade into the product's config.json, for `predict --cascade`.

    Raises:
        UserError: see `require_keeping`.
    """
    path = require_keeping(product, save_words(found["cascade"]["sizes"]))
    keep(path, "cascade", {key: found["cascade"][key] for key in ("sizes", "threshold", "chosen_on")})
    return path


class CascadePredictor:
    """Applies a product's cascade to pictures: the larger size only where the smaller is not confident."""

    def __init__(self, product: Product, make: Callable[[Product], Predictor]) -> None:
        """Build both networks: `make` places one at its size. Only the smaller size uses the workers.

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
        self.small = make(first_of(product, small).at(small))
        self.large = make(product.at(large))
        self.large.workers = 0
        self.product, self.runtime, self.top_k = self.large.product, self.large.runtime, self.large.top_k

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


def _roles(collection: Collection, asked: str | None) -> tuple[Split, Split, str]:
    """Return the pictures to choose on, those to report on, and how they came about."""
    choosing, reported = collection.select_and_report(asked)
    if reported is None:
        raise UserError(f"{choosing.name} has {len(choosing)} picture: too few to choose on some and report on others")
    if choosing.name != reported.name:
        return choosing, reported, "two splits"
    return replace(choosing, name=f"one half of {reported.name}"), reported, f"the halves of {reported.name}"
