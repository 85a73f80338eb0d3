"""Learning rate and averaging decay as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math


def learning_rate(
    step: int, *, peak: float, total_steps: int, warmup_steps: int, shape: str = "cosine", min_lr: float = 0.0
) -> float:
    """Return the learning rate of `step` (0-based): a linear warm-up to `peak`, then a cosine to `min_lr` or `peak`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if shape == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return min_lr + 0.5 * (peak - min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


def ema_decay(step: int, *, decay: float, rule: str, ramp_steps: int = 2000) -> float:
    """Return the fraction of the average kept at update `step` (1-based).

    constant: `decay`. ramp: decay (1 - exp(-step / ramp_steps)), as SimpleClassification. timm: timm's warm-up,
    1 - (1 + step) ** (-2/3), at most `decay`.
    """
    if rule == "constant":
        return decay
    if rule == "ramp":
        return decay * (1 - math.exp(-step / ramp_steps))
    return min(decay, 1 - 1 / math.pow(1 + step, 2 / 3))
