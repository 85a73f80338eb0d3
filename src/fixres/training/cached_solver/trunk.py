"""Running the frozen trunk over a split in chunks, each done once, by one process, in the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fixres.data.loader import ReadPolicy, evaluation_batches
from fixres.data.splits import Split
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Reading
from fixres.io.progress import NamedProgress
from fixres.models.split_trunk import Cut
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime
from fixres.training.cached_solver.feature_cache import Cache
from fixres.training.cached_solver.norm_statistics import Moments, merge, moments_of, pack
from fixres.training.cached_solver.views import preprocesses, view

_CHUNK = 512
"""Pictures in a chunk, about: what a kill can cost."""


@dataclass(frozen=True)
class _Made:
    """What a batch gave: rows, one per picture, and the moments of the last norms' inputs."""

    rows: dict[str, Tensor]
    moments: list[Moments]


@dataclass(frozen=True)
class Trunk:
    """The frozen part of a network, and how pictures reach it."""

    cut: Cut
    preprocess: Preprocess
    runtime: Runtime
    reading: Reading
    cache: Cache
    progress: NamedProgress

    @property
    def chunk(self) -> int:
        """Pictures in a chunk: whole batches."""
        return self.reading.batch_size * max(1, _CHUNK // self.reading.batch_size)

    def num_chunks(self, split: Split) -> int:
        """Return the number of chunks of a split."""
        return -(-len(split) // self.chunk)

    def statistics(self, split: Split, num_views: int, keep: bool) -> list[Moments]:
        """Return the moments of every last norm's input over the test-time view of a split.

        Args:
            split: the training split.
            num_views: views to keep what crosses the cut for.
            keep: whether to keep it, so that the trunk need not run again.
        """

        def run(batch: _Batch) -> _Made:
            rows: dict[str, Tensor] = {}
            norm_inputs: Sequence[Tensor] = ()
            for number, images in enumerate(batch.views):
                if keep and self.cut.front is not None:
                    crossing = self.cut.front(images)
                    rows |= {f"{number}.{place}": tensor for place, tensor in enumerate(crossing)}
                    found = crossing[: len(self.cut.norms)]
                else:
                    found = self.cut.norm_inputs(images)
                norm_inputs = norm_inputs if number else found
            return _Made(rows, [moments_of(t[: len(batch.places)]) for t in norm_inputs])

        self._run("statistics", split, num_views if keep else 1, run, kept_as="front" if keep else "")
        found = []
        for i in range(len(self.cut.norms)):
            names = tuple(f"{i}.{part}" for part in ("count", "mean", "squares"))
            parts = (self.cache.read("statistics", chunk, *names) for chunk in range(self.num_chunks(split)))
            found.append(merge(Moments(int(count), mean, squares) for count, mean, squares in parts))
        return found

    def features(self, what: str, split: Split, num_views: int, from_front: bool) -> None:
        """Compute the features of every view of a split into the cache, from what crossed the cut where it was kept."""
        if from_front:
            self._finish_front(what, split, num_views)
            return

        def run(batch: _Batch) -> _Made:
            return _Made({f"view.{number}": self.cut.features(t) for number, t in enumerate(batch.views)}, [])

        self._run(what, split, num_views, run)

    def left_out(self, what: str, split: Split) -> list[str]:
        """Return the pictures of a split that have no features, since they cannot be read."""
        seen = np.concatenate([self.cache.read(what, chunk, "places")[0] for chunk in range(self.num_chunks(split))])
        return [split.paths[place] for place in np.setdiff1d(np.arange(len(split)), seen).tolist()]

    def _finish_front(self, what: str, split: Split, num_views: int) -> None:
        """Run the back over what the statistics pass kept."""
        back, size = self.cut.back, self.reading.batch_size
        assert back is not None
        with self.runtime.processes.together():
            for chunk in self._missing(what, split):
                start = time.perf_counter()
                made: dict[str, Tensor] = {}
                for number in range(num_views):
                    names = [f"{number}.{place}" for place in range(self.cut.num_crossing)]
                    crossing = self.cache.read("front", chunk, *names)
                    with torch.inference_mode(), self.runtime.autocast():
                        parts = [
                            back(tuple(t[first : first + size].to(self.runtime.device) for t in crossing)).cpu()
                            for first in range(0, len(crossing[0]), size)
                        ]
                    made[f"view.{number}"] = torch.cat(parts)
                (places,) = self.cache.read("front", chunk, "places")
                seconds = torch.tensor(time.perf_counter() - start)
                self.cache.write(what, chunk, {**made, "places": places, "seconds": seconds})

    def _missing(self, what: str, split: Split) -> list[int]:
        """Return this process's chunks that are not there yet."""
        shard = self.runtime.processes.shard
        own = range(self.num_chunks(split))[shard.rank :: shard.world]
        return [chunk for chunk in own if not self.cache.has(what, chunk)]

    def _run(
        self, what: str, split: Split, num_views: int, run: Callable[[_Batch], _Made], *, kept_as: str = ""
    ) -> None:
        """Run a pass over the chunks that are missing; write each when it is complete.

        `kept_as` writes the rows under a name of their own, first, so that a chunk of `what` is complete.
        """
        missing = self._missing(what, split)
        done = len(split) - sum(len(self._places(split, chunk)) for chunk in missing)
        batches: list[_Made] = []
        start = time.perf_counter()
        with self.runtime.processes.together(), closing(self._batches(split, num_views, missing)) as read:
            for chunk, batch in read:
                if batch is not None:
                    with torch.inference_mode(), self.runtime.autocast():
                        made = run(batch)
                    rows = {name: tensor[: len(batch.places)].cpu() for name, tensor in made.rows.items()}
                    batches.append(_Made({**rows, "places": batch.places}, made.moments))
                    done += len(batch.places)
                    self.progress(what, done, len(split))
                    if self.runtime.stop.received:
                        raise Stopped
                    continue
                tensors = _joined(batches, split, self._places(split, chunk))
                tensors["seconds"] = torch.tensor(time.perf_counter() - start)
                if kept_as:
                    moved = {name: tensors.pop(name) for name in batches[0].rows}
                    self.cache.write(kept_as, chunk, moved)
                self.cache.write(what, chunk, tensors)
                batches, start = [], time.perf_counter()

    def _places(self, split: Split, chunk: int) -> np.ndarray:
        return np.arange(chunk * self.chunk, min((chunk + 1) * self.chunk, len(split)), dtype=np.int64)

    def _batches(self, split: Split, num_views: int, chunks: list[int]) -> Generator[tuple[int, _Batch | None]]:
        """Yield (chunk, batch), and (chunk, None) at its end, for the chunks named, all in one go of the loader."""
        if not chunks:
            return
        places = np.concatenate([self._places(split, chunk) for chunk in chunks])
        read = evaluation_batches(
            split.take(split.name, places),
            preprocesses(self.preprocess, num_views),
            self.reading.batch_size,
            replace(self.reading.policy, pin_memory=self.runtime.device.type == "cuda"),
        )
        todo = list(chunks)
        with closing(read):
            for images, _, indices in read:
                own = torch.from_numpy(places)[indices]
                # Where its last pictures cannot be read, a chunk ends only when the next begins.
                while int(own[0]) // self.chunk != todo[0]:
                    yield todo.pop(0), None
                yield todo[0], self._normalised(images, own, num_views, min(self.reading.batch_size, len(split)))
                if int(own[-1]) == int(self._places(split, todo[0])[-1]):
                    yield todo.pop(0), None
        for chunk in todo:
            yield chunk, None

    def _normalised(self, images: tuple[Tensor, ...], places: Tensor, num_views: int, shape: int) -> _Batch:
        """Return a batch on the device, padded to a fixed shape, which is what makes its bits repeat."""
        short = shape - len(places)
        if short:
            images = tuple(torch.cat([t, t.new_zeros(short, *t.shape[1:])]) for t in images)
        on_device = tuple(self.runtime.images(t) for t in images)
        p = self.preprocess
        found = [view(on_device, number, p.size) for number in range(num_views)]
        return _Batch([normalise(self.runtime.images(t), p.mean, p.std) for t in found], places)


def first_batch(split: Split, preprocess: Preprocess, runtime: Runtime, reading: Reading) -> Tensor:
    """Return the first batch of a split, normalised, to check faster paths with."""
    few = split.take(split.name, np.arange(min(reading.batch_size, len(split)), dtype=np.int64))
    with closing(
        evaluation_batches(few, (preprocess,), len(few), ReadPolicy(on_bad_image=reading.on_bad_image))
    ) as read:
        images, _, _ = next(read)
    return normalise(runtime.images(images[0]), preprocess.mean, preprocess.std)


@dataclass(frozen=True)
class _Batch:
    views: list[Tensor]
    """Normalised pictures of every view, padded."""
    places: Tensor
    """Which pictures of the split they are, int64."""


def _joined(batches: Sequence[_Made], split: Split, places: np.ndarray) -> dict[str, Tensor]:
    """Return the rows of a chunk one below the other, and its moments merged in order.

    Raises:
        UserError: not one of its pictures could be read.
    """
    if not batches:
        raise UserError(f"none of {len(places)} pictures can be read, from {split.paths[int(places[0])]} on")
    tensors = {name: torch.cat([batch.rows[name] for batch in batches]) for name in batches[0].rows}
    for i in range(len(batches[0].moments)):
        merged = merge(batch.moments[i] for batch in batches)
        tensors |= {name: tensor.cpu() for name, tensor in pack(str(i), merged).items()}
    return tensors
