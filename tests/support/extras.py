"""One loss, metric, value of `moves`, export format and data source more, as a module of a user's own adds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image
from torch import Tensor, nn

from fixres.config.recipe import Data
from fixres.config.registry import MovesEntry
from fixres.config.stage import Stage
from fixres.data.collections import register_source
from fixres.data.sources.uri import Scheme
from fixres.data.splits import Names, Split
from fixres.evaluation.metrics import Floats, Metric, Outcomes, register_metric
from fixres.inference.export.formats.table import register_format
from fixres.inference.export.formats.torch_export import TORCH
from fixres.models.anatomy import head_names
from fixres.models.moves import Selection, register_moves
from fixres.training.losses import register_loss, soft_targets

CLASSES = ("blue", "red")


class Shades:
    """Pictures of one colour in many shades."""

    def read(self, path: str, exif: str, alpha: str) -> Image.Image:
        _, colour, number = path.split("/")
        shade = 250 - 5 * int(number)
        return Image.new("RGB", (40, 40), (shade, 0, 0) if colour == "red" else (0, 0, shade))

    def stamp(self, paths: Names) -> str:
        return ""


def open_shades(data: Data, body: str) -> tuple[str, dict[str, Split], list[str]]:
    labels = np.arange(int(body), dtype=np.int64) % 2
    splits = {}
    for name in ("train", "val", "test"):
        paths = Names(f"{name}/{CLASSES[label]}/{number}" for number, label in enumerate(labels.tolist()))
        splits[name] = Split(name, CLASSES, labels, paths, Shades(), data.exif, data.alpha)
    return f"shades:{body}", splits, []


def squared(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    """The squared distance of probabilities and targets (Brier, 1950)."""
    return (logits.softmax(1) - soft_targets(logits, targets, stage)).square().sum(1)


def median_confidence(outcomes: Outcomes) -> Floats:
    found: Floats = np.median(outcomes.confidences, axis=-1)
    return found


def heads_alone(model: nn.Module, size: int) -> Selection:
    return Selection(head_names(model))


def register() -> None:
    register_source(Scheme("shades", "shades:N", "N pictures of two colours in each split", open_shades))
    register_loss("squared", squared, "the squared distance of probabilities and targets")
    register_metric("median_confidence", Metric("Median confidence", "", 3, True, median_confidence))
    register_moves("heads-alone", heads_alone, MovesEntry("the classifiers", is_trunk_frozen=True))
    register_format(replace(TORCH, name="own", suffix=".own"))
