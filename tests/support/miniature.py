"""Shipped recipes in miniature: their own optimizer, schedule, sampler and augmentation, an eighth of their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fixres.config.defaults import named_stages
from fixres.config.loading import load
from fixres.config.recipe import Recipe
from fixres.models.build import build_model
from fixres.models.names import bare

SMALLEST = {
    "resnext101_32x48d": "resnext50_32x4d",
    "tf_efficientnet_l2": "tf_efficientnet_b0",
    "legacy_senet154": "legacy_seresnet18",
}
"""What takes the place of networks of more than 100 M parameters: the smallest of their family."""
_LEAST = {"pnasnet5large_fixres": 96, "inception_resnet_v2": 96, "resnet18_cifar": 32}
"""Sizes in pixels below which a network has no pixels left."""
STEPS = 2


def architecture_of(recipe: Recipe) -> str:
    network = bare(recipe.model.name)
    return SMALLEST.get(network, network)


def miniature(name: str, batch_size: int) -> dict[str, Any]:
    """Return overrides that leave two steps a stage of the recipe; lengths are shortened in proportion."""
    recipe = load(name)
    architecture = architecture_of(recipe)
    least = _LEAST.get(architecture, 32)

    def eighth(size: int) -> int:
        return max(least, round(size / 8 / 16) * 16)

    changes: dict[str, Any] = {
        "data.workers": 0,
        "model.name": architecture,
        "runtime.device": "cpu",
        "runtime.precision": "fp32",
        "runtime.threads": 1,
        "output.tracker": "none",
        "evaluation.batch_size": 8,
    }
    if recipe.evaluation.sizes:
        changes["evaluation.sizes"] = (least,)
    for key, stage in named_stages(recipe):
        if not stage.enabled:
            if key == "train":
                changes["train.size"] = eighth(int(stage.size))
            continue
        epochs, samples = (2, batch_size) if stage.sizes else (1, STEPS * batch_size)
        short = epochs / stage.epochs
        changes |= {
            f"{key}.size": eighth(int(stage.size)),
            f"{key}.epochs": epochs,
            f"{key}.epoch_samples": samples,
            f"{key}.batch_size": batch_size,
        }
        if stage.lr_rule == "none":
            # Published rates belong to large batches; eight pictures of noise would blow up at them.
            share = batch_size / stage.batch_size
            changes |= {f"{key}.lr": stage.lr * share, f"{key}.min_lr": stage.min_lr * share}
        if stage.warmup_epochs:
            changes[f"{key}.warmup_epochs"] = stage.warmup_epochs * short
        if stage.schedule == "step":
            changes[f"{key}.decay_epochs"] = stage.decay_epochs * short
        if stage.schedule == "points":
            changes[f"{key}.lr_points"] = tuple((epoch * short, factor) for epoch, factor in stage.lr_points)
        if stage.sizes:
            # In one epoch nothing grows: two of them, of one step each.
            grown = {"sizes": (32, 48), "size_epochs": (0.0, 1.0), "size_multiple": 16}
            changes |= {f"{key}.{name}": value for name, value in grown.items()}
    return changes


def save_weights(name: str, num_classes: int, path: Path) -> None:
    """Save random weights of the recipe's network as a bare state dict."""
    torch.manual_seed(0)
    torch.save(build_model(architecture_of(load(name)), num_classes).state_dict(), path)


def as_words(changes: dict[str, Any]) -> list[str]:
    """Return overrides as words of a command line."""
    words = []
    for key, value in changes.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{key}", *(",".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values)]
    return words
