"""Two sizes in turn: the larger one only for pictures on which the smaller one is not confident."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import unfixed
from fixres.data.collections import Collection
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.eval_request import SplitRequest
from fixres.evaluation.evaluate import Evaluation, evaluate
from fixres.evaluation.measure import answer_of, conditions_of, open_for, product_views
from fixres.evaluation.metrics import paired_difference
from fixres.evaluation.promises import halves, images_needed, probabilities_of
from fixres.inference.deferral import (
    EVERY,
    Deferral,
    TwoAnswers,
    choose_deferral,
    correct,
    curve,
    guaranteed_level,
    kept_deferral,
    point,
)
from fixres.inference.ensemble import listed_sizes
from fixres.inference.kept_in_product import keep, require_keeping
from fixres.inference.predict import Picture, Prediction, Predictor
from fixres.io.progress import Progress

AIM = 0.6
"""The share of the larger size's work at which a cascade is worth its trouble."""
CascadeRule = Literal["best", "guaranteed"]


@dataclass(frozen=True)
class CascadeRequest:
    """Which two sizes, and by which rule pictures go on to the larger one."""

    sizes: tuple[int, ...]
    rule: CascadeRule = "best"
    """best: no fewer right answers than the larger size on the selecting split; guaranteed: with a promise."""
    harm: float = 0.01
    """Of a guarantee: the share of pictures that may be lost."""
    confidence: float = 0.9
    """Of a guarantee."""
    is_kept: bool = False
    """Whether it is to be kept, so that one without its guarantee is of no use."""


def measure_cascade(
    product: Product, asked: CascadeRequest, request: SplitRequest, progress: Progress | None = None
) -> dict[str, Any]:
    """Choose how a cascade defers on the selecting split and measure it on the reported one.

    Which weights the smaller size uses: see `first_of`. With a guarantee the selecting split is halved once,
    stratified: the first half chooses, the second certifies and is read once.

    Raises:
        UserError: sizes that are not two, the smaller first, or whatever `fixres eval` refuses.
    """
    sizes = asked.sizes
    if len(sizes) != 2 or sizes[0] >= sizes[1]:
        raise UserError(f"--cascade {listed_sizes(sizes)}: it takes two sizes, the smaller first, for example 128,224")
    collection = open_for(product, request)
    runtime, reading = conditions_of(product, request)
    first = first_of(product, sizes[0])
    views = [
        view
        for one, size in ((first, sizes[0]), (product, sizes[1]))
        for view in product_views(replace(one, model=runtime.place(one.model)), [product.preprocess.at(size)])
    ]
    choosing, reported, how = _roles(collection, request.split)
    if asked.rule == "guaranteed" and asked.is_kept:
        _require_certifiable(len(halves(choosing.labels)[1]), asked)
    on_select = _two_answers(evaluate(views, choosing, runtime, reading, progress, keep_logits=True))
    found = evaluate(views, reported, runtime, reading, progress, keep_logits=True)
    two = _two_answers(found)
    chosen = _guaranteed(on_select, asked) if asked.rule == "guaranteed" else _best(on_select)
    urgency = chosen.deferral.urgency(two.small)
    at = point(two, chosen.deferral, urgency, chosen.level)
    paired = paired_difference(two.right(two.large), correct(two, chosen.deferral, urgency, chosen.level))
    is_as_good = paired.ci95[1] >= 0
    return {
        **answer_of(product, collection, reported, found),
        "results": found.results,
        "cascade": {
            "sizes": list(sizes),
            "weights": [first.weights, product.weights],
            "weights_why": which_weights(product, sizes),
            "rule": asked.rule,
            "deferral": chosen.deferral.as_dict(),
            "threshold": at["threshold"],
            "chosen_on": choosing.name,
            "num_chosen_on": len(choosing),
            "how": how,
            "guarantee": chosen.told,
            "on_select": chosen.on_select,
            **{key: value for key, value in at.items() if key != "threshold"},
            "against_large": vars(paired),
            "is_as_good": is_as_good,
            "aim": AIM,
            "is_reached": is_as_good and at["cost_ratio"] <= AIM,
            "curve": curve(two, chosen.deferral, urgency),
        },
    }


@dataclass(frozen=True)
class _Chosen:
    """How a cascade defers, what that gave where it was chosen, and what is promised."""

    deferral: Deferral
    level: float
    on_select: dict[str, Any]
    told: dict[str, Any] | None = None


def _best(two: TwoAnswers) -> _Chosen:
    deferral, urgency, level = choose_deferral(two)
    return _Chosen(deferral, level, point(two, deferral, urgency, level))


def _guaranteed(two: TwoAnswers, asked: CascadeRequest) -> _Chosen:
    """Choose by what to defer on one half, and certify how far on the other; nothing certified sends everything on."""
    first, second = (two.take(places) for places in halves(two.labels))
    if not len(second.labels):
        raise UserError("one picture cannot both choose a cascade and certify it\n  more selecting pictures")
    deferral = replace(choose_deferral(first)[0], small_weight=0.0)
    found = guaranteed_level(deferral, first, second, asked.harm, asked.confidence)
    level = -EVERY if found.level is None else found.level
    told = {key: value for key, value in asdict(found).items() if key != "level"}
    needed = images_needed(asked.harm, asked.confidence)
    told |= {"is_certified": found.level is not None, "num_choosing": len(first.labels), "num_needed": needed}
    urgency = deferral.urgency(second.small)
    return _Chosen(deferral, level, point(second, deferral, urgency, level), told)


def first_of(product: Product, size: int) -> Product:
    """Return the product to use at the smaller size of a cascade.

    Where sizes have a head of their own, that. Else, below the size the network was fixed at, it has the weights
    from before the fix, where the product holds them: the fixed ones are made for that size and larger ones.
    """
    return unfixed(product) if size < product.preprocess.size and not product.heads else product


def which_weights(product: Product, sizes: Sequence[int]) -> str:
    """Return which weights the two sizes of a cascade use, and why, for people."""
    small, large = sizes
    if product.weights == "before_fix":
        return f"{small} px and {large} px with the weights from before the fix"
    if product.heads and product.is_before_fix(small):
        return f"{small} px with the weights from before the fix, {large} px with a head of its own"
    if product.heads:
        return f"{small} px and {large} px with a head of their own each"
    if not _holds_before_fix(product):
        return f"{small} px and {large} px with the same weights, {product.weights}: there are none from before a fix"
    fixed = product.preprocess.size
    if small < fixed:
        return f"{small} px with the weights from before the fix, {large} px with the fixed ones"
    return f"{small} px and {large} px with the fixed weights, which are made for {fixed} px"


def _holds_before_fix(product: Product) -> bool:
    return bool(product.details.get("before_fix")) and product.weights != "before_fix"


def save_words(asked: CascadeRequest) -> str:
    """Return the flags that keep a cascade."""
    rule = ""
    if asked.rule == "guaranteed":
        rule = f" --cascade-rule guaranteed --harm {asked.harm:g} --confidence {asked.confidence:g}"
    return f"--cascade {listed_sizes(asked.sizes)}{rule} --save"


def save_cascade(product: Product, asked: CascadeRequest, found: dict[str, Any]) -> Path:
    """Write the sizes of a cascade and how it defers into the product's config.json, for `predict --cascade`.

    Raises:
        UserError: see `require_keeping`.
    """
    path = require_keeping(product, save_words(asked))
    cascade = found["cascade"]
    if cascade["guarantee"] is not None:
        _require_certifiable(cascade["guarantee"]["num_certifying"], asked)
    kept = {key: cascade[key] for key in ("sizes", "threshold", "chosen_on")} | cascade["deferral"]
    if cascade["guarantee"] is not None:
        kept["guarantee"] = cascade["guarantee"]
    keep(path, "cascade", kept)
    return path


def _require_certifiable(num: int, asked: CascadeRequest) -> None:
    """Refuse a guarantee that so many certifying pictures cannot give whatever they say.

    Raises:
        UserError: saying how many would.
    """
    needed = images_needed(asked.harm, asked.confidence)
    if num < needed:
        raise UserError(
            f"nothing can be kept: {num} pictures certify no cascade that loses at most {100 * asked.harm:g} %, "
            f"{needed} without a loss would be needed\n  more selecting pictures, a larger --harm, or --cascade-rule "
            "best, which promises nothing"
        )


def kept_cascade(product: Product) -> Mapping[str, Any]:
    """Return the cascade that a product keeps.

    Raises:
        UserError: it keeps none.
    """
    kept: Mapping[str, Any] = product.details.get("cascade") or {}
    if not kept:
        raise UserError(
            f"{product.source} holds no cascade\n  fixres eval {product.source} --cascade SMALL,LARGE --save"
        )
    return kept


class CascadePredictor:
    """Applies a product's cascade to pictures: the larger size only where it is expected to pay."""

    def __init__(self, product: Product, make: Callable[[Product], Predictor]) -> None:
        """Build both networks: `make` places one at its size. Only the smaller size uses the workers.

        Raises:
            UserError: the product holds no cascade.
        """
        kept = kept_cascade(product)
        small, large = (int(size) for size in kept["sizes"])
        self.deferral = kept_deferral(kept)
        """By what pictures go on, and how both answers are joined."""
        self.threshold = float(kept["threshold"])
        """Of a deferral by confidence: the best probability at the smaller size below which the larger one answers."""
        self.sizes = (small, large)
        self.weights_why = which_weights(product, self.sizes)
        """Which weights the two sizes use."""
        self.small = make(first_of(product, small).at(small))
        self.large = make(product.at(large))
        self.large.workers = 0
        self.product, self.runtime, self.top_k = self.large.product, self.large.runtime, self.large.top_k
        # Both answers are joined over all classes, and cut to the best afterwards.
        self.small.top_k = self.large.top_k = len(product.classes)
        self._places = {name: place for place, name in enumerate(product.classes)}

    def __call__(self, pictures: Iterable[Picture], shape: int = 0) -> Iterator[Prediction]:
        """Yield one prediction per picture, in order, as `Predictor`; its `size` says which of the two answered."""
        pictures, again = tee(pictures)
        found = zip(self.small(pictures, shape), again, strict=True)
        level = self.deferral.level(self.threshold)
        # Padded to full batches: which pictures come together at the larger size depends on the others' answers.
        while chunk := list(islice(found, self.small.batch_size)):
            answers = [prediction for prediction, _ in chunk]
            read = [i for i, p in enumerate(answers) if p.top]
            shares = np.array([self._shares(answers[i]) for i in read]).reshape(len(read), len(self._places))
            is_urgent = self.deferral.urgency(shares) > level if read else np.zeros(0, dtype=bool)
            unsure = [i for i, goes_on in zip(read, is_urgent.tolist(), strict=True) if goes_on]
            larger = self.large([chunk[i][1] for i in unsure], self.large.batch_size)
            for i, prediction in zip(unsure, larger, strict=True):
                answers[i] = self._joined(answers[i], prediction)
            yield from (replace(p, top=p.top[: self.top_k], said=p.said[: self.top_k]) for p in answers)

    def _shares(self, prediction: Prediction) -> np.ndarray:
        """Return the probabilities `[C]` in the order of the classes."""
        shares = np.empty(len(self._places))
        for name, probability in prediction.top:
            shares[self._places[name]] = probability
        return shares

    def _joined(self, small: Prediction, large: Prediction) -> Prediction:
        """Return the answer of both sizes together, as the larger one's; that one alone where it has all the weight."""
        if not self.deferral.small_weight or not large.top:
            return large
        shares = self.deferral.joined(self._shares(small), self._shares(large))
        order = np.argsort(-shares, kind="stable").tolist()
        classes, threshold = self.product.classes, self.large.threshold
        return replace(
            large,
            top=tuple((classes[k], float(shares[k])) for k in order),
            said=tuple(self.product.spoken(k) for k in order),
            unsure=None if threshold is None else bool(shares[order[0]] < threshold),
        )


def _two_answers(found: Evaluation) -> TwoAnswers:
    small, large = (probabilities_of(found.logits, view) for view in range(2))
    return TwoAnswers(small, large, found.labels, found.results[0]["gmacs"], found.results[1]["gmacs"])


def _roles(collection: Collection, asked: str | None) -> tuple[Split, Split, str]:
    """Return the pictures to choose on, those to report on, and how they came about."""
    choosing, reported = collection.select_and_report(asked)
    if reported is None:
        raise UserError(f"{choosing.name} has {len(choosing)} picture: too few to choose on some and report on others")
    if choosing.name != reported.name:
        return choosing, reported, "two splits"
    return replace(choosing, name=f"one half of {reported.name}"), reported, f"the halves of {reported.name}"
