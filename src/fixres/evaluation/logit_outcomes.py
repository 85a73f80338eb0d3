"""From logits to what is kept of every image, in float64 on the CPU: the arrays that metrics are functions of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEAR_TIE = 1e-4
"""Two best logits closer than this share of the logits' range are decided by rounding."""


class ImageOutcomes(NamedTuple):
    """One batch, tensors `[B]`."""

    predictions: Tensor
    confidences: Tensor
    """Probability of the prediction."""
    losses: Tensor
    """Cross-entropy in nats."""
    ranks: Tensor
    """How many classes come before the label."""
    near_ties: Tensor
    """Whether rounding may decide between the two best classes."""


def image_outcomes(logits: Tensor, labels: Tensor) -> ImageOutcomes:
    """Return what logits `[B, C]` and labels int64 `[B]` say of every image."""
    logits = logits.detach().to("cpu", torch.float64)
    labels = labels.to("cpu")
    log_probability = logits.log_softmax(1)
    predictions = logits.argmax(1)
    return ImageOutcomes(
        predictions,
        log_probability.gather(1, predictions[:, None]).squeeze(1).exp(),
        -log_probability.gather(1, labels[:, None]).squeeze(1),
        label_ranks(logits, labels),
        _near_ties(logits),
    )


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return int64 `[B]`: how many classes come before the label. Equal logits: the lower class index wins."""
    of_label = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > of_label) | ((logits == of_label) & (index < labels[:, None]))
    return before.sum(1)


def _near_ties(logits: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        return torch.zeros(len(logits), dtype=torch.bool)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    span = logits.amax(1) - logits.amin(1)
    return (first - second < NEAR_TIE * span) | (span == 0)
