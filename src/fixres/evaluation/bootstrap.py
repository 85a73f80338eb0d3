"""How far a metric would scatter over other samples of as many pictures: percentile bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fixres.evaluation.metrics import NUM_BINS, bin_places

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
