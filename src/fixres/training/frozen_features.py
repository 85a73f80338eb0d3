"""Features of a frozen network in front of its head, for several networks and sizes from pictures decoded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from fixres.data.loader import evaluation_batches
from fixres.data.sampling import Indices
from fixres.data.splits import Split
from fixres.data.transforms import normalise
from fixres.errors import Stopped, UserError
from fixres.evaluation.evaluate import Reading
from fixres.models.sizes import evaluation_mode
from fixres.models.split_trunk import headless
from fixres.resolution import Preprocess
from fixres.runtime.device import Runtime

_PLAIN = Preprocess(1)


@dataclass
class Views:
    """Pictures of a split as networks see them, decoded once for all the preprocessings asked for together."""

    split: Split
    reading: Reading
    runtime: Runtime
    bad: list[str] = field(default_factory=list)
    """Paths of the pictures that cannot be read, where they are skipped."""
    _held: dict[Preprocess, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places: Indices = np.arange(len(self.split), dtype=np.int64)

    def has(self, preprocess: Preprocess) -> bool:
        """Return whether a preprocessing is decoded."""
        return _crop_of(preprocess) in self._held

    def decode(self, preprocesses: Sequence[Preprocess]) -> float:
        """Decode the pictures for several preprocessings and hold what the networks see; return the seconds it took.

        The first time, pictures that cannot be read are left out of `places` where the reading says so.

        Raises:
            UserError: a picture cannot be read.
            Stopped: a signal came.
        """
        start = time.perf_counter()
        wanted = tuple(dict.fromkeys(_crop_of(p) for p in preprocesses if not self.has(p)))
        size, num = self.reading.batch_size, len(self.places)
        own = self.split.take(self.split.name, self.places)
        held = [np.empty((num, p.size, p.size, 3), dtype=np.uint8) for p in wanted]
        kept = []
        with closing(evaluation_batches(own, wanted, size, self.reading.policy, self.bad)) as read:
            for images, _, indices in read:
                for block, view in zip(held, images, strict=True):
                    block[indices.numpy()] = view.permute(0, 2, 3, 1).numpy()
                kept.append(indices.numpy())
                if self.runtime.stop.received:
                    raise Stopped
        found = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
        if not len(found):
            raise UserError(f"not one of {num} pictures of '{self.split.name}' can be read")
        if len(found) < num and self._held:
            raise UserError(f"pictures of '{self.split.name}' can no longer be read\n  start again")
        self.places = self.places[found]
        for p, block in zip(wanted, held, strict=True):
            self._held[p] = torch.from_numpy(block[found] if len(found) < num else block).permute(0, 3, 1, 2)
        return time.perf_counter() - start

    def drop(self, preprocess: Preprocess) -> None:
        """Forget what a network saw."""
        self._held.pop(_crop_of(preprocess), None)

    @property
    def num_bytes(self) -> int:
        """Memory of what is held."""
        return sum(block.numel() for block in self._held.values())

    def batches(self, preprocess: Preprocess) -> Sequence[Tensor]:
        """Return the pictures uint8 `[B, 3, S, S]`, batch by batch, as decoded before."""
        return torch.split(self._held[_crop_of(preprocess)], self.reading.batch_size)


@dataclass
class Extractor:
    """The frozen part of one network at one size, and how long it takes."""

    model: nn.Module
    preprocess: Preprocess
    runtime: Runtime
    batch_size: int
    seconds: list[float] = field(default_factory=list)
    """Of every batch, which are all padded to one shape."""

    def prepare(self, images: Tensor) -> None:
        """Find the fastest way to compute that gives the network's own values, on real pictures uint8.

        Raises:
            UserError: nothing in front of a head can be told apart.
        """
        with evaluation_mode(self.model), torch.inference_mode(), self.runtime.autocast():
            self._run = headless(self.model, self._inputs(images))

    def features(self, images: Tensor) -> Tensor:
        """Return float32 features `[B, D]` on the CPU of pictures uint8 `[B, 3, S, S]`.

        Raises:
            UserError: they are not finite.
        """
        start = time.perf_counter()
        with torch.inference_mode(), self.runtime.autocast():
            found = self._run(self._inputs(images))[: len(images)].float().cpu()
        self.seconds.append(time.perf_counter() - start)
        if not bool(torch.isfinite(found).all()):
            raise UserError(
                f"the network's features are not finite at {self.preprocess.size} px; its weights are broken"
            )
        return found

    @property
    def ms(self) -> float:
        """Milliseconds a picture: the median over batches, without the first, which warms up, where there are more."""
        return 1000 * float(np.median(self.seconds[1:] or self.seconds)) / self.batch_size

    def _inputs(self, images: Tensor) -> Tensor:
        # The last bits of a feature depend on the shape of its batch, so there is one shape.
        missing = self.batch_size - len(images)
        padded = images if missing <= 0 else torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        return normalise(self.runtime.images(padded), self.preprocess.mean, self.preprocess.std)


def _crop_of(preprocess: Preprocess) -> Preprocess:
    """Return the preprocessing without what comes after the crop, so that networks share crops."""
    # Padding is filled with the mean.
    return preprocess if preprocess.resize == "pad" else replace(preprocess, mean=_PLAIN.mean, std=_PLAIN.std)
