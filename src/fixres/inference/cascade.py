"""Two sizes in turn: the larger one only for pictures on which the smaller one is not confident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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

    def gmacs(self, threshold: float) -> float:
        """Return the mean work of a picture: the smaller size always, the larger for those that go on."""
        return self.small_gmacs + float(self.goes_on(threshold).mean()) * self.large_gmacs

    def point(self, threshold: float) -> dict[str, Any]:
        """Return what a threshold gives: share that goes on, accuracy in percent, mean GMACs and their ratio."""
        gmacs = self.gmacs(threshold)
        return {
            "threshold": threshold,
            "share": float(self.goes_on(threshold).mean()),
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
