"""The losses of a training step: cross-entropy, binary cross-entropy, focal, and that of a teacher.

Each is a sum over pictures divided by `divisor`. Given the pictures of the whole batch as divisor, micro-batches and
processes add up to the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fixres.config.recipe import LossName


def training_loss(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    *,
    name: LossName = "ce",
    gamma: float = 2.0,
    threshold: float = 0.0,
    divisor: float | None = None,
) -> Tensor:
    """Return the loss of a batch, a scalar.

    Args:
        logits: `[B, C]`.
        targets: int64 labels `[B]`, or soft targets `[B, C]` (mixup, cutmix) that hold the smoothing already.
        smoothing: mass moved from the label to all classes.
        class_weights: one for every class, with mean 1 over the training samples.
        name: ce; bce, the mean over classes of the binary cross-entropy (Wightman et al. 2021); focal, cross-entropy
            in which every class counts (1 - p)^gamma times (Lin et al. 2017).
        gamma: exponent of focal.
        threshold: bce: targets above it become 1, all others 0; 0: targets as they are.
        divisor: what the sum over pictures is divided by; by default B.

    A weight multiplies the whole loss of a picture, smoothed part included; a mixed picture has the weights of its
    labels in their mixing proportion. The sum is divided by the number of pictures, not by the sum of their weights as
    in `torch.nn.CrossEntropyLoss`: there a batch of rare pictures would count no more than one of frequent ones, and
    micro-batches and processes would not add up to the whole batch.
    """
    is_soft = targets.ndim == 2
    smooth = 0.0 if is_soft else smoothing
    if name == "ce" and class_weights is None and divisor is None:
        return F.cross_entropy(logits, targets, label_smoothing=smooth)
    if name == "ce":
        losses = F.cross_entropy(logits, targets, label_smoothing=smooth, reduction="none")
    else:
        soft = targets.float() if is_soft else smoothed(targets, logits.shape[1], smoothing)
        losses = focal(logits, soft, gamma) if name == "focal" else binary(logits, soft, threshold)
    if class_weights is not None:
        weights = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
        # The smoothing is taken out again: its mass belongs to no picture of those classes.
        losses = losses * (
            (targets.float() @ weights - smoothing * weights.mean()) / (1 - smoothing) if is_soft else weights[targets]
        )
    return losses.sum() / (len(losses) if divisor is None else divisor)


def smoothed(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return soft targets `[B, C]`, float32, of int64 labels `[B]`, with `smoothing` of the mass spread over all."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def binary(logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """Return the mean over classes of the binary cross-entropy of each picture, `[B]`, of soft targets `[B, C]`."""
    if threshold > 0:
        targets = (targets > threshold).float()
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=1)


def focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Return the focal loss of each picture, `[B]`, of soft targets `[B, C]`."""
    log_p = F.log_softmax(logits.float(), dim=1)
    # 1 - p without cancellation, and never 0, where an exponent below 1 has no gradient.
    rest = (-torch.expm1(log_p)).clamp_min(1e-12)
    return -(targets * rest.pow(gamma) * log_p).sum(dim=1)


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, divisor: float | None = None
) -> Tensor:
    """Return how far the student's probabilities are from the teacher's: T^2 KL(teacher || student), a scalar.

    Args:
        student_logits: `[B, C]`, with gradient.
        teacher_logits: `[B, C]`; no gradient flows into them.
        temperature: T; both logits are divided by it. T^2 keeps the size of the gradients (Hinton et al. 2015).
        divisor: what the sum over pictures is divided by; by default B.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    total = F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
    return total / (len(student_logits) if divisor is None else divisor)
