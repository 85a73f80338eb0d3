"""Accuracy at any list of sizes in one pass over the disk; exact counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixres.config.choices import BackendName, OnBadImage
from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.data.splits import Split
from fixres.data.test_time_augmentation import View, num_crops
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.logit_outcomes import ImageOutcomes, image_outcomes
from fixres.evaluation.metrics import Outcomes, figures, result_fields
from fixres.evaluation.speed import Stopwatch, images_per_second, speed_remarks
from fixres.io.progress import Progress
from fixres.models.backends import Backend, make_backend, require_agreement
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

    @property
    def policy(self) -> ReadPolicy:
        """The same for the loader."""
        return ReadPolicy(self.workers, self.on_bad_image)


@dataclass(frozen=True)
class Evaluation:
    """What one pass found, a result and outcomes for every view."""

    results: list[dict[str, Any]]
    """The fields of `eval --json`."""
    outcomes: tuple[Outcomes, ...]
    """What was said of every image, in the order of `indices`."""
    indices: np.ndarray
    """int64 `[N]`: which images of the split were read, in order."""
    bad_images: list[str] = field(default_factory=list)
    """Paths of the images that could not be read and were left out."""
    logits: np.ndarray | None = None
    """float32 `[views, N, C]` where they were asked for."""
    speed_remarks: tuple[str, ...] = ()
    """Why the speeds are not to be trusted, if so."""

    @property
    def num_images(self) -> int:
        """Images that were read, N."""
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """int64 `[N]`."""
        return self.outcomes[0].labels

    @property
    def predictions(self) -> np.ndarray:
        """int64 `[views, N]`."""
        return np.stack([one.predictions for one in self.outcomes])

    @property
    def probabilities(self) -> np.ndarray:
        """float64 `[views, N]`: of the predicted class."""
        return np.stack([one.confidences for one in self.outcomes])

    @property
    def losses(self) -> np.ndarray:
        """float64 `[views, N]`: cross-entropy of every image in nats."""
        return np.stack([one.losses for one in self.outcomes])

    def correct(self) -> np.ndarray:
        """Return bool `[views, N]`."""
        return np.stack([one.hits for one in self.outcomes])


@dataclass(frozen=True)
class NetworkView:
    """A bare network at one size, and how images reach it."""

    network: nn.Module
    preprocess: Preprocess
    backend: BackendName = "torch"
    """Who computes; anything but `torch` is compared with it on the first images."""
    temperature: float | None = None
    """Logits are divided by it for `loss_calibrated` and `ece_calibrated`."""


def network_views(model: nn.Module, preprocesses: Sequence[Preprocess]) -> list[NetworkView]:
    """Return one network with every preprocessing, made for each size once.

    Raises:
        UserError: a size the network cannot take.
    """
    networks = {size: at_size(model, size) for size in dict.fromkeys(p.size for p in preprocesses)}
    return [NetworkView(networks[p.size], p) for p in preprocesses]


def evaluate(
    views: Sequence[NetworkView],
    split: Split,
    runtime: Runtime,
    reading: Reading,
    progress: Progress | None = None,
    *,
    keep_logits: bool = False,
) -> Evaluation:
    """Evaluate networks on every image of `split`, which is read and decoded once for all of them.

    Several processes share the batches; each of them gets the whole result, equal to that of one.

    Args:
        views: networks on the runtime's device, each with its preprocessing. Their modes are restored afterwards.
        split: images and labels.
        runtime: device, precision and layout.
        reading: batch size, workers and what an unreadable image does.
        progress: called with (images done, images in all).
        keep_logits: return the logits of all images.

    Raises:
        UserError: an unreadable image, logits that are not finite, or a backend that does not agree.
        Stopped: a signal came; what was measured is dropped.
    """
    runtime.keep_memory()
    training = {module: module.training for view in views for module in view.network.modules()}
    part = _Part(Stopwatch(len(views)))
    shape = min(reading.batch_size, len(split))
    try:
        forwards = [Forward(v.network.eval(), v.preprocess, runtime, shape, v.backend) for v in views]
        _measure_part(part, views, forwards, split, reading, progress, keep_logits=keep_logits)
    except Stopped:
        part.is_stopped = True
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
    return _together(parts, views, len(split.classes), shape)


@dataclass
class _Part:
    """What one process found: of its own batches, in the order of the split."""

    watch: Stopwatch
    batches: list[tuple[Tensor, Tensor, list[_Output]]] = field(default_factory=list)
    """Indices, labels, and an output per view."""
    bad: list[str] = field(default_factory=list)
    error: UserError | None = None
    is_stopped: bool = False


@dataclass(frozen=True)
class _Output:
    """One batch through one network."""

    outcomes: ImageOutcomes
    calibrated: ImageOutcomes | None
    """Of the logits divided by the temperature."""
    logits: Tensor | None


def _measure_part(
    part: _Part,
    views: Sequence[NetworkView],
    forwards: Sequence[Forward],
    split: Split,
    reading: Reading,
    progress: Progress | None,
    *,
    keep_logits: bool,
) -> None:
    """Evaluate this process's batches and put what comes out into `part`."""
    runtime = forwards[0].runtime
    shard = runtime.processes.shard
    preprocesses = [view.preprocess for view in views]
    batches = evaluation_batches(split, preprocesses, reading.batch_size, reading.policy, part.bad, shard)
    done = 0
    for crops, labels, indices in batches:
        row: list[_Output] = []
        first = 0
        for place, (view, forward) in enumerate(zip(views, forwards, strict=True)):
            own = crops[first : first + num_crops(view.preprocess)]
            first += len(own)
            with part.watch.lap(place):
                logits = forward(own)
            cooled = None if view.temperature is None else image_outcomes(logits.double() / view.temperature, labels)
            row.append(_Output(image_outcomes(logits, labels), cooled, logits if keep_logits else None))
        part.batches.append((indices, labels, row))
        done += len(labels)
        if progress:
            progress(min(len(split), done * shard.world), len(split))
        if runtime.stop.received:
            break
    part.watch.stop()
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

        Raises:
            UserError: they are not finite.
        """
        if isinstance(self.preprocess, View) and self.preprocess.is_mirrored():
            views = [seen for view in views for seen in (view, view.flip(3))]
        found = [self._logits(view) for view in views]
        if not all(torch.isfinite(logits).all() for logits in found):
            raise UserError(
                f"the network's outputs are not finite at {self.preprocess.size} px; its weights are broken"
            )
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


def _together(parts: Sequence[_Part], views: Sequence[NetworkView], num_classes: int, shape: int) -> Evaluation:
    """Put the processes' parts together, in the order of the split."""
    batches = sorted((batch for part in parts for batch in part.batches), key=lambda batch: int(batch[0][0]))
    if not batches:
        raise UserError("not one picture of the split could be read")
    labels = torch.cat([batch[1] for batch in batches]).numpy()
    outcomes, results, logits = [], [], []
    watches = [part.watch for part in parts]
    for place, view in enumerate(views):
        outputs = [batch[2][place] for batch in batches]
        own = _joined([output.outcomes for output in outputs], labels, num_classes)
        near_ties = sum(int(output.outcomes.near_ties.sum()) for output in outputs)
        fields = {**_fields(view.preprocess), **result_fields(own, near_ties)}
        if view.temperature is not None:
            cooled = figures(_joined([o.calibrated for o in outputs if o.calibrated is not None], labels, num_classes))
            fields |= {"temperature": view.temperature}
            fields |= {"loss_calibrated": cooled["loss"], "ece_calibrated": cooled["ece"]}
        work = gmacs(view.network, view.preprocess.size) * num_passes(view.preprocess)
        outcomes.append(own)
        results.append({**fields, "gmacs": work, "images_per_second": images_per_second(watches, place, shape)})
        kept = [output.logits for output in outputs if output.logits is not None]
        if kept:
            logits.append(torch.cat(kept).numpy())
    return Evaluation(
        results=results,
        outcomes=tuple(outcomes),
        indices=torch.cat([batch[0] for batch in batches]).numpy(),
        bad_images=sorted({name for part in parts for name in part.bad}) if len(parts) > 1 else parts[0].bad,
        logits=np.stack(logits) if logits else None,
        speed_remarks=speed_remarks(watches, [view.preprocess.size for view in views]),
    )


def _joined(batches: Sequence[ImageOutcomes], labels: np.ndarray, num_classes: int) -> Outcomes:
    predictions, confidences, losses, ranks, _ = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return Outcomes(labels, predictions, ranks, confidences, losses, num_classes)


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
