"""Which of several networks ships: one that costs more must be better by more than luck, on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["probe", "trained", "fixed"]
"""probe: a solved head on the network a run started from; trained and fixed: what its stages made."""


@dataclass(frozen=True)
class Candidate:
    """A network at its size, measured on the selecting split."""

    kind: Kind
    losses: npt.NDArray[np.float64]
    """`[N]`: cross-entropy of every picture in nats, after the candidate's own temperature."""
    gmacs: float
    """Of one picture."""


def choose_to_ship(candidates: Sequence[Candidate]) -> int:
    """Return the place of the candidate that ships.

    It is the cheapest probe, unless another's loss is lower by more than one standard error of the difference over the
    pictures. Of those that clear that bar, the one with the lowest loss; and of those within one standard error of it,
    the cheapest.

    Args:
        candidates: on the same pictures in the same order, at least one of them a probe.
    """
    base = cheapest_probe(candidates)
    places = range(len(candidates))
    cleared = [place for place in places if _is_lower(candidates[place], candidates[base])]
    if not cleared:
        return base
    best = min(cleared, key=lambda place: (candidates[place].losses.mean(), candidates[place].gmacs))
    close = [place for place in cleared if not _is_lower(candidates[best], candidates[place])]
    return min(close, key=lambda place: (candidates[place].gmacs, candidates[place].losses.mean()))


def cheapest_probe(candidates: Sequence[Candidate]) -> int:
    """Return the place of the probe that all others are compared with."""
    probes = [place for place, candidate in enumerate(candidates) if candidate.kind == "probe"]
    return min(probes, key=lambda place: (candidates[place].gmacs, candidates[place].losses.mean()))


def loss_difference(candidate: Candidate, other: Candidate) -> tuple[float, float]:
    """Return the mean difference in loss, candidate minus other, and its standard error over the pictures.

    One picture has no error that could be told: it is infinite.
    """
    gaps = candidate.losses - other.losses
    if len(gaps) < 2:
        return float(gaps.mean()), math.inf
    return float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))


def _is_lower(candidate: Candidate, other: Candidate) -> bool:
    """Return whether a loss is lower than another by more than one standard error of the difference."""
    gap, error = loss_difference(candidate, other)
    return gap < -error
