"""The loss of a training step: cross-entropy, with a weight for every class when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def training_loss(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Return the loss of a batch, a scalar.

    Args:
        logits: `[B, C]`.
        targets: int64 labels `[B]`, or soft targets `[B, C]` (mixup, cutmix) that hold the smoothing already.
        smoothing: mass moved from the label to all classes.
        class_weights: one for every class, with mean 1 over the training samples.

    A weight multiplies the whole loss of a picture, smoothed part included; a mixed picture has the weights of its
    labels in their mixing proportion. The sum is divided by the number of pictures, not by the sum of their weights as
    in `torch.nn.CrossEntropyLoss`: there a batch of rare pictures would count no more than one of frequent ones, and
    micro-batches and processes would not add up to the whole batch.
    """
    is_soft = targets.ndim == 2
    smooth = 0.0 if is_soft else smoothing
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smooth)
    weights = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
    # The smoothing is taken out again: its mass belongs to no picture of those classes.
    own = (targets.float() @ weights - smoothing * weights.mean()) / (1 - smoothing) if is_soft else weights[targets]
    return (own * F.cross_entropy(logits, targets, label_smoothing=smooth, reduction="none")).mean()
