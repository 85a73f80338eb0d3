"""Accuracy at any list of sizes in one pass over the disk; exact counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.data.collections import Split
from fixres.data.loader import OnBadImage, evaluation_batches
from fixres.data.test_time_augmentation import View, num_crops
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.metrics import Tally, label_ranks
from fixres.models.backends import Backend, BackendName, make_backend, require_agreement
from fixres.models.sizes import at_size, gmacs
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

_COMPARED = 16
"""Pictures on which a backend has to agree with PyTorch."""


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
    ranks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    """int64 `[sizes, N]`: classes that come before the label."""
    logits: np.ndarray | None = None
    """float32 `[sizes, N, C]` where they were asked for."""

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
    *,
    backend: BackendName = "torch",
    temperatures: Sequence[float] | None = None,
    keep_logits: bool = False,
) -> Evaluation:
    """Evaluate the bare network on every picture of `split` at every preprocessing.

    Several processes share the batches; each of them gets the whole result, equal to that of one.

    Args:
        model: on the runtime's device. Its mode is restored afterwards.
        split: pictures and labels; each picture is read and decoded once for all sizes.
        preprocesses: one per size.
        runtime: device, precision and layout.
        reading: batch size, workers and what an unreadable picture does.
        progress: called with (images done, images in all).
        backend: who computes; anything but `torch` is compared with it on the first pictures.
        temperatures: one per preprocessing; `loss_calibrated` and `ece_calibrated` are those of logits / temperature.
        keep_logits: return the logits of all pictures.

    Raises:
        UserError: a size the network cannot take, an unreadable picture, or logits that are not finite.
        Stopped: a signal came; what was measured is dropped.
    """
    runtime.keep_memory()
    training = {module: module.training for module in model.modules()}
    tallies, calibrated = ([Tally(len(split.classes)) for _ in preprocesses] for _ in range(2))
    part = _Part(tallies, [Clock() for _ in preprocesses], calibrated if temperatures else [])
    try:
        model.eval()
        networks = _at_sizes(model, preprocesses)
        shape = min(reading.batch_size, len(split))
        forwards = [Forward(n, p, runtime, shape, backend) for n, p in zip(networks, preprocesses, strict=True)]
        settings = _Settings(temperatures, keep_logits, progress)
        _measure_part(part, forwards, split, runtime, reading, settings)
    except UserError as error:
        part.error = error
    finally:
        for module, mode in training.items():
            module.training = mode
    parts = runtime.processes.gather(part)
    for found in parts:
        if found.error is not None:
            raise found.error
    if any(found.is_stopped for found in parts):
        raise Stopped
    return _together(parts, networks, preprocesses, temperatures)


def _at_sizes(model: nn.Module, preprocesses: Sequence[Preprocess]) -> list[nn.Module]:
    """Return the network at every size, one for each size however often it occurs."""
    found: dict[int, nn.Module] = {}
    for p in preprocesses:
        if p.size not in found:
            found[p.size] = at_size(model, p.size)
    return [found[p.size] for p in preprocesses]


@dataclass(frozen=True)
class _Settings:
    temperatures: Sequence[float] | None
    keep_logits: bool
    progress: Callable[[int, int], None] | None


@dataclass
class _Part:
    """What one process found: of its own batches, in the order of the split."""

    tallies: list[Tally]
    clocks: list[Clock]
    calibrated: list[Tally]
    """Of the logits divided by the temperatures; empty without them."""
    indices: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    outputs: list[list[tuple[Tensor, ...]]] = field(default_factory=list)
    """Per batch and size: predictions, probabilities, losses, ranks and, where asked for, logits."""
    bad: list[str] = field(default_factory=list)
    error: UserError | None = None
    is_stopped: bool = False


def _measure_part(
    part: _Part,
    forwards: Sequence[Forward],
    split: Split,
    runtime: Runtime,
    reading: Reading,
    settings: _Settings,
) -> None:
    """Evaluate this process's batches and put what comes out into `part`."""
    shard = runtime.processes.shard
    preprocesses = [forward.preprocess for forward in forwards]
    batches = evaluation_batches(
        split,
        preprocesses,
        batch_size=reading.batch_size,
        workers=reading.workers,
        on_bad_image=reading.on_bad_image,
        bad=part.bad,
        shard=shard,
    )
    for crops, labels, indices in batches:
        rows: list[tuple[Tensor, ...]] = []
        first = 0
        for row, (forward, p) in enumerate(zip(forwards, preprocesses, strict=True)):
            views = crops[first : first + num_crops(p)]
            first += len(views)
            with part.clocks[row].batch(len(labels)):
                logits = forward(views)
            if not torch.isfinite(logits).all():
                raise UserError(f"the network's outputs are not finite at {p.size} px; its weights are broken")
            outputs = (*part.tallies[row].add(logits, labels), label_ranks(logits.double(), labels))
            if settings.temperatures is not None:
                part.calibrated[row].add(logits.double() / settings.temperatures[row], labels)
            rows.append((*outputs, logits) if settings.keep_logits else outputs)
        part.indices.append(indices)
        part.labels.append(labels)
        part.outputs.append(rows)
        if settings.progress:
            settings.progress(min(len(split), part.tallies[0].num_images * shard.world), len(split))
        if runtime.stop.received:
            break
    # Here, not in the loop: a small split has no batch for some processes.
    part.is_stopped = bool(runtime.stop.received)


class Forward:
    """A network at one size that turns the views of pictures into logits, through PyTorch or another backend."""

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, runtime: Runtime, shape: int, backend: BackendName = "torch"
    ) -> None:
        self.model, self.preprocess, self.runtime, self.shape = model, preprocess, runtime, shape
        self.name = backend
        self._backend: Backend | None = None

    def __call__(self, views: Sequence[Tensor]) -> Tensor:
        """Return float32 logits `[B, C]` of one or more crops uint8 `[B, 3, S, S]` of the same pictures.

        Of several crops, and of their mirror images where the preprocessing asks for them, it is the logarithm of the
        mean probability.
        """
        if isinstance(self.preprocess, View) and self.preprocess.is_mirrored():
            views = [seen for view in views for seen in (view, view.flip(3))]
        found = [self._logits(view) for view in views]
        if len(found) == 1:
            return found[0]
        together = torch.stack([logits.double().log_softmax(1) for logits in found])
        return (together.logsumexp(0) - math.log(len(found))).float()

    def _logits(self, images: Tensor) -> Tensor:
        if self.name == "torch":
            return predict_logits(self.model, images, self.preprocess, self.runtime, self.shape)
        if self._backend is None:
            size, threads = self.preprocess.size, self.runtime.threads
            self._backend = make_backend(self.name, self.model, size, threads)
            require_agreement(self._backend, self.model, self._inputs(images[:_COMPARED]))
        return self._backend.logits(_padded(self._inputs(images), self.shape))[: len(images)]

    def _inputs(self, images: Tensor) -> Tensor:
        return normalise(images, self.preprocess.mean, self.preprocess.std)


def _together(
    parts: Sequence[_Part],
    networks: Sequence[nn.Module],
    preprocesses: Sequence[Preprocess],
    temperatures: Sequence[float] | None,
) -> Evaluation:
    """Put the processes' parts together, in the order of the split."""
    batches = sorted(
        (
            (int(indices[0]), indices, labels, outputs)
            for part in parts
            for indices, labels, outputs in zip(part.indices, part.labels, part.outputs, strict=True)
        ),
        key=lambda batch: batch[0],
    )
    if not batches:
        raise UserError("not one picture of the split could be read")
    tallies = [reduce(add, (part.tallies[row] for part in parts)) for row in range(len(preprocesses))]
    calibrated: list[dict[str, float]] = [{} for _ in preprocesses]
    for row, temperature in enumerate(temperatures or ()):
        found = reduce(add, (part.calibrated[row] for part in parts)).result()
        calibrated[row] = {"temperature": temperature, "loss_calibrated": found["loss"], "ece_calibrated": found["ece"]}
    rates = [sum(part.clocks[row].rate() for part in parts) for row in range(len(preprocesses))]

    has_logits = len(batches[0][3][0]) > 4

    def values(kind: int) -> np.ndarray:
        rows = [torch.cat([outputs[row][kind] for *_, outputs in batches]) for row in range(len(preprocesses))]
        return np.stack([row.numpy() for row in rows])

    return Evaluation(
        num_images=tallies[0].num_images,
        results=[
            {
                **_fields(p),
                **tally.result(),
                **after,
                "gmacs": gmacs(network, p.size) * num_passes(p),
                "images_per_second": round(rate, 2),
            }
            for p, tally, after, network, rate in zip(preprocesses, tallies, calibrated, networks, rates, strict=True)
        ],
        indices=torch.cat([batch[1] for batch in batches]).numpy(),
        labels=torch.cat([batch[2] for batch in batches]).numpy(),
        predictions=values(0),
        probabilities=values(1),
        losses=values(2),
        bad_images=sorted({name for part in parts for name in part.bad}) if len(parts) > 1 else parts[0].bad,
        ranks=values(3),
        logits=values(4) if has_logits else None,
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


@torch.inference_mode()
def predict_logits(model: nn.Module, images: Tensor, preprocess: Preprocess, runtime: Runtime, shape: int) -> Tensor:
    """Return float32 logits `[B, C]` of uint8 images `[B, 3, S, S]`.

    Every batch is padded to `shape` images: the last bits of a logit depend on the batch it was computed in, so a
    fixed shape is what makes a result repeat exactly.
    """
    count = len(images)
    images = _padded(images, shape)
    inputs = normalise(runtime.images(images), preprocess.mean, preprocess.std)
    with runtime.autocast():
        logits = model(inputs)
    result: Tensor = logits[:count].float().cpu()
    return result


def _padded(images: Tensor, shape: int) -> Tensor:
    missing = shape - len(images)
    return images if missing <= 0 else torch.cat([images, images.new_zeros(missing, *images.shape[1:])])


def num_passes(p: Preprocess) -> int:
    """Return how often the network computes for one picture."""
    return num_crops(p) * (1 + (isinstance(p, View) and p.is_mirrored()))


def _fields(p: Preprocess) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "size": p.size,
        "resize_size": p.resize_size,
        "crop_ratio": p.crop_ratio,
        "interpolation": p.interpolation,
    }
    if isinstance(p, View):
        seen |= {"tta": p.tta, "corruption": None if p.corruption is None else str(p.corruption)}
    return seen


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
