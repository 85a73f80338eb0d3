"""Exact counts: integer and float64 sums over per-image results, added up once and divided last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NUM_BINS = 15
LOSS_UNIT = 2.0**-32
CONFIDENCE_UNIT = 2.0**-36
"""Losses and confidences are added up as whole multiples of these: integers have one sum in any order."""
NEAR_TIE = 1e-4
MAX_CONFUSION_CLASSES = 1000


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return int64 `[B]`: how many classes come before the label. Equal logits: the lower class index wins."""
    of_label = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > of_label) | ((logits == of_label) & (index < labels[:, None]))
    return before.sum(1)


def bin_places(confidence: Tensor) -> Tensor:
    """Return int64 `[N]`: the calibration bin, 0 to 14, of every confidence in [0, 1]."""
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)
    return (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, NUM_BINS - 1)


@dataclass
class Tally:
    """Sums over every image seen once. Two tallies add up to the tally of both sets of images."""

    num_classes: int
    num_images: int = 0
    num_correct: int = 0
    num_correct5: int = 0
    num_near_ties: int = 0
    loss_sum: int = 0
    """In units of 2^-32 nats."""
    hits: Tensor = field(init=False)
    """int64 `[3, C]`: true positives, predicted, actual."""
    bins: Tensor = field(init=False)
    """int64 `[3, 15]`: images, confidence (in units of 2^-36) and hits per confidence bin."""
    confusion: Tensor | None = field(init=False)
    """int64 `[C, C]`, rows are labels; None above 1,000 classes."""

    def __post_init__(self) -> None:
        self.hits = torch.zeros(3, self.num_classes, dtype=torch.int64)
        self.bins = torch.zeros(3, NUM_BINS, dtype=torch.int64)
        small = self.num_classes <= MAX_CONFUSION_CLASSES
        self.confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64) if small else None

    def add(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add logits `[B, C]` and labels int64 `[B]`; return predictions, probabilities and losses `[B]`."""
        logits = logits.detach().to("cpu", torch.float64)
        labels = labels.to("cpu")
        rank = label_ranks(logits, labels)
        log_probability = logits.log_softmax(1)
        predicted = logits.argmax(1)
        confidence = log_probability.gather(1, predicted[:, None]).squeeze(1).exp()
        hit = rank == 0

        self.num_images += len(labels)
        self.num_correct += int(hit.sum())
        self.num_correct5 += int((rank < 5).sum())
        losses = -log_probability.gather(1, labels[:, None]).squeeze(1)
        self.loss_sum += sum(map(round, (losses / LOSS_UNIT).tolist()))
        self.num_near_ties += _near_ties(logits)
        for row, classes in enumerate((labels[hit], predicted, labels)):
            self.hits[row] += torch.bincount(classes, minlength=self.num_classes)
        bin_index = bin_places(confidence)
        units = (confidence / CONFIDENCE_UNIT).round().long()
        for row, values in enumerate((torch.ones_like(units), units, hit.long())):
            self.bins[row].index_add_(0, bin_index, values)
        if self.confusion is not None:
            flat = labels * self.num_classes + predicted
            self.confusion.view(-1).index_add_(0, flat, torch.ones_like(flat))
        return predicted, confidence, losses

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of both sets of images; the order of adding changes no bit."""
        total = Tally(self.num_classes)
        for name in ("num_images", "num_correct", "num_correct5", "num_near_ties", "loss_sum", "hits", "bins"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        if self.confusion is not None and other.confusion is not None:
            total.confusion = self.confusion + other.confusion
        return total

    def result(self) -> dict[str, Any]:
        """Return the fields of `eval --json`: accuracies in percent, loss in nats, ECE in [0, 1]."""
        n = max(1, self.num_images)
        true, predicted, actual = self.hits.double()
        seen = actual > 0
        f1 = 2 * true / (predicted + actual).clamp(min=1)
        counted = (predicted + actual) > 0
        _, confidence, hits = self.bins.double()
        return {
            "top1": 100 * self.num_correct / n,
            "top1_ci95": wilson_interval(self.num_correct, self.num_images),
            "top5": 100 * self.num_correct5 / n if self.num_classes > 5 else None,
            "loss": self.loss_sum * LOSS_UNIT / n,
            "ece": float((confidence * CONFIDENCE_UNIT - hits).abs().sum() / n),
            "balanced_accuracy": float(100 * (true[seen] / actual[seen]).mean()) if seen.any() else 0.0,
            "macro_f1": float(100 * f1[counted].mean()) if counted.any() else 0.0,
            "num_near_ties": self.num_near_ties,
            "confusion": self.confusion.tolist() if self.confusion is not None and self.num_classes <= 100 else None,
        }


def class_table(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per class: pictures, recall, precision and F1 in percent; None where there is nothing to divide.

    Args:
        labels: int64 `[N]`.
        predictions: int64 `[N]`.
        names: of the classes, in the order of their labels.
    """
    actual, predicted, true = (
        np.bincount(chosen, minlength=len(names)) for chosen in (labels, predictions, labels[labels == predictions])
    )

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


def _near_ties(logits: Tensor) -> int:
    """Count the images whose two best logits are closer than 1e-4 of the logits' range: rounding may decide them."""
    if logits.shape[1] < 2:
        return 0
    first, second = logits.topk(2, dim=1).values.unbind(1)
    span = logits.amax(1) - logits.amin(1)
    return int((first - second < NEAR_TIE * span).sum()) + int((span == 0).sum())


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


Floats = npt.NDArray[np.float64]


Ints = npt.NDArray[np.int64]


_AT_ONCE = 1 << 22
"""Drawn pictures held in memory at a time."""


def bootstrap_intervals(
    labels: Ints,
    predictions: Ints,
    ranks: Ints,
    confidences: Floats,
    losses: Floats,
    *,
    num_classes: int,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of every metric, in the metric's own unit, over resampled pictures.

    Args:
        labels: `[N]`.
        predictions: `[N]`.
        ranks: `[N]`, classes before the label; top-5 counts those below 5.
        confidences: `[N]`, probability of the prediction.
        losses: `[N]`, nats.
        num_classes: classes of the network; with five or fewer there is no top-5.
        num_resamples: how often N pictures are drawn with replacement.
        seed: of the draws; the same seed gives the same intervals.
    """
    chance = np.random.default_rng(seed)
    hits = predictions == labels
    bins = bin_places(torch.from_numpy(confidences)).numpy()
    rows: list[dict[str, Floats]] = []
    at_once = max(1, _AT_ONCE // max(1, len(labels)))
    for start in range(0, num_resamples, at_once):
        drawn = chance.integers(0, len(labels), (min(at_once, num_resamples - start), len(labels)))
        row = {"top1": 100 * hits[drawn].mean(1)}
        if num_classes > 5:
            row["top5"] = 100 * (ranks < 5)[drawn].mean(1)
        row["loss"] = losses[drawn].mean(1)
        gaps = _sums(bins[drawn], NUM_BINS, (confidences - hits)[drawn])
        row["ece"] = np.abs(gaps).sum(1) / len(labels)
        row |= _of_classes(labels[drawn], predictions[drawn], hits[drawn], num_classes)
        rows.append(row)
    found = {}
    for name in rows[0]:
        low, high = np.percentile(np.concatenate([row[name] for row in rows]), [2.5, 97.5])
        found[name] = (float(low), float(high))
    return found


def _of_classes(labels: Ints, predictions: Ints, hits: npt.NDArray[np.bool_], num_classes: int) -> dict[str, Floats]:
    """Return balanced accuracy and macro-F1 in percent of every row of drawn pictures."""
    actual = _sums(labels, num_classes)
    predicted = _sums(predictions, num_classes)
    true = _sums(labels, num_classes, hits)
    seen, counted = actual > 0, actual + predicted > 0
    recall = np.divide(true, actual, out=np.zeros_like(true), where=seen)
    f1 = np.divide(2 * true, actual + predicted, out=np.zeros_like(true), where=counted)
    return {"balanced_accuracy": 100 * recall.sum(1) / seen.sum(1), "macro_f1": 100 * f1.sum(1) / counted.sum(1)}


def _sums(places: Ints, num: int, weights: npt.NDArray[np.float64 | np.bool_] | None = None) -> Floats:
    """Return `[rows, num]`: of every row of `places` the weights, or the number, at each place."""
    flat = (places + num * np.arange(len(places))[:, None]).ravel()
    found = np.bincount(flat, None if weights is None else weights.ravel(), minlength=num * len(places))
    return found.astype(np.float64).reshape(len(places), num)
