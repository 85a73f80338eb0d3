"""Outcomes and results straight from logits, as an evaluation makes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fixres.evaluation.logit_outcomes import image_outcomes
from fixres.evaluation.metrics import Outcomes, result_fields


def outcomes_of(logits: Tensor, labels: Tensor) -> Outcomes:
    """Return what logits `[N, C]` say of images with labels `[N]`."""
    found = image_outcomes(logits, labels)
    predictions, confidences, losses, ranks, _ = (tensor.numpy() for tensor in found)
    return Outcomes(labels.numpy(), predictions, ranks, confidences, losses, logits.shape[1])


def result_of(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the fields of a result of `eval --json`."""
    return result_fields(outcomes_of(logits, labels), int(image_outcomes(logits, labels).near_ties.sum()))
