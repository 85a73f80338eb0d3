"""What a network may promise of pictures like those it was certified on: sets, abstention, harmless shortcuts.

Everything here is a pure function of arrays. Whatever is chosen, an order of thresholds or a grouping of classes, comes
from one half of the selecting split, and the other half, which is read once, certifies it: see `halves`. A promise
holds for pictures drawn like those of that half, and given the network: where the split also decided on an epoch or a
decay of it, the promise is not about that choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fixres.data.sampling import stratified_folds
from fixres.evaluation.metrics import wilson_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""Shares of pictures whose set holds the right class, for which a product keeps quantiles."""
ERROR_RATES = (0.01, 0.02, 0.05, 0.1)
"""Shares of wrong answers among those given, for which a product keeps a threshold."""
CONFIDENCE = 0.9
"""With which an error rate is promised, over the pictures that certify it."""


def probabilities_of(logits: npt.NDArray[np.float32] | None, view: int = 0) -> Floats:
    """Return the probabilities `[N, C]` of one view of the logits `[views, N, C]` that an evaluation kept."""
    assert logits is not None, "evaluate keeps logits when it is asked to"
    return np.asarray(torch.from_numpy(logits[view]).double().softmax(1))


def halves(labels: Ints) -> tuple[Ints, Ints]:
    """Return the places of the pictures to choose on and of those that certify, stratified by label and repeatable."""
    folds = stratified_folds(labels, 2, 0)
    return np.flatnonzero(folds == 0), np.flatnonzero(folds == 1)


def binomial_cdf(count: int, num: int, rate: float) -> float:
    """Return the probability of at most `count` events in `num` independent trials of probability `rate`."""
    if count >= num or rate <= 0:
        return 1.0
    if count < 0 or rate >= 1:
        return 0.0
    steps = np.arange(1, count + 1, dtype=np.float64)
    ratios = np.log((num - steps + 1) / steps) + math.log(rate) - math.log1p(-rate)
    terms = num * math.log1p(-rate) + np.concatenate([[0.0], np.cumsum(ratios)])
    top = terms.max()
    return min(1.0, float(np.exp(terms - top).sum() * math.exp(top)))


def images_needed(rate: float, confidence: float) -> int:
    """Return the fewest pictures on which no event at all shows, with this confidence, that its rate is at most `rate`.

    Raises:
        ValueError: a rate or a confidence that is not between 0 and 1.
    """
    _require_share(rate, "rate")
    _require_share(confidence, "confidence")
    num = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-rate)))
    # The logarithms may be off by one unit in the last place, where a power hits the confidence exactly.
    while num > 1 and _is_shown(0, num - 1, rate, confidence):
        num -= 1
    while not _is_shown(0, num, rate, confidence):
        num += 1
    return num


def events_allowed(num: int, rate: float, confidence: float) -> int | None:
    """Return how many events in `num` pictures still show that their rate is at most `rate`; None: not even none."""
    if not _is_shown(0, num, rate, confidence):
        return None
    low, high = 0, num
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _is_shown(middle, num, rate, confidence) else (low, middle - 1)
    return low


def fixed_sequence(counts: Sequence[int], nums: Sequence[int], rate: float, confidence: float) -> int | None:
    """Return the last place, in an order fixed beforehand, up to which every rate is shown to be at most `rate`.

    Testing stops at the first place that is not shown, so that no correction for many tests is needed (Learn then Test
    with a fixed sequence, Angelopoulos et al. 2021, Ringel et al. 2024): the probability that the place returned has a
    larger rate is at most 1 - `confidence`.

    Args:
        counts: events at each place, harmless first.
        nums: pictures at each place.
        rate: the largest share of events that is promised.
        confidence: of the promise, over the pictures that certify it.
    """
    last = None
    for place, (count, num) in enumerate(zip(counts, nums, strict=True)):
        if not _is_shown(int(count), int(num), rate, confidence):
            break
        last = place
    return last


def conformal_quantile(scores: Floats, coverage: float) -> float:
    """Return the score that a new picture's own is not above with probability `coverage` at least.

    It is the ceil((n + 1) coverage)-th smallest of the n scores (Vovk et al. 2005; Papadopoulos et al. 2002). Where n
    is too small for that it is infinite: everything is in the set.
    """
    _require_share(coverage, "coverage")
    # Rounded first: (9 + 1) * 0.9 is a whole number and must not be taken for a little more.
    place = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, place - 1)[place - 1]) if place <= len(scores) else math.inf


@dataclass(frozen=True)
class SetRule:
    """How prediction sets are made that hold the right class with a stated probability."""

    coverage: float
    """Of the right class, in every group of classes that has a quantile of its own."""
    quantiles: tuple[float, ...]
    """`[C]`: a class is in the set where its probability is at least 1 minus this; infinite: always."""
    has_own: tuple[bool, ...]
    """`[C]`: whether the class was certified by itself; the others together, as one group."""

    def sets(self, probabilities: Floats) -> Bools:
        """Return bool `[N, C]`: which classes are in each picture's set, of probabilities `[N, C]`.

        The most probable class always is, which only adds to the coverage.
        """
        inside = 1 - probabilities <= np.asarray(self.quantiles)
        inside[np.arange(len(inside)), probabilities.argmax(1)] = True
        return inside


def set_rule(probabilities: Floats, labels: Ints, choosing: Ints, certifying: Ints, coverage: float) -> SetRule:
    """Return the rule of prediction sets: split conformal, by class where a class has enough pictures.

    Which classes stand alone is decided by their numbers in the choosing half, so that each group's promise is exact:
    a group whose certifying pictures are too few after all has everything in its sets.

    Args:
        probabilities: `[N, C]`.
        labels: int64 `[N]`.
        choosing: places of the half that decides on the groups.
        certifying: places of the half that gives the quantiles.
        coverage: in (0, 1).
    """
    num_classes = probabilities.shape[1]
    fewest = math.ceil(round(coverage / (1 - coverage), 9))
    has_own = np.bincount(labels[choosing], minlength=num_classes) >= fewest
    own_labels = labels[certifying]
    scores = 1 - probabilities[certifying, own_labels]
    shared = conformal_quantile(scores[~has_own[own_labels]], coverage)
    quantiles = [
        conformal_quantile(scores[own_labels == label], coverage) if has_own[label] else shared
        for label in range(num_classes)
    ]
    return SetRule(coverage, tuple(quantiles), tuple(bool(own) for own in has_own))


@dataclass(frozen=True)
class Abstention:
    """Below which confidence a network gives no answer, and what is promised of the answers it gives."""

    threshold: float
    """Probability of the best class; a picture below it is not answered."""
    error_rate: float
    """The share of wrong answers among those given that is promised not to be exceeded."""
    confidence: float
    num_certifying: int
    num_answered: int
    num_wrong: int
    """Of the certifying pictures."""


_NUM_LEVELS = 50


def abstention(
    confidences: Floats, is_right: Bools, choosing: Ints, certifying: Ints, error_rate: float, confidence: float
) -> Abstention | None:
    """Return the lowest threshold at which the answers given are shown to be wrong no more often than `error_rate`.

    The thresholds are those at which equal shares of the choosing half are answered, from the fewest pictures on that
    could show the rate at all. None: nothing can be promised.

    Args:
        confidences: `[N]`, the probability of the best class.
        is_right: bool `[N]`.
        choosing: places of the half that gives the thresholds.
        certifying: places of the half that is tested on.
        error_rate: of the answers given.
        confidence: of the promise.
    """
    sure, right = confidences[certifying], is_right[certifying]
    fewest = images_needed(error_rate, confidence)
    grid = np.quantile(confidences[choosing], np.linspace(1, 0, _NUM_LEVELS + 1)[1:]) if len(choosing) else np.empty(0)
    # Everything is answered last.
    thresholds = np.unique(np.append(grid, 0.0))[::-1]
    # Where to begin is told by the choosing half, not by the certifying one, which the order must not depend on: at the
    # strictest threshold that would be shown with one error more than there were, so that one more is no end.
    begin = 0
    for place, threshold in enumerate(thresholds):
        own = confidences[choosing] >= threshold
        count, num = int((own & ~is_right[choosing]).sum()) + 1, int(own.sum())
        if num >= fewest and _is_shown(count, num, error_rate, confidence):
            begin = place
            break
    else:
        enough = fewest + 2 * math.sqrt(fewest)
        shares = [float((confidences[choosing] >= t).mean()) if len(choosing) else 1.0 for t in thresholds]
        begin = next((i for i, share in enumerate(shares) if share * len(certifying) >= enough), len(thresholds) - 1)
    tried = thresholds[begin:]
    answered = [int((sure >= t).sum()) for t in tried]
    wrong = [int((~right & (sure >= t)).sum()) for t in tried]
    last = fixed_sequence(wrong, answered, error_rate, confidence)
    if last is None:
        return None
    return Abstention(float(tried[last]), error_rate, confidence, len(certifying), answered[last], wrong[last])


def certify(probabilities: Floats, labels: Ints, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a product keeps of its promises: the quantiles of its sets, and below which confidence it abstains.

    Args:
        probabilities: `[N, C]` on the selecting split.
        labels: int64 `[N]`.
        classes: the names of the C classes.
    """
    choosing, certifying = halves(labels)
    best, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    sets = {}
    for coverage in COVERAGES:
        rule = set_rule(probabilities, labels, choosing, certifying, coverage)
        shared = [q for q, has_own in zip(rule.quantiles, rule.has_own, strict=True) if not has_own]
        sets[str(coverage)] = {
            "others": _finite(shared[0]) if shared else None,
            "own": {
                name: _finite(q)
                for name, q, has_own in zip(classes, rule.quantiles, rule.has_own, strict=True)
                if has_own
            },
        }
    answers: dict[str, Any] = {}
    for rate in ERROR_RATES:
        found = abstention(best, is_right, choosing, certifying, rate, CONFIDENCE)
        answers[str(rate)] = None
        if found is not None:
            answers[str(rate)] = {
                "threshold": found.threshold,
                "num_answered": found.num_answered,
                "num_wrong": found.num_wrong,
            }
    return {
        "num_choosing": len(choosing),
        "num_certifying": len(certifying),
        "confidence": CONFIDENCE,
        "coverage": sets,
        "abstain": answers,
    }


def kept_rule(kept: Mapping[str, Any], classes: Sequence[str], coverage: float) -> SetRule:
    """Return the rule of sets that `certify` made for one of `COVERAGES`."""
    found = kept["coverage"][str(coverage)]
    own = found["own"]
    quantiles = [own.get(name, found["others"]) for name in classes]
    has_own = tuple(name in own for name in classes)
    return SetRule(coverage, tuple(math.inf if q is None else q for q in quantiles), has_own)


def reached(kept: Mapping[str, Any], probabilities: Floats, labels: Ints, classes: Sequence[str]) -> dict[str, Any]:
    """Return what promises come to on other pictures: coverage and size of sets, and errors among the answers given."""
    best, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    sets, answers = {}, {}
    for coverage in COVERAGES:
        inside = kept_rule(kept, classes, coverage).sets(probabilities)
        num_covered = int(inside[np.arange(len(labels)), labels].sum())
        sets[str(coverage)] = {
            **_share("covered", num_covered, len(labels)),
            "mean_size": float(inside.sum(1).mean()),
        }
    for rate in ERROR_RATES:
        found = kept["abstain"][str(rate)]
        answered = best >= (math.inf if found is None else found["threshold"])
        num_wrong = int((answered & ~is_right).sum())
        answers[str(rate)] = {
            "answered": 100 * float(answered.mean()),
            **_share("wrong", num_wrong, int(answered.sum())),
        }
    return {"num_images": len(labels), "coverage": sets, "abstain": answers}


def _share(name: str, num: int, whole: int) -> dict[str, Any]:
    """Return a share in percent with its interval; both None of nothing."""
    if not whole:
        return {name: None, f"{name}_ci95": None}
    return {name: 100 * num / whole, f"{name}_ci95": list(wilson_interval(num, whole))}


def _finite(value: float) -> float | None:
    """Return a quantile as JSON has it: None where everything is in the set."""
    return value if math.isfinite(value) else None


def _is_shown(count: int, num: int, rate: float, confidence: float) -> bool:
    return binomial_cdf(count, num, rate) <= 1 - confidence


def _require_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"a {name} lies between 0 and 1, not {value}")
