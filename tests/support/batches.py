"""Stages and splits to read batches of, and whether two readings are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.loader import Batch, train_batches
from fixres.data.splits import Split
from fixres.resolution import Preprocess
from tests.support.reading import drawn

_ALL = open_collection(Data(uri="synthetic:classes=3,images=24,size=24")).split("train")


def unequal() -> Split:
    """Return 8 pictures of the first class, 3 of the second, 1 of the third."""
    chosen = [np.flatnonzero(_ALL.labels == label)[:num] for label, num in enumerate((8, 3, 1))]
    return _ALL.take("train", np.sort(np.concatenate(chosen)))


def random_crops(**values: Any) -> Stage:
    """Return a stage that trains on random crops, with the given fields; what else it says plays no part in reading."""
    defaults: dict[str, Any] = {
        "enabled": True, "moves": "all", "crop": "random", "crop_scale": (0.2, 1.0), "lr": 0.1, "schedule": "cosine",
        "warmup_epochs": 0, "weight_decay": 0, "label_smoothing": 0, "mixup": 0, "cutmix": 0, "ema": False,
        "solver": "sgd", "start_from": "raw",
    }  # fmt: skip
    return Stage(**(defaults | values))


def training_batches(split: Split, stage: Stage, **options: Any) -> list[Batch]:
    """Return all batches of a stage, by default read in this process from the first step on."""
    return list(train_batches(split, stage, Preprocess(stage.size), **drawn(**options)))


def same(first: list[Batch], second: list[Batch]) -> bool:
    """Return whether two lists of batches are bit-equal."""
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(first, second, strict=True)
    )
