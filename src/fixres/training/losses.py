"""The losses of a training step: those a recipe can name, and that of a teacher.

Each is a mean over pictures. Weighted by their pictures, micro-batches and processes add up to the loss of the whole
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fixres.config.registry import LOSSES, LossEntry, add
from fixres.config.stage import SETTINGS, Stage
from fixres.errors import UserError

PerImage = Callable[[Tensor, Tensor, Stage], Tensor]
"""A loss: of logits `[B, C]`, targets as `training_loss` takes them and the stage, the loss of each picture `[B]`."""


def training_loss(
    logits: Tensor,
    targets: Tensor,
    stage: Stage,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Return the loss of a batch, a scalar.

    Args:
        logits: `[B, C]`.
        targets: int64 labels `[B]`, or soft targets `[B, C]` (mixup, cutmix) that hold the smoothing already.
        stage: which loss, its settings, and the mass moved from the label to all classes.
        class_weights: one for every class, with mean 1 over the training samples.

    A weight multiplies the whole loss of a picture, smoothed part included; a mixed picture has the weights of its
    labels in their mixing proportion. The sum is divided by the number of pictures, not by the sum of their weights as
    in `torch.nn.CrossEntropyLoss`: there a batch of rare pictures would count no more than one of frequent ones, and
    micro-batches and processes would not add up to the whole batch.

    Raises:
        UserError: a registered loss gives something else than one value for each picture.
    """
    is_soft = targets.ndim == 2
    smoothing = stage.label_smoothing
    if stage.loss == "ce" and class_weights is None:
        # torch's own mean, to the bit.
        return F.cross_entropy(logits, targets, label_smoothing=0.0 if is_soft else smoothing)
    losses = LOSS_FUNCTIONS[stage.loss](logits, targets, stage)
    if losses.shape != logits.shape[:1]:
        raise UserError(
            f"loss {stage.loss} gives {list(losses.shape)}, not one value for each of {len(logits)} pictures"
        )
    if class_weights is not None:
        weights = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
        # The smoothing is taken out again: its mass belongs to no picture of those classes.
        losses = losses * (
            (targets.float() @ weights - smoothing * weights.mean()) / (1 - smoothing) if is_soft else weights[targets]
        )
    return losses.sum() / len(losses)


def soft_targets(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    """Return targets as float32 `[B, C]`: those that are soft as they are, of labels with the stage's smoothing."""
    if targets.ndim == 2:
        return targets.float()
    smoothing, num_classes = stage.label_smoothing, logits.shape[1]
    return F.one_hot(targets, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def cross_entropy(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    """Return the cross-entropy of each picture, `[B]`."""
    smoothing = 0.0 if targets.ndim == 2 else stage.label_smoothing
    return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")


def binary(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    """Return the mean over classes of the binary cross-entropy of each picture, `[B]`."""
    soft = soft_targets(logits, targets, stage)
    if stage.loss_threshold > 0:
        soft = (soft > stage.loss_threshold).float()
    return F.binary_cross_entropy_with_logits(logits.float(), soft, reduction="none").mean(dim=1)


def focal(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    """Return the focal loss of each picture, `[B]`."""
    log_p = F.log_softmax(logits.float(), dim=1)
    # 1 - p without cancellation, and never 0, where an exponent below 1 has no gradient.
    rest = (-torch.expm1(log_p)).clamp_min(1e-12)
    return -(soft_targets(logits, targets, stage) * rest.pow(stage.loss_gamma) * log_p).sum(dim=1)


LOSS_FUNCTIONS: dict[str, PerImage] = {"ce": cross_entropy, "bce": binary, "focal": focal}
"""The code of each entry of `registry.LOSSES`."""


def register_loss(name: str, function: PerImage, summary: str, settings: Sequence[str] = ()) -> None:
    """Make a loss known to recipes and to training; in other processes through FIXRES_PLUGINS.

    Args:
        name: what a recipe calls it.
        function: the loss of each picture.
        summary: what it is, in one line.
        settings: those of loss_gamma and loss_threshold that it reads.

    Raises:
        UserError: the name is taken or none, or a setting is not one of losses.
    """
    known = [key for key, setting in SETTINGS.items() if setting.key.startswith("loss.") and key != "loss"]
    strange = [key for key in settings if key not in known]
    if strange:
        raise UserError(f"loss {name}: '{strange[0]}' is no setting of losses\n  these are: {', '.join(known)}")
    add(LOSSES, name, LossEntry(summary, tuple(settings)))
    LOSS_FUNCTIONS[name] = function


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return how far the student's probabilities are from the teacher's: T^2 KL(teacher || student), a scalar.

    Args:
        student_logits: `[B, C]`, with gradient.
        teacher_logits: `[B, C]`; no gradient flows into them.
        temperature: T; both logits are divided by it. T^2 keeps the size of the gradients (Hinton et al. 2015).
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    total = F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
    return total / len(student_logits)
