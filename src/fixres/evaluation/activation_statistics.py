"""What the head is given, against size: how many pooled activations are zero and how far they spread.

At a size the network was not trained at, average pooling runs over a map of another size: fewer places, and more
activations are zero and more are large; more places, and they crowd together (FixRes, section on activation
statistics). That is what a fix makes up for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.config.recipe import Stage
from fixres.data.decode import BadImage
from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.evaluate import Reading, predict_logits
from fixres.io.files import write_text
from fixres.models.anatomy import head_names
from fixres.models.sizes import at_size, evaluation_mode
from fixres.resolution import Preprocess, seen_share, simulated_crop_sides
from fixres.runtime.device import Runtime

FILE = "activations.json"
"""In the run folder."""
NUM_PICTURES = 128
"""Pictures that are looked at; thousands of activations each."""
RARE = 0.99
"""Activations above this quantile at the train size count as large."""


def write_activations(
    folder: Path,
    before: nn.Module,
    fixed: nn.Module,
    split: Split,
    preprocesses: Sequence[Preprocess],
    stage: Stage,
    means: tuple[Runtime, Reading],
) -> None:
    """Measure both networks on a few pictures of `split` at every size and write RUN/activations.json.

    Args:
        folder: the run folder.
        before: the network as it was trained.
        fixed: the same after the fix.
        split: the selecting split; every `len / 128`-th picture of it is used.
        preprocesses: one per size; the first is that of the training.
        stage: how training pictures were cropped.
        means: device, and how pictures are read.
    """
    try:
        heads = head_names(before)
    except UserError:
        return
    places = np.unique(np.linspace(0, len(split) - 1, min(NUM_PICTURES, len(split))).astype(int))
    few = split.take(split.name, places)
    pooled = _pooled(before, heads[0], few, preprocesses, means)
    large = float(np.quantile(pooled[0], RARE))
    after = _pooled(fixed, heads[0], few, preprocesses, means)
    content = {
        "split": split.name,
        "num_images": len(few),
        "head": heads[0],
        "large": large,
        "seen": _seen(few, preprocesses[0], stage, means[1]),
        "before": _rows(pooled, preprocesses, large),
        "fixed": _rows(after, preprocesses, large),
    }
    write_text(folder / FILE, json.dumps(content, indent=2) + "\n")


def _rows(pooled: Sequence[np.ndarray], preprocesses: Sequence[Preprocess], large: float) -> list[dict[str, Any]]:
    return [
        {
            "size": p.size,
            "zeros": 100 * float((values == 0).mean()),
            "large": 100 * float((values > large).mean()),
            "spread": float(values.std()),
        }
        for p, values in zip(preprocesses, pooled, strict=True)
    ]


def _pooled(
    model: nn.Module, head: str, split: Split, preprocesses: Sequence[Preprocess], means: tuple[Runtime, Reading]
) -> list[np.ndarray]:
    """Return what the head is given at every size, float32 `[N, D]`."""
    runtime, reading = means
    networks = [runtime.place(at_size(model, p.size)) for p in preprocesses]
    shape = min(reading.batch_size, len(split))
    found: list[list[Tensor]] = [[] for _ in preprocesses]
    batches = evaluation_batches(split, preprocesses, shape, ReadPolicy(on_bad_image=reading.on_bad_image))
    with closing(batches):
        for per_size, _, _ in batches:
            for network, p, images, rows in zip(networks, preprocesses, per_size, found, strict=True):
                with evaluation_mode(network):
                    rows.append(_before_head(network, head, images, p, runtime, shape))
    return [torch.cat(rows).numpy() for rows in found]


def _before_head(network: nn.Module, head: str, images: Tensor, p: Preprocess, runtime: Runtime, shape: int) -> Tensor:
    seen: list[Tensor] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().flatten(1).float().cpu())

    hook = network.get_submodule(head).register_forward_pre_hook(remember)
    try:
        predict_logits(network, images, p, runtime, shape)
    finally:
        hook.remove()
    return seen[0][: len(images)]


def _seen(split: Split, preprocess: Preprocess, stage: Stage, reading: Reading) -> dict[str, float]:
    """Return the mean share in percent of a picture's area that the network sees, in training and in testing."""
    aspects = []
    for place in range(len(split)):
        try:
            picture = split.read(place)
        except BadImage:
            if reading.on_bad_image == "error":
                raise
            continue
        aspects.append(picture.width / picture.height)
    test = float(np.mean([seen_share(preprocess, aspect) for aspect in aspects]))
    train = test
    if stage.crop == "random":
        rounded = np.unique(np.round(aspects, 2))
        drawn = {a: simulated_crop_sides(float(a), stage.crop_scale, stage.crop_aspect) for a in rounded}
        shares = {a: float(np.square(sides).mean()) for a, sides in drawn.items()}
        train = float(np.mean([shares[np.round(a, 2)] for a in aspects]))
    elif stage.crop == "pad":
        train = float(np.mean([min(a, 1 / a) for a in aspects]))
    return {"train": 100 * train, "test": 100 * test}
