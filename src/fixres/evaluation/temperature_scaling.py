"""Temperature scaling (Guo et al. 2017): one number by which confidences become honest, and no decision changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_COLDEST, _HOTTEST = 0.05, 20.0
_ROWS = 4096


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T with the smallest mean cross-entropy of logits / T, `[N, C]`, and labels int64 `[N]`.

    The loss is convex in 1 / T, so that bisection with Newton's steps finds the only minimum. Where there is none
    (every picture right, or chance would do better) T is the end of its range, 0.05 or 20.
    """
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if _slope(logits, labels, low)[0] >= 0:
        return _HOTTEST
    if _slope(logits, labels, high)[0] <= 0:
        return _COLDEST
    beta = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits, labels, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else low
        # A Newton step that leaves the bracket is replaced by its middle.
        following = step if low < step < high else (low + high) / 2
        if abs(following - beta) <= 1e-12 * beta:
            break
        beta = following
    return 1 / beta


def cross_fitted_losses(logits: Tensor, labels: Tensor, folds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the cross-entropy `[N]` in nats of every picture after a temperature fitted on the other folds.

    No picture decides its own temperature: of few that are all right, that would be the coldest, and the loss nothing.

    Args:
        logits: `[N, C]`.
        labels: int64 `[N]`.
        folds: the fold of every picture, int64 `[N]`; where there is one alone, it is its own other.
    """
    losses = np.empty(len(labels))
    for fold in np.unique(folds):
        own = torch.from_numpy(folds == fold)
        others = ~own if bool((~own).any()) else own
        cooled = logits[own].double() / fit_temperature(logits[others], labels[others])
        losses[own.numpy()] = torch.nn.functional.cross_entropy(cooled, labels[own], reduction="none").numpy()
    return losses


def _slope(logits: Tensor, labels: Tensor, beta: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean cross-entropy of `beta * logits` by beta."""
    first = second = 0.0
    for start in range(0, len(labels), _ROWS):
        z, label = logits[start : start + _ROWS].double(), labels[start : start + _ROWS]
        p = (beta * z).softmax(1)
        mean = (p * z).sum(1)
        first += float((mean - z.gather(1, label[:, None]).squeeze(1)).sum())
        second += float(((p * z * z).sum(1) - mean * mean).sum())
    return first / len(labels), second / len(labels)
