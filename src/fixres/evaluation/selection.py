"""Which of two candidates is better on the selecting split: the one rule of every choice between weights.

Thousands of pictures can tell networks apart by how many they get right. Few cannot: their accuracies tie, or differ by
luck. There the cross-entropy decides, which uses every picture, after each candidate's own temperature, so that label
smoothing or long training, which only make a network less or more sure of everything, do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cmp_to_key

import torch

from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.logit_outcomes import image_outcomes
from fixres.evaluation.temperature_scaling import fit_temperature

MANY_IMAGES = 1_000
"""From so many selecting pictures on accuracy decides, and then the loss; below, the loss after temperature."""
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

    @property
    def fields(self) -> dict[str, float]:
        """What is logged beside the other metrics, under the names of `eval --json`."""
        if self.calibrated_loss is None or self.temperature is None:
            return {}
        return {"temperature": self.temperature, "loss_calibrated": self.calibrated_loss}


def is_better(found: Figures, best: Figures) -> bool:
    """Return whether one candidate is better than another on the same pictures, by more than rounding.

    Both have a loss after temperature, and it decides; or accuracy does, and between equals the loss.
    """
    if found.calibrated_loss is None or best.calibrated_loss is None:
        is_lower = found.loss < best.loss * (1 - _SAME_LOSS)
        return found.top1 > best.top1 or (found.top1 == best.top1 and is_lower)
    return found.calibrated_loss < best.calibrated_loss * (1 - _SAME_LOSS) - _SAME_LOSS


def best_first(candidates: Mapping[str, Figures]) -> list[str]:
    """Return the names of candidates on the same pictures, the best first, equals in the order given."""

    def order(name: str, other: str) -> int:
        return is_better(candidates[other], candidates[name]) - is_better(candidates[name], candidates[other])

    return sorted(candidates, key=cmp_to_key(order))


def is_few(num_images: int) -> bool:
    """Return whether so many selecting pictures are too few for their accuracy to decide."""
    return num_images < MANY_IMAGES


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
