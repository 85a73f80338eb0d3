"""One table of metrics: each is a function over per-image arrays, from which every other figure is derived.

An evaluation, `score`, the bootstrap and the report all read METRICS, so that they agree by construction. Adding a
metric is adding a row. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_BINS = 15
"""Bins of the calibration error."""
MAX_CONFUSION_CLASSES = 1000
"""Up to here a matrix of counts is drawn."""
_MAX_LOGGED_CLASSES = 100
"""Up to here a result holds its confusion matrix unasked."""
_AT_ONCE = 1 << 22
"""Drawn images held in memory at a time."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """What a network made of every image: arrays `[N]`, or `[R, N]` where images were drawn R times."""

    labels: Ints
    predictions: Ints
    ranks: Ints
    """How many classes come before the label; equal logits: the lower class index wins."""
    confidences: Floats
    """Probability of the prediction."""
    losses: Floats
    """Cross-entropy in nats."""
    num_classes: int

    @property
    def num_images(self) -> int:
        """Images of one draw, N."""
        return int(self.labels.shape[-1])

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Whether the prediction is the label."""
        found: npt.NDArray[np.bool_] = self.predictions == self.labels
        return found

    def take(self, places: Ints) -> Outcomes:
        """Return the outcomes of the images at `places` `[R, N]`, of outcomes `[N]`."""
        return Outcomes(
            self.labels[places],
            self.predictions[places],
            self.ranks[places],
            self.confidences[places],
            self.losses[places],
            self.num_classes,
        )


@dataclass(frozen=True)
class Metric:
    """One figure of an evaluation."""

    title: str
    """Its name for people."""
    unit: str
    """`%`, `nats`, or empty for a ratio in [0, 1]."""
    digits: int
    """Digits after the point in tables."""
    is_higher_better: bool
    """The direction in which a network improves."""
    compute: Callable[[Outcomes], Floats]
    """From outcomes `[..., N]` to the figure `[...]`."""
    min_classes: int = 1
    """Networks with fewer classes have no such figure."""
    shown_from_classes: int = 1
    """Tables for people leave it out below: of six classes five guesses are right nearly always."""


_UNEVEN = 1.5
"""Times the smallest class that the largest may have before classes count as uneven."""
METRICS: dict[str, Metric] = {}
"""Every metric by its key in `eval --json`, in the order it is printed; `register_metric` adds to it."""


def register_metric(key: str, metric: Metric) -> None:
    """Add a metric to the table: evaluations, scores, intervals, reports and studies have it from then on.

    Raises:
        ValueError: there is one of that key.
    """
    if key in METRICS:
        raise ValueError(f"there is a metric '{key}' already")
    METRICS[key] = metric


def bin_places(confidences: Floats) -> Ints:
    """Return the calibration bin, 0 to 14, of every confidence in [0, 1]."""
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    found: Ints = (np.searchsorted(edges, confidences, side="right") - 1).clip(0, NUM_BINS - 1)
    return found


def _top1(outcomes: Outcomes) -> Floats:
    return _ratio(100 * outcomes.hits.sum(-1), outcomes.num_images)


def _top5(outcomes: Outcomes) -> Floats:
    return _ratio(100 * (outcomes.ranks < 5).sum(-1), outcomes.num_images)


def _loss(outcomes: Outcomes) -> Floats:
    return _ratio(outcomes.losses.sum(-1), outcomes.num_images)


def _calibration_error(outcomes: Outcomes) -> Floats:
    """Guo et al. 2017, equation 3: the mean distance of confidence and accuracy over bins of equal width."""
    gaps = _sums(bin_places(outcomes.confidences), NUM_BINS, outcomes.confidences - outcomes.hits)
    return _ratio(np.abs(gaps).sum(-1), outcomes.num_images)


def _balanced_accuracy(outcomes: Outcomes) -> Floats:
    """Mean recall of the classes that occur among the labels."""
    actual = _sums(outcomes.labels, outcomes.num_classes)
    true = _sums(outcomes.labels, outcomes.num_classes, outcomes.hits)
    seen = actual > 0
    recall = np.divide(true, actual, out=np.zeros_like(true), where=seen)
    return 100 * _ratio(recall.sum(-1), seen.sum(-1))


def _macro_f1(outcomes: Outcomes) -> Floats:
    """Mean F1 of the classes that occur among the labels or the predictions."""
    both = _sums(outcomes.labels, outcomes.num_classes) + _sums(outcomes.predictions, outcomes.num_classes)
    true = _sums(outcomes.labels, outcomes.num_classes, outcomes.hits)
    f1 = np.divide(2 * true, both, out=np.zeros_like(true), where=both > 0)
    return 100 * _ratio(f1.sum(-1), (both > 0).sum(-1))


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    found: Floats = np.divide(part, whole)
    return found


def _sums(places: Ints, num: int, weights: npt.NDArray[np.float64 | np.bool_] | None = None) -> Floats:
    """Return `[..., num]`: of every row of `places` `[..., N]` the weights, or the number, at each place."""
    rows = places.reshape(-1, places.shape[-1])
    flat = (rows + num * np.arange(len(rows))[:, None]).ravel()
    found = np.bincount(flat, None if weights is None else weights.ravel(), minlength=num * len(rows))
    return found.astype(np.float64).reshape(*places.shape[:-1], num)


register_metric("top1", Metric("Top-1", "%", 2, True, _top1))
register_metric("top5", Metric("Top-5", "%", 2, True, _top5, min_classes=6, shown_from_classes=11))
register_metric("loss", Metric("Loss", "nats", 3, False, _loss))
register_metric("ece", Metric("Calibration error (ECE)", "", 3, False, _calibration_error))
register_metric("balanced_accuracy", Metric("Balanced accuracy", "%", 2, True, _balanced_accuracy))
register_metric("macro_f1", Metric("Macro-F1", "%", 2, True, _macro_f1))


def is_shown(key: str, num_classes: int) -> bool:
    """Return whether tables for people have a metric, of a network with so many classes."""
    return num_classes >= METRICS[key].shown_from_classes


def imbalance(counts: npt.ArrayLike) -> float:
    """Return how many times as many pictures the largest class has as the smallest that has any; 1 without pictures."""
    found = np.asarray(counts)
    found = found[found > 0]
    return float(found.max() / found.min()) if len(found) else 1.0


def is_uneven(ratio: float | None) -> bool:
    """Return whether tables show balanced accuracy beside top-1: the largest class is over 1.5 times the smallest."""
    return ratio is not None and ratio > _UNEVEN


def figures(outcomes: Outcomes) -> dict[str, float | None]:
    """Return every metric of outcomes `[N]`; None where the network has too few classes for it."""
    return {
        key: float(metric.compute(outcomes)) if outcomes.num_classes >= metric.min_classes else None
        for key, metric in METRICS.items()
    }


def result_fields(outcomes: Outcomes, num_near_ties: int | None) -> dict[str, Any]:
    """Return the metrics of a result of `eval --json`, the interval of top-1 behind it, and the counts."""
    found: dict[str, Any] = {}
    for key, value in figures(outcomes).items():
        found[key] = value
        if key == "top1":
            found["top1_ci95"] = wilson_interval(int(outcomes.hits.sum()), outcomes.num_images)
    matrix = None
    if outcomes.num_classes <= _MAX_LOGGED_CLASSES:
        matrix = confusion_matrix(outcomes.labels, outcomes.predictions, outcomes.num_classes).tolist()
    return {**found, "num_near_ties": num_near_ties, "confusion": matrix}


def bootstrap_intervals(outcomes: Outcomes, num_resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of every metric, in the metric's own unit, over resampled images.

    Args:
        outcomes: `[N]`.
        num_resamples: how often N images are drawn with replacement.
        seed: of the draws; the same seed gives the same intervals.
    """
    chance = np.random.default_rng(seed)
    n = outcomes.num_images
    known = [key for key, metric in METRICS.items() if outcomes.num_classes >= metric.min_classes]
    rows: dict[str, list[Floats]] = {key: [] for key in known}
    at_once = max(1, _AT_ONCE // max(1, n))
    for start in range(0, num_resamples, at_once):
        drawn = outcomes.take(chance.integers(0, n, (min(at_once, num_resamples - start), n)))
        for key in known:
            rows[key].append(METRICS[key].compute(drawn))
    found = {}
    for key, parts in rows.items():
        low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
        found[key] = (float(low), float(high))
    return found


def class_table(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per class: pictures, recall, precision and F1 in percent; None where there is nothing to divide.

    Args:
        labels: int64 `[N]`.
        predictions: int64 `[N]`.
        names: of the classes, in the order of their labels.
    """
    chosen = (labels, predictions, labels[labels == predictions])
    actual, predicted, true = (np.bincount(places, minlength=len(names)) for places in chosen)
    return class_counts(actual, predicted, true, names)


def class_counts(
    actual: np.ndarray, predicted: np.ndarray, true: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of `class_table` from how many pictures `[C]` are, are called, and rightly are each class."""

    def percent(part: int, whole: int) -> float | None:
        return 100 * part / whole if whole else None

    return [
        {
            "name": name,
            "num_images": a,
            "num_predicted": p,
            "num_correct": t,
            "recall": percent(t, a),
            "precision": percent(t, p),
            "f1": percent(2 * t, a + p),
        }
        for name, a, p, t in zip(names, actual.tolist(), predicted.tolist(), true.tolist(), strict=True)
    ]


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return int64 `[C, C]`: pictures of every label (row) and prediction (column)."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def without_confusion(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without its confusion matrix, which is too long for a log line."""
    return {key: value for key, value in result.items() if key != "confusion"}


def wilson_interval(num_correct: int, num_images: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of an accuracy, in percent."""
    if num_images == 0:
        return 0.0, 100.0
    p = num_correct / num_images
    centre = p + z * z / (2 * num_images)
    spread = z * math.sqrt(p * (1 - p) / num_images + z * z / (4 * num_images**2))
    scale = 100 / (1 + z * z / num_images)
    return max(0.0, scale * (centre - spread)), min(100.0, scale * (centre + spread))


@dataclass(frozen=True)
class PairedDifference:
    """Two classifiers on the same images: `difference` and its interval in points of accuracy."""

    difference: float
    ci95: tuple[float, float]
    p_value: float
    num_better: int
    num_worse: int
    num_images: int

    @property
    def is_distinguishable(self) -> bool:
        """Whether the interval excludes 0 and the exact test agrees; they can part ways on a few pictures."""
        return not self.ci95[0] <= 0 <= self.ci95[1] and self.p_value < 0.05


def paired_difference(before: np.ndarray, after: np.ndarray) -> PairedDifference:
    """Compare two bool arrays `[N]` of correctness on the same images.

    The interval is Agresti and Min's (2005): Wald's after adding 1/2 to each cell of the 2x2 table, cut at what a
    difference can be. The p-value is McNemar's exact one.
    """
    better = int((after & ~before).sum())
    worse = int((before & ~after).sum())
    n = len(before)
    b, c, total = better + 0.5, worse + 0.5, n + 2
    centre = (b - c) / total
    spread = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    discordant = better + worse
    tail = sum(math.comb(discordant, k) for k in range(min(better, worse) + 1)) / 2**discordant
    return PairedDifference(
        difference=100 * (better - worse) / max(1, n),
        ci95=(max(-100.0, 100 * (centre - spread)), min(100.0, 100 * (centre + spread))),
        p_value=min(1.0, 2 * tail),
        num_better=better,
        num_worse=worse,
        num_images=n,
    )
