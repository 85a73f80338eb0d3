"""The keys of a recipe for what `train PHOTOS` chose: what is the same for all collections stands here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fixres.experiments.speeds import fix_size
from fixres.experiments.time_plan import Planned
from fixres.training.probe_cells import Cell

SCRATCH = "resnet18"
"""What is trained where there are no weights to start from."""
_FROM_ANY: Mapping[str, Any] = {
    "optim.name": "adamw",
    "optim.weight_decay": 0.05,
    "augment.crop_scale": [0.35, 1.0],
    "augment.label_smoothing": 0.1,
    "fix.enabled": True,
    "fix.views": 1,
    "fix.label_smoothing": 0.0,
}
_FROM_WEIGHTS: Mapping[str, Any] = {
    "train.head": "solved",
    "train.views": 1,
    "train.norm_statistics": "frozen",
    "evaluation.keep": "last",
    "evaluation.ship": "best",
}
_LR, _LR_OF_LAST_PART, _LR_FROM_SCRATCH = 1e-4, 3e-4, 1e-3
"""Rates at which a network that starts from a solved head keeps what it knows, as a whole and in its last part; and
that for random weights."""


def trained(cell: Cell, planned: Planned, first_part: Sequence[str]) -> dict[str, Any]:
    """Return what trains at a size, fixes at a larger one, and ships the best of these and the probe.

    Args:
        cell: network and size that the probe chose.
        planned: the training there is time for.
        first_part: of the network: what stays as it is where only the last part is trained.
    """
    at = fix_size(planned.size, cell.network.name)
    return {
        **_of_network(cell),
        **_FROM_ANY,
        **_FROM_WEIGHTS,
        "optim.lr": _LR if planned.is_whole else _LR_OF_LAST_PART,
        "train.freeze": [] if planned.is_whole else list(first_part),
        "train.size": planned.size,
        "train.epochs": planned.epochs,
        "fix.size": at,
        "evaluation.sizes": [planned.size, at],
        "evaluation.control": planned.has_control,
        "evaluation.probe_sizes": [cell.size],
    }


def head_alone(cell: Cell) -> dict[str, Any]:
    """Return what solves a head on frozen features, where there is no time to train."""
    return {
        **_of_network(cell),
        "train.enabled": False,
        "train.size": cell.size,
        "fix.enabled": True,
        "fix.size": cell.size,
        "fix.moves": "head",
        "fix.views": 1,
        "evaluation.sizes": [cell.size],
    }


def from_scratch(planned: Planned) -> dict[str, Any]:
    """Return what trains a network from random weights, for want of any others."""
    return {
        **_FROM_ANY,
        "model.name": SCRATCH,
        "optim.lr": _LR_FROM_SCRATCH,
        "train.size": planned.size,
        "train.epochs": planned.epochs,
        "train.warmup_epochs": 0.5,
        "fix.size": fix_size(planned.size, SCRATCH),
        "evaluation.control": planned.has_control,
    }


def _of_network(cell: Cell) -> dict[str, Any]:
    """Return the keys that say which network a cell is, and how it is fed."""
    crop = {"evaluation.crop_ratio": cell.preprocess.crop_ratio} if cell.preprocess.is_cropped else {}
    return {"model.name": cell.network.name, "model.weights": cell.network.weights, **crop}
