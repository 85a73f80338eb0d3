"""Batches of uint8 pictures, the same for any number of worker processes.

The item a worker makes is a whole batch: which pictures and which augmentation follow from the step alone, so starting
at any step needs no replay. Unreadable pictures travel back as values; no traceback of a worker reaches the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fixres.config.choices import Decode, OnBadImage
from fixres.config.recipe import Stage
from fixres.data.decode import BadImage
from fixres.data.in_memory import Held, can_hold, held_view
from fixres.data.progressive_sizes import Timeline, stage_timeline
from fixres.data.read_in_processes import begin_picture, read_items
from fixres.data.sampling import Indices, copy_numbers, epoch_indices, rank_shard, sample_seed
from fixres.data.scaled_decode import ScaledJpeg, open_for_crop
from fixres.data.splits import Encoded, Split
from fixres.data.test_time_augmentation import crops_of, num_crops
from fixres.data.transforms import train_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess
from fixres.runtime.distributed import Shard

E = TypeVar("E", bound=UserError)
_ALL = Shard()
_HOLD_AT_ONCE = 256
"""Pictures a worker sends back at a time while a split is read into memory."""
_BAD_IMAGES_ALLOWED = 10
"""Unreadable pictures that `on_bad_image: skip` leaves out of any split, however small the share allowed."""
_BAD_IMAGES_NAMED = 5
"""Of too many, those that the error names."""


@dataclass(frozen=True)
class ReadPolicy:
    """How pictures are read, and what becomes of those that cannot be."""

    workers: int = 0
    """Loader processes; 0 reads in this one."""
    on_bad_image: OnBadImage = "error"
    """skip: a picture that cannot be read is left out of its batch, and its path is appended to `bad` once."""
    max_bad_images: float = 0.01
    """Share of a training split that may be left out (`bad_image_limit`)."""
    decode: Decode = "fast"
    """How JPEGs of a random crop are decoded in training."""
    hold_gib: float = 1.0
    """Up to which size a training split is held in memory."""
    pin_memory: bool = False
    """Whether batches come in memory that is copied to a GPU without a detour."""


@dataclass(frozen=True)
class Draw:
    """Which batches: seed and stage decide the pictures and their augmentation, the rest which of them are wanted."""

    seed: int
    stage_index: int
    first_step: int = 0
    shard: Shard = _ALL
    """Of every batch a process takes entries `rank`, `rank + world`, ..."""


_PLAIN = ReadPolicy()


class Batch(NamedTuple):
    """Pictures, labels int64 `[B]`, places in the split int64 `[B]`, and the pictures that could not be read."""

    views: tuple[Tensor, ...]
    """Uint8 `[B, 3, S, S]` (channels last in memory) of every preprocessing."""
    labels: Tensor
    indices: Tensor
    bad: list[BadImage]

    @property
    def images(self) -> Tensor:
        """The pictures of the one preprocessing there is in training."""
        return self.views[0]


def train_batches(
    split: Split,
    stage: Stage,
    preprocess: Preprocess,
    draw: Draw,
    policy: ReadPolicy = _PLAIN,
    bad: list[str] | None = None,
) -> Generator[Batch]:
    """Yield the batches of a whole stage, all epochs, from the first step on; the last part of an epoch is dropped.

    The paths of pictures that are left out are appended to `bad`; a batch of such pictures alone is empty,
    `[0, 3, S, S]`.

    Raises:
        UserError: the batch is larger than the split; from the iterator, a picture cannot be read, or too many.
    """
    timeline = stage_timeline(split, stage, preprocess.size, seed=draw.seed, stage_index=draw.stage_index)
    dataset = _TrainingSteps(split, stage, preprocess, timeline, policy.decode, draw.shard)
    wanted = range(draw.first_step, timeline.total_steps)
    is_held = wanted and not stage.sizes and can_hold(len(split), stage, preprocess, policy.hold_gib)
    made = (_run_held if is_held else _run)(dataset, wanted, policy)
    return _train_batches(made, split, policy, [] if bad is None else bad)


def _train_batches(made: Generator[Batch], split: Split, policy: ReadPolicy, bad: list[str]) -> Generator[Batch]:
    # Closed at once: workers that wait for the garbage collector, behind a traceback, take seconds to end.
    with closing(made):
        for item in made:
            _report_bad(item, policy, bad)
            if item.bad:
                require_few_bad(split, policy.max_bad_images, bad, f"\n  the last one: {item.bad[-1]}")
            yield item


def evaluation_batches(
    split: Split,
    preprocesses: Sequence[Preprocess],
    batch_size: int,
    policy: ReadPolicy = _PLAIN,
    bad: list[str] | None = None,
    shard: Shard = _ALL,
) -> Generator[tuple[tuple[Tensor, ...], Tensor, Tensor]]:
    """Yield (pictures per preprocessing uint8 `[B, 3, S, S]`, labels, indices) in the order of the split, unpadded.

    A preprocessing that is a `test_time_augmentation.View` of five crops gives five such tensors, one behind the other.

    A process takes every `world`-th batch, so that the batches are the same for any number of them. Every picture is
    read and decoded once, whatever the number of sizes. The paths of pictures that are left out are appended to `bad`.

    Raises:
        UserError: a picture cannot be read, unless the policy is to skip it.
    """
    dataset = _EvaluationSteps(split, tuple(preprocesses), batch_size)
    steps = range(-(-len(split) // batch_size))[shard.rank :: shard.world]
    with closing(_run(dataset, steps, policy)) as made:
        for item in made:
            _report_bad(item, policy, [] if bad is None else bad)
            if len(item.indices):
                yield item.views, item.labels, item.indices


@dataclass(eq=False)
class _TrainingSteps:
    """Item `step` is the batch of that step of the stage."""

    split: Split
    stage: Stage
    preprocess: Preprocess
    timeline: Timeline
    decode: Decode
    shard: Shard
    _drawn: tuple[int, Indices, Indices] | None = None

    def __getitem__(self, step: int) -> Batch:
        epoch, indices, copies = self.chosen(step)
        preprocess = self.preprocess.at(self.timeline.at(step).size)

        def views(place: int) -> tuple[Tensor]:
            index = int(indices[place])
            begin_picture(index, self.split.paths[index])
            picture = self._open(index)
            torch.default_generator.manual_seed(
                sample_seed(*self.timeline.coordinates, epoch, index, int(copies[place]))
            )
            return (train_crop(picture, self.stage, preprocess),)

        with torch.random.fork_rng(devices=()):
            return _make(self.split, indices, (preprocess.size,), views)

    def chosen(self, step: int) -> tuple[int, Indices, Indices]:
        """Return the epoch of a step, the pictures of this process's part of its batch and the copy number of each."""
        at = self.timeline.at(step)
        indices, copies = (part[at.start : at.start + at.batch_size] for part in self._epoch(at.epoch))
        return at.epoch, rank_shard(indices, *self.shard), rank_shard(copies, *self.shard)

    def _open(self, index: int) -> Image.Image | ScaledJpeg:
        split, exif, alpha = self.split, self.preprocess.exif, self.preprocess.alpha
        if self.decode == "fast" and self.stage.crop == "random" and isinstance(split.source, Encoded):
            path = split.paths[index]
            return open_for_crop(split.source.read_bytes(path), path, exif, alpha)
        return split.read(index, exif, alpha)

    def _epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """Return the pictures of an epoch in their order, and the copy number of each."""
        if self._drawn is None or self._drawn[0] != epoch:
            stage, timeline = self.stage, self.timeline
            order = epoch_indices(
                self.split.labels, timeline.num_samples, stage.sampler, stage.repeats, *timeline.coordinates, epoch
            )
            self._drawn = epoch, order, copy_numbers(order)
        return self._drawn[1:]


@dataclass(frozen=True, eq=False)
class _EvaluationSteps:
    """Item `step` is that batch of the split, seen through every preprocessing."""

    split: Split
    preprocesses: tuple[Preprocess, ...]
    batch_size: int
    squares_only: bool = False

    def __getitem__(self, step: int) -> Batch:
        start = step * self.batch_size
        indices = np.arange(start, min(start + self.batch_size, len(self.split)), dtype=np.int64)

        def views(place: int) -> tuple[Tensor, ...]:
            first, path = self.preprocesses[0], self.split.paths[start + place]
            begin_picture(start + place, path)
            picture = self.split.read(start + place, first.exif, first.alpha)
            if self.squares_only and picture.width != picture.height:
                raise BadImage(path, "not square")
            return tuple(crop for p in self.preprocesses for crop in crops_of(picture, p, path))

        return _make(self.split, indices, tuple(p.size for p in self.preprocesses for _ in range(num_crops(p))), views)


def _make(split: Split, indices: Indices, sizes: tuple[int, ...], views: Callable[[int], tuple[Tensor, ...]]) -> Batch:
    """Return the batch of the pictures at `indices`, where a picture may occur more than once."""
    images, kept, bad = stack_views(len(indices), sizes, views, BadImage)
    kept_indices = indices[kept]
    labels, places = torch.from_numpy(split.labels[kept_indices]), torch.from_numpy(kept_indices)
    return Batch(images, labels, places, list(bad.values()))


def stack_views(
    num: int, sizes: Sequence[int], views: Callable[[int], tuple[Tensor, ...]], refusal: type[E]
) -> tuple[tuple[Tensor, ...], list[int], dict[int, E]]:
    """Put the views of some pictures into one tensor per size, in the layout they have in memory.

    `views` is given a place from 0 to `num` - 1; where it raises a `refusal`, the place is left out. Returned are the
    tensors, the places they hold, and by place why others are left out.
    """
    # Copied by numpy: torch would split copies this small over threads, which costs more than the copy.
    batches = [np.empty((num, size, size, 3), dtype=np.uint8) for size in sizes]
    kept: list[int] = []
    refused: dict[int, E] = {}
    for place in range(num):
        try:
            seen = views(place)
        except refusal as error:
            refused[place] = error
            continue
        for batch, view in zip(batches, seen, strict=True):
            batch[len(kept)] = view.permute(1, 2, 0).numpy()
        kept.append(place)
    images = tuple(torch.from_numpy(batch[: len(kept)]).permute(0, 3, 1, 2) for batch in batches)
    return images, kept, refused


def bad_image_limit(num_images: int, max_bad_images: float) -> int:
    """Return how many pictures of a split training may leave out: the share of it, at least 10, and never all."""
    return max(0, min(max(_BAD_IMAGES_ALLOWED, math.floor(max_bad_images * num_images + 1e-9)), num_images - 1))


def require_few_bad(split: Split, share: float, bad: Sequence[str], last: str = "") -> None:
    """Refuse more unreadable pictures `bad` than training may leave out of a split.

    Raises:
        UserError: there are too many; `last` is added to the message.
    """
    limit = bad_image_limit(len(split), share)
    if len(bad) <= limit:
        return
    named = ", ".join(bad[:_BAD_IMAGES_NAMED]) + (", ..." if len(bad) > _BAD_IMAGES_NAMED else "")
    if len(bad) == len(split):
        raise UserError(
            f"none of the {len(split)} pictures of '{split.name}' can be read: {named}{last}\n"
            "  repair or replace them; fixres data check URI names what is wrong with each"
        )
    enough = min(1.0, math.ceil(200 * len(bad) / len(split)) / 100)
    raise UserError(
        f"{len(bad)} pictures of '{split.name}' cannot be read, and {limit} of its {len(split)} may be left out "
        f"(data.max_bad_images {share:g}, at least {_BAD_IMAGES_ALLOWED}): {named}{last}\n"
        "  fixres data check URI names all of them; repair or remove them, "
        f"or leave out more: --data.max_bad_images {enough:g}"
    )


def _report_bad(item: Batch, policy: ReadPolicy, bad: list[str]) -> None:
    for error in item.bad:
        if policy.on_bad_image == "error":
            raise BadImage(
                error.name,
                f"{error.reason}\n  remove it, or leave such pictures out: "
                "--data.on_bad_image skip in training, --on-bad-image skip in eval",
            )
        if error.name not in bad:
            bad.append(error.name)


def _run(dataset: _TrainingSteps | _EvaluationSteps, steps: range, policy: ReadPolicy) -> Generator[Batch]:
    with closing(read_items(dataset, steps, min(policy.workers, len(steps)))) as made:
        for item in made:
            yield item._replace(views=tuple(v.pin_memory() for v in item.views)) if policy.pin_memory else item


def _run_held(dataset: _TrainingSteps, steps: range, policy: ReadPolicy) -> Generator[Batch]:
    """Read the split into memory and cut the batches from there; where it cannot be held, run as ever."""
    held = _hold(dataset, policy.workers)
    if held is None:
        yield from _run(dataset, steps, policy)
        return
    for step in steps:
        epoch, indices, copies = dataset.chosen(step)
        images = held.batch(dataset.stage, (*dataset.timeline.coordinates, epoch), indices, copies)
        labels = torch.from_numpy(dataset.split.labels[indices])
        yield Batch((images.pin_memory() if policy.pin_memory else images,), labels, torch.from_numpy(indices), [])


def _hold(dataset: _TrainingSteps, workers: int) -> Held | None:
    """Return the decoded split, or None when a picture is not square where it has to be, or cannot be read.

    What to do about one that cannot be read is then decided when its batch comes.
    """
    split, view = dataset.split, held_view(dataset.stage, dataset.preprocess)
    chunks = _EvaluationSteps(split, (view,), _HOLD_AT_ONCE, squares_only=dataset.stage.crop == "pad")
    pixels = np.empty((len(split), view.size, view.size, 3), dtype=np.uint8)
    with closing(_run(chunks, range(-(-len(split) // _HOLD_AT_ONCE)), ReadPolicy(workers))) as made:
        for item in made:
            if item.bad:
                return None
            pixels[item.indices.numpy()] = item.views[0].permute(0, 2, 3, 1).numpy()
    return Held(pixels)
