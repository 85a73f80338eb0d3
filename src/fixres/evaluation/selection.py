"""Which of several candidates is kept by the selecting split: the rules of every choice between weights.

Thousands of pictures can tell networks apart by how many they get right. Few cannot: their accuracies tie, or differ by
luck, and so do their losses. Of the epochs of one training the latest is kept that is not clearly worse than the best:
training mostly gets better, and only a fault that the pictures show beyond their error speaks for an earlier epoch.
docs/results.md has what each rule loses. Networks of different trainings are compared by the cross-entropy after each
one's own temperature, so that label smoothing or long training, which only make a network less or more sure of
everything, do not decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cmp_to_key

import numpy as np
import numpy.typing as npt
import torch

from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.logit_outcomes import image_outcomes
from fixres.evaluation.temperature_scaling import fit_temperature
from fixres.resolution import is_worse

MANY_IMAGES = 1_000
"""From so many selecting pictures on accuracy decides, and then the loss; below, the loss."""
_SAME_LOSS = 1e-6
"""Share of a loss, and of a nat after temperature, by which another must be lower: less is rounding."""


@dataclass(frozen=True)
class Figures:
    """What a candidate reached on the selecting split."""

    top1: float
    """Percent."""
    loss: float
    """Mean cross-entropy in nats."""
    calibrated_loss: float | None = None
    """The same after the candidate's own temperature; None where that does not decide."""
    temperature: float | None = None
    losses: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    """Cross-entropy of every picture `[N]`, where they are few; None where their accuracy decides."""


def is_better(found: Figures, best: Figures) -> bool:
    """Return whether one candidate is better than another on the same pictures, by more than rounding.

    Both have a loss after temperature, and it decides; or pictures are few, and the loss does; or accuracy does, and
    between equals the loss.
    """
    is_lower = found.loss < best.loss * (1 - _SAME_LOSS)
    if found.calibrated_loss is None or best.calibrated_loss is None:
        if found.losses is not None:
            return is_lower
        return found.top1 > best.top1 or (found.top1 == best.top1 and is_lower)
    return found.calibrated_loss < best.calibrated_loss * (1 - _SAME_LOSS) - _SAME_LOSS


def is_as_good(found: Figures, lowest: Figures) -> bool:
    """Return whether a later epoch is kept in place of that with the lowest loss so far, on the same pictures.

    It is where pictures are few and its mean loss is higher by no more than one standard error of the difference.
    """
    if found.losses is None or lowest.losses is None or len(found.losses) != len(lowest.losses):
        return False
    return not is_worse(found.losses, lowest.losses)


def best_first(candidates: Mapping[str, Figures]) -> list[str]:
    """Return the names of candidates on the same pictures, the best first, equals in the order given."""

    def order(name: str, other: str) -> int:
        return is_better(candidates[other], candidates[name]) - is_better(candidates[name], candidates[other])

    return sorted(candidates, key=cmp_to_key(order))


def is_few(num_images: int) -> bool:
    """Return whether so many selecting pictures are too few for their accuracy to decide."""
    return num_images < MANY_IMAGES


def epoch_figures(found: Evaluation) -> Figures:
    """Return what an epoch reached on the selecting split, by which it is compared with others of its training."""
    result, losses = found.results[0], found.outcomes[0].losses
    return Figures(result["top1"], result["loss"], losses=losses if is_few(len(losses)) else None)


def figures_of(found: Evaluation, place: int = 0) -> Figures:
    """Return what one view of an evaluation on the selecting split reached.

    It has a loss after temperature where the logits were kept, which is for the caller to ask for where `is_few`.
    """
    result = found.results[place]
    if found.logits is None:
        return Figures(result["top1"], result["loss"])
    logits, labels = torch.from_numpy(found.logits[place]), torch.from_numpy(found.labels)
    temperature = fit_temperature(logits, labels)
    calibrated = float(image_outcomes(logits.double() / temperature, labels).losses.mean())
    return Figures(result["top1"], result["loss"], calibrated, temperature)
