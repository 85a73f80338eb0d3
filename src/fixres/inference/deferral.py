"""Which pictures the larger of two sizes is asked about as well, and what the two answers together say.

Pure functions of both sizes' probabilities on the same pictures. What is chosen, is chosen on one set of pictures; what
it gives, is measured on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from fixres.data.sampling import stratified_folds
from fixres.evaluation.promises import events_allowed, fixed_sequence
from fixres.training.cached_solver.cross_validation import NUM_FOLDS, solve_head

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
By = Literal["confidence", "gain"]
"""confidence: the less sure the smaller size is; gain: the more right answers the larger is expected to add."""

EVERY = 1.01
"""A threshold of confidence above any probability: every picture goes on to the larger size."""
_MIXTURES = tuple(tenths / 10 for tenths in range(10))
_PULL = 1e-2
"""Of the regression on three numbers: enough to have a solution where pictures are few."""
_NUM_LEVELS = 100
INPUTS = ("probability", "margin", "entropy")
"""What the expected gain is computed from: the best probability, its lead over the second, the entropy in [0, 1]."""


@dataclass(frozen=True)
class TwoAnswers:
    """What two sizes make of the same pictures."""

    small: Floats
    """`[N, C]`: probabilities at the smaller size."""
    large: Floats
    """`[N, C]`: probabilities at the larger size."""
    labels: npt.NDArray[np.int64]
    """`[N]`."""
    small_gmacs: float
    large_gmacs: float
    """Of one picture at each size."""

    def right(self, probabilities: Floats) -> Bools:
        """Return bool `[N]`: whether the most probable class is the label."""
        return np.asarray(probabilities.argmax(1) == self.labels)

    def take(self, places: npt.NDArray[np.int64]) -> TwoAnswers:
        """Return some of the pictures."""
        return TwoAnswers(
            self.small[places], self.large[places], self.labels[places], self.small_gmacs, self.large_gmacs
        )


@dataclass(frozen=True)
class Deferral:
    """By what pictures are sent on, and how the two answers are joined."""

    by: By = "confidence"
    small_weight: float = 0.0
    """Share of the smaller size in the joint answer where both ran."""
    weight: Floats = field(default_factory=lambda: np.zeros((3, len(INPUTS))))
    bias: Floats = field(default_factory=lambda: np.zeros(3))
    """Of the regression behind `gain`: logits of the larger size losing, changing nothing, and gaining."""

    def urgency(self, small: Floats) -> Floats:
        """Return `[N]`, the higher the sooner a picture goes on, of probabilities `[N, C]` at the smaller size."""
        if self.by == "confidence":
            return np.asarray(-small.max(1))
        logits = inputs_of(small) @ self.weight.T + self.bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return np.asarray(shares[:, 2] - shares[:, 0])

    def joined(self, small: Floats, large: Floats) -> Floats:
        """Return the answer `[N, C]` of both sizes together."""
        return np.asarray(self.small_weight * small + (1 - self.small_weight) * large)

    def level(self, threshold: float) -> float:
        """Return the urgency above which a picture goes on: thresholds of confidence are probabilities, seen below."""
        return -threshold if self.by == "confidence" else threshold

    def threshold(self, level: float) -> float:
        """Return the threshold of a level, as it is kept and told."""
        return self.level(level)

    def as_dict(self) -> dict[str, Any]:
        """Return what a product keeps."""
        kept: dict[str, Any] = {"by": self.by, "small_weight": self.small_weight}
        return kept | ({"weight": self.weight.tolist(), "bias": self.bias.tolist()} if self.by == "gain" else {})


def kept_deferral(kept: Mapping[str, Any]) -> Deferral:
    """Return what `as_dict` made; of a product that only knows a threshold of confidence, that."""
    if kept.get("by", "confidence") == "confidence":
        return Deferral("confidence", float(kept.get("small_weight", 0.0)))
    return Deferral("gain", float(kept["small_weight"]), np.asarray(kept["weight"]), np.asarray(kept["bias"]))


def inputs_of(small: Floats) -> Floats:
    """Return `INPUTS` of probabilities `[N, C]`, `[N, 3]`."""
    best = np.sort(small, axis=1)[:, -2:]
    inner = -(small * np.log(np.maximum(small, 1e-300))).sum(1) / max(np.log(small.shape[1]), 1e-9)
    lead = best[:, -1] - (best[:, 0] if small.shape[1] > 1 else 0.0)
    return np.stack([best[:, -1], lead, inner], 1)


def expected_gain(two: TwoAnswers, small_weight: float = 0.0) -> Deferral:
    """Return the deferral by P(larger right, smaller wrong) - P(larger wrong, smaller right).

    That is the optimal score where labels are noisy or one size is better at some pictures (Jitkrittum et al. 2023); a
    logistic regression on three numbers of the smaller size's answer estimates it.
    """
    x = inputs_of(two.small)
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-9)
    outcome = two.right(two.large).astype(np.int64) - two.right(two.small) + 1
    head = solve_head(torch.from_numpy((x - mean) / spread), torch.from_numpy(outcome), 3, _PULL)
    weight = head.weight.numpy() / spread
    return Deferral("gain", small_weight, weight, head.bias.numpy() - weight @ mean)


def held_out_urgency(two: TwoAnswers, by: By) -> Floats:
    """Return the urgency `[N]` of every picture, by a regression on the others where it takes one."""
    if by == "confidence":
        return Deferral().urgency(two.small)
    folds = stratified_folds(two.labels, NUM_FOLDS, 0)
    found = np.empty(len(two.labels))
    for fold in np.unique(folds):
        own = folds == fold
        others = np.flatnonzero(~own) if (~own).any() else np.flatnonzero(own)
        found[own] = expected_gain(two.take(others)).urgency(two.small[own])
    return found


def choose_small_weight(two: TwoAnswers) -> float:
    """Return the share of the smaller size with which the joint answer pays the least cross-entropy.

    0, the larger size's answer alone, where the joint one is right on fewer pictures.
    """
    own = np.arange(len(two.labels)), two.labels

    def loss(weight: float) -> float:
        joined = Deferral(small_weight=weight).joined(two.small, two.large)
        return float(-np.log(np.maximum(joined[own], 1e-300)).mean())

    best = min(_MIXTURES, key=loss)
    joined = two.right(Deferral(small_weight=best).joined(two.small, two.large))
    return best if joined.sum() >= two.right(two.large).sum() else 0.0


def levels_of(urgency: Floats) -> Floats:
    """Return every level that differs in what it does, cheapest first: from no picture going on to all of them."""
    return np.concatenate([np.unique(urgency)[::-1], [-EVERY]])


def point(two: TwoAnswers, deferral: Deferral, urgency: Floats, level: float) -> dict[str, Any]:
    """Return what a level gives: threshold, share that goes on, accuracy in percent, mean GMACs and their ratio."""
    goes_on = urgency > level
    share = float(goes_on.mean())
    # Of a picture in the mean: the smaller size always, the larger for those that go on.
    gmacs = two.small_gmacs + share * two.large_gmacs
    return {
        "threshold": deferral.threshold(level),
        "share": share,
        "top1": 100 * float(correct(two, deferral, urgency, level).mean()),
        "gmacs": gmacs,
        "cost_ratio": gmacs / two.large_gmacs,
    }


def correct(two: TwoAnswers, deferral: Deferral, urgency: Floats, level: float) -> Bools:
    """Return bool `[N]`: whether the cascade is right."""
    joined = two.right(deferral.joined(two.small, two.large))
    return np.where(urgency > level, joined, two.right(two.small))


def choose_level(two: TwoAnswers, deferral: Deferral, urgency: Floats) -> float:
    """Return the cheapest level at which the cascade is right on no fewer pictures than the larger size alone.

    There always is one where the joint answer of all pictures is no worse: see `choose_small_weight`. It is too good on
    the pictures it was chosen on, so what it gives is to be measured on others.
    """
    order = np.argsort(-urgency, kind="stable")
    joined, small = two.right(deferral.joined(two.small, two.large))[order], two.right(two.small)[order]
    # Right answers when the first k pictures in order of urgency go on.
    gained = np.concatenate([[0], np.cumsum(joined.astype(np.int64) - small)])
    enough = small.sum() + gained >= two.right(two.large).sum()
    found = levels_of(urgency)
    numbers = np.searchsorted(-urgency[order], -found, side="left")
    return float(found[int(np.argmax(enough[numbers]))])


def choose_deferral(two: TwoAnswers) -> tuple[Deferral, Floats, float]:
    """Return how to defer, the urgency of these pictures without their own labels, and the level: the cheapest way.

    Both ways are tried, by confidence and by expected gain; of equal cost, confidence, which needs no regression.
    """
    weight = choose_small_weight(two)
    tried = []
    ways: tuple[By, ...] = ("confidence", "gain")
    for by in ways:
        deferral = Deferral("confidence", weight) if by == "confidence" else expected_gain(two, weight)
        urgency = held_out_urgency(two, by)
        level = choose_level(two, deferral, urgency)
        tried.append((float((urgency > level).mean()), deferral, urgency, level))
    _, deferral, urgency, level = min(tried, key=lambda one: one[0])
    return deferral, urgency, level


@dataclass(frozen=True)
class Guarantee:
    """What is promised of a cascade, or that too few pictures certify it."""

    level: float | None
    """The cheapest that was shown to be harmless enough; None: none was."""
    harm: float
    """The share of pictures that may be lost: right at the larger size, wrong in the cascade."""
    confidence: float
    num_certifying: int
    num_harms: int
    """Of the certifying pictures, at `level`."""
    harms_allowed: int | None
    """The most that would still show it; None: not even 0 would."""


def guaranteed_level(
    deferral: Deferral, choosing: TwoAnswers, certifying: TwoAnswers, harm: float, confidence: float
) -> Guarantee:
    """Return the cheapest level that loses no more than `harm` of the pictures, with this confidence.

    The levels are those at which equal shares of the choosing pictures go on, from all of them to none; they are tested
    in this order on the certifying pictures, until the first that is not shown (Learn then Test, fixed sequence).
    Pictures lost count, not the net of lost and gained. The larger size's answer stands alone where it is asked, so
    that sending everything on does no harm.
    """
    if deferral.small_weight:
        raise ValueError("a guarantee is about the larger size's answer alone")
    shares = np.linspace(0, 1, _NUM_LEVELS + 1)
    levels = np.concatenate([[-EVERY], np.quantile(deferral.urgency(choosing.small), shares)])
    urgency = deferral.urgency(certifying.small)
    lost = certifying.right(certifying.large) & ~certifying.right(certifying.small)
    counts = [int((lost & ~(urgency > level)).sum()) for level in levels]
    num = len(certifying.labels)
    place = fixed_sequence(counts, [num] * len(counts), harm, confidence)
    return Guarantee(
        None if place is None else float(levels[place]),
        harm,
        confidence,
        num,
        0 if place is None else counts[place],
        events_allowed(num, harm, confidence),
    )


def curve(two: TwoAnswers, deferral: Deferral, urgency: Floats, num_points: int = 21) -> Sequence[dict[str, Any]]:
    """Return accuracy and cost at up to `num_points` levels, spread over the share of pictures that goes on."""
    found = levels_of(urgency)
    shares = np.searchsorted(np.sort(-urgency), -found, side="left") / len(urgency)
    places = sorted({int(np.argmin(np.abs(shares - share))) for share in np.linspace(0, 1, num_points)})
    return [point(two, deferral, urgency, float(found[place])) for place in places]
