"""Labels that heads solved on other pictures contradict: confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Suspected:
    """Pictures whose label is suspected, the most suspected first; arrays `[M]`."""

    places: npt.NDArray[np.int64]
    """Of the pictures that were given."""
    others: npt.NDArray[np.int64]
    """The class each looks like."""


def suspected_labels(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> Suspected:
    """Return the pictures for which another class is more probable than it is on average for its own pictures.

    With t_c the mean probability of class c over the pictures labelled c, a label is suspected where some other class c
    has at least t_c; they are ranked by the probability of the label less that of the other class. A class that is
    weakly told apart has a low t_c, so that no class is suspected for being hard.

    Args:
        probabilities: `[N, C]`, each picture's from a head that was not solved on it.
        labels: int64 `[N]`.
    """
    num, num_classes = probabilities.shape
    counts = np.bincount(labels, minlength=num_classes)
    own = probabilities[np.arange(num), labels]
    means = np.bincount(labels, own, num_classes) / np.maximum(counts, 1)
    # A class without pictures vouches for nothing.
    reaches = (probabilities >= means) & (counts > 0)
    reaches[np.arange(num), labels] = False
    best = np.where(reaches, probabilities, -1.0)
    others = best.argmax(1)
    margin = own - best[np.arange(num), others]
    places = np.flatnonzero(reaches.any(1))
    places = places[np.argsort(margin[places], kind="stable")]
    return Suspected(places, others[places])
