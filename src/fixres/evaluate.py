"""Accuracy at any list of sizes in one pass over the disk; exact counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres import models
from fixres.data.collections import Split
from fixres.data.loader import OnBadImage, evaluation_batches
from fixres.errors import UserError
from fixres.metrics import Tally
from fixres.resolution import Preprocess
from fixres.runtime import Runtime
from fixres.transforms import normalise


@dataclass(frozen=True)
class Reading:
    """How pictures are read for an evaluation. Recorded, since batch shape decides the last bits of a logit."""

    batch_size: int = 64
    workers: int = 0
    on_bad_image: OnBadImage = "error"


@dataclass
class Evaluation:
    """What one pass found."""

    num_images: int
    results: list[dict[str, Any]]
    """One per size, the fields of `eval --json`."""
    indices: np.ndarray
    """int64 `[N]`: which pictures of the split were read, in order."""
    labels: np.ndarray
    """int64 `[N]`."""
    predictions: np.ndarray
    """int64 `[sizes, N]`."""
    probabilities: np.ndarray
    """float64 `[sizes, N]`: of the predicted class."""
    losses: np.ndarray
    """float64 `[sizes, N]`: cross-entropy of every picture in nats."""
    bad_images: list[str] = field(default_factory=list)

    def correct(self) -> np.ndarray:
        """Return bool `[sizes, N]`."""
        result: np.ndarray = self.predictions == self.labels
        return result


def evaluate(
    model: nn.Module,
    split: Split,
    preprocesses: Sequence[Preprocess],
    runtime: Runtime,
    reading: Reading,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate the bare network on every picture of `split` at every preprocessing.

    Args:
        model: on the runtime's device. Its mode is restored afterwards.
        split: pictures and labels; each picture is read and decoded once for all sizes.
        preprocesses: one per size.
        runtime: device, precision and layout.
        reading: batch size, workers and what an unreadable picture does.
        progress: called with (images done, images in all).

    Raises:
        UserError: a size the network cannot take, an unreadable picture, or logits that are not finite.
    """
    training = {module: module.training for module in model.modules()}
    tallies = [Tally(len(split.classes)) for _ in preprocesses]
    clocks = [Clock() for _ in preprocesses]
    outputs: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in preprocesses]
    seen: list[Tensor] = []
    answers: list[Tensor] = []
    bad: list[str] = []
    shape = min(reading.batch_size, len(split))
    try:
        model.eval()
        networks = [models.at_size(model, p.size) for p in preprocesses]
        batches = evaluation_batches(
            split,
            preprocesses,
            batch_size=reading.batch_size,
            workers=reading.workers,
            on_bad_image=reading.on_bad_image,
            bad=bad,
        )
        for per_size, labels, indices in batches:
            seen.append(indices)
            answers.append(labels)
            for network, p, images, tally, clock, rows in zip(
                networks, preprocesses, per_size, tallies, clocks, outputs, strict=True
            ):
                with clock.batch(len(images)):
                    logits = predict_logits(network, images, p, runtime, shape)
                if not torch.isfinite(logits).all():
                    raise UserError(f"the network's outputs are not finite at {p.size} px; its weights are broken")
                rows.append(tally.add(logits, labels))
            if progress:
                progress(tallies[0].num_images, len(split))
    finally:
        for module, mode in training.items():
            module.training = mode
    results = [
        {**_fields(p), **tally.result(), "gmacs": models.gmacs(network, p.size), "images_per_second": clock.rate()}
        for p, tally, network, clock in zip(preprocesses, tallies, networks, clocks, strict=True)
    ]
    return Evaluation(
        num_images=tallies[0].num_images,
        results=results,
        indices=torch.cat(seen).numpy(),
        labels=torch.cat(answers).numpy(),
        predictions=_gather(outputs, 0),
        probabilities=_gather(outputs, 1),
        losses=_gather(outputs, 2),
        bad_images=bad,
    )


def conditions(split: Split, num_images: int, batch_size: int, runtime: Runtime) -> dict[str, Any]:
    """Return what must be equal for an evaluation to repeat to the last bit."""
    return {
        "split": split.name,
        "num_images": num_images,
        "file_list": split.file_list_hash(),
        "batch_size": batch_size,
        "device": runtime.device.type,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "channels_last": runtime.channels_last,
    }


def _gather(outputs: list[list[tuple[Tensor, Tensor, Tensor]]], place: int) -> np.ndarray:
    """Return `[sizes, N]` of one of the values kept per batch."""
    return np.stack([torch.cat([row[place] for row in rows]).numpy() for rows in outputs])


@torch.inference_mode()
def predict_logits(model: nn.Module, images: Tensor, preprocess: Preprocess, runtime: Runtime, shape: int) -> Tensor:
    """Return float32 logits `[B, C]` of uint8 images `[B, 3, S, S]`.

    Every batch is padded to `shape` images: the last bits of a logit depend on the batch it was computed in, so a
    fixed shape is what makes a result repeat exactly.
    """
    count = len(images)
    if count < shape:
        images = torch.cat([images, images.new_zeros(shape - count, *images.shape[1:])])
    inputs = normalise(runtime.images(images), preprocess.mean, preprocess.std)
    with runtime.autocast():
        logits = model(inputs)
    result: Tensor = logits[:count].float().cpu()
    return result


def _fields(p: Preprocess) -> dict[str, Any]:
    return {
        "size": p.size,
        "resize_size": p.resize_size,
        "crop_ratio": p.crop_ratio,
        "interpolation": p.interpolation,
    }


class Clock:
    """Images per second of the network alone; the first batch, which warms up, is left out."""

    def __init__(self) -> None:
        self.num_batches = 0
        self.num_images = 0
        self.seconds = 0.0
        self._first: tuple[int, float] = (0, 0.0)

    def batch(self, num_images: int) -> _Lap:
        """Return a context manager that times one batch."""
        return _Lap(self, num_images)

    def add(self, num_images: int, seconds: float) -> None:
        """Record one batch."""
        if self.num_batches == 0:
            self._first = (num_images, seconds)
        else:
            self.num_images += num_images
            self.seconds += seconds
        self.num_batches += 1

    def rate(self) -> float:
        """Return images per second, of the first batch when there was no other."""
        images, seconds = (self.num_images, self.seconds) if self.num_batches > 1 else self._first
        return round(images / seconds, 2) if seconds > 0 else 0.0


class _Lap:
    def __init__(self, clock: Clock, num_images: int) -> None:
        self.clock = clock
        self.num_images = num_images

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.add(self.num_images, time.perf_counter() - self.start)
