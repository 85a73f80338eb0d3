"""Batches of uint8 pictures, the same for any number of worker processes.

The item a worker makes is a whole batch: which pictures and which augmentation follow from the step alone, so starting
at any step needs no replay. Unreadable pictures travel back as values; no traceback of a worker reaches the user.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fixres.config import Stage
from fixres.data.decode import BadImage
from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.sampling import epoch_order, sample_seed
from fixres.transforms import evaluation_crop, train_crop

OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 `[B, 3, S, S]` (channels last in memory), labels int64 `[B]`, places in the split int64 `[B]`."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class _Made(NamedTuple):
    """What a worker sends back: one tensor of pictures per preprocessing, and the pictures that could not be read."""

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor
    bad: list[BadImage]


def resolve_workers(workers: int | Literal["auto"]) -> int:
    """Return the number of loader processes; auto: one per core this process may use, at most 8."""
    if workers != "auto":
        return workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)


def steps_per_epoch(split: Split, stage: Stage, stage_index: int = 0) -> int:
    """Return the number of full batches in an epoch.

    Raises:
        UserError: the batch is larger than the split.
    """
    if stage.batch_size > len(split):
        section = "train" if stage_index == 0 else "fix"
        raise UserError(
            f"{section}.batch_size {stage.batch_size} is larger than the split '{split.name}' ({len(split)} pictures)\n"
            f"  --{section}.batch_size {len(split)} is the largest that works"
        )
    return len(split) // stage.batch_size


def train_batches(
    split: Split,
    stage: Stage,
    preprocess: Preprocess,
    *,
    seed: int,
    stage_index: int,
    workers: int,
    bad: list[str],
    first_step: int = 0,
    on_bad_image: OnBadImage = "error",
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of a whole stage, all epochs, from step `first_step` on; the last part of an epoch is dropped.

    With `on_bad_image="skip"` a picture that cannot be read is left out of its batch and its path is appended to
    `bad` once.

    Raises:
        UserError: the batch is larger than the split; from the iterator, a picture cannot be read, or none of a batch.
    """
    steps = steps_per_epoch(split, stage, stage_index)
    dataset = _TrainingSteps(split, stage, preprocess, (seed, stage_index), steps)
    made = _run(dataset, range(first_step, steps * stage.epochs), workers, pin_memory)
    return _train_batches(made, on_bad_image, bad)


def _train_batches(made: Generator[_Made], on_bad_image: OnBadImage, bad: list[str]) -> Iterator[Batch]:
    # Closed at once: workers that wait for the garbage collector, behind a traceback, take seconds to end.
    with closing(made):
        for item in made:
            _report_bad(item, on_bad_image, bad)
            if not len(item.indices):
                raise UserError(
                    f"none of the {len(item.bad)} pictures of a batch can be read, the first is {item.bad[0]}\n"
                    "  remove them, or raise the batch size"
                )
            yield Batch(item.views[0], item.labels, item.indices)


def evaluation_batches(
    split: Split,
    preprocesses: Sequence[Preprocess],
    *,
    batch_size: int,
    workers: int,
    bad: list[str],
    on_bad_image: OnBadImage = "error",
    pin_memory: bool = False,
) -> Iterator[tuple[tuple[Tensor, ...], Tensor, Tensor]]:
    """Yield (pictures per preprocessing uint8 `[B, 3, S, S]`, labels, indices) in the order of the split, unpadded.

    Every picture is read and decoded once, whatever the number of sizes.

    Raises:
        UserError: a picture cannot be read, unless `on_bad_image` is skip.
    """
    dataset = _EvaluationSteps(split, tuple(preprocesses), batch_size)
    with closing(_run(dataset, range(-(-len(split) // batch_size)), workers, pin_memory)) as made:
        for item in made:
            _report_bad(item, on_bad_image, bad)
            if len(item.indices):
                yield item.views, item.labels, item.indices


class _TrainingSteps(Dataset[_Made]):
    """Item `step` is the batch of that step of the stage."""

    def __init__(
        self, split: Split, stage: Stage, preprocess: Preprocess, coordinates: tuple[int, int], steps: int
    ) -> None:
        self.split, self.stage, self.preprocess = split, stage, preprocess
        self.coordinates, self.steps = coordinates, steps

    def __getitem__(self, step: int) -> _Made:
        epoch, place = divmod(step, self.steps)
        batch_size = self.stage.batch_size
        order = _cached_order(len(self.split), *self.coordinates, epoch)
        indices = order[place * batch_size : (place + 1) * batch_size]
        generator = torch.default_generator
        state = generator.get_state()

        def view(picture: Image.Image, index: int) -> tuple[Tensor]:
            generator.manual_seed(sample_seed(*self.coordinates, epoch, index, 0))
            return (train_crop(picture, self.stage, self.preprocess),)

        try:
            return _make(self.split, indices, self.preprocess, (self.preprocess.size,), view)
        finally:
            generator.set_state(state)


class _EvaluationSteps(Dataset[_Made]):
    """Item `step` is that batch of the split, seen through every preprocessing."""

    def __init__(self, split: Split, preprocesses: tuple[Preprocess, ...], batch_size: int) -> None:
        self.split, self.preprocesses, self.batch_size = split, preprocesses, batch_size

    def __getitem__(self, step: int) -> _Made:
        start = step * self.batch_size
        indices = np.arange(start, min(start + self.batch_size, len(self.split)), dtype=np.int64)

        def views(picture: Image.Image, index: int) -> tuple[Tensor, ...]:
            return tuple(evaluation_crop(picture, preprocess) for preprocess in self.preprocesses)

        sizes = tuple(preprocess.size for preprocess in self.preprocesses)
        return _make(self.split, indices, self.preprocesses[0], sizes, views)


@lru_cache(maxsize=2)
def _cached_order(num_images: int, seed: int, stage_index: int, epoch: int) -> npt.NDArray[np.int64]:
    return epoch_order(num_images, seed, stage_index, epoch)


def _make(
    split: Split,
    indices: npt.NDArray[np.int64],
    preprocess: Preprocess,
    sizes: tuple[int, ...],
    views: Callable[[Image.Image, int], tuple[Tensor, ...]],
) -> _Made:
    """Read the pictures and put their views into one tensor per size, in the layout they have in memory."""
    # Copied by numpy: torch would split copies this small over threads, which costs more than the copy.
    batches = [np.empty((len(indices), size, size, 3), dtype=np.uint8) for size in sizes]
    kept: list[int] = []
    bad: list[BadImage] = []
    for index in indices.tolist():
        try:
            picture = split.read(index, preprocess.exif, preprocess.alpha)
        except BadImage as error:
            bad.append(error)
            continue
        for batch, view in zip(batches, views(picture, index), strict=True):
            batch[len(kept)] = view.permute(1, 2, 0).numpy()
        kept.append(index)
    return _Made(
        tuple(torch.from_numpy(batch[: len(kept)]).permute(0, 3, 1, 2) for batch in batches),
        torch.from_numpy(split.labels[kept]),
        torch.tensor(kept, dtype=torch.int64),
        bad,
    )


def _report_bad(item: _Made, on_bad_image: OnBadImage, bad: list[str]) -> None:
    for error in item.bad:
        if on_bad_image == "error":
            raise BadImage(
                error.name, f"{error.reason}\n  remove it, or leave such pictures out: --data.on_bad_image skip"
            )
        if error.name not in bad:
            bad.append(error.name)


def _run(dataset: Dataset[_Made], steps: range, workers: int, pin_memory: bool) -> Generator[_Made]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=steps,
            num_workers=min(workers, len(steps)),
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            # Otherwise the loader draws its base seed from the generator that training shares.
            generator=torch.Generator(),
        )
        made = iter(loader)
    yield from made


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole process group; the main process needs its workers to stop safely. SIGTERM stays as it
    # is: with it the main process ends workers that it abandons, and ignoring it makes its exit wait forever.
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
