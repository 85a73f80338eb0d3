"""The sizes worth measuring for one network: those of the theory that its architecture can take."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from torch import nn

from fixres.config.stage import Stage
from fixres.models.sizes import MAX_SIZE, needs_values, patch_size, refusal, without_values
from fixres.resolution import HARDLY_LARGER, Preprocess, candidate_sizes, exact_matching_size, matching_size

_STEP = 32
"""Stride of most convolutional networks, and a multiple of most patches."""


class Offer(NamedTuple):
    """Sizes for a network and how it was trained."""

    sizes: tuple[int, ...]
    """Worth measuring, ascending: the train size, up to six from there to its double, and `matching`."""
    exact: float
    """Size in pixels at which objects look as large as in training."""
    matching: int
    """The size near `exact` that the network can take."""


def offer_sizes(model: nn.Module, train: Preprocess, stage: Stage) -> Offer:
    """Return the sizes worth measuring for a network trained by `stage`, at `train.size` pixels."""
    shape = model if needs_values(model) else without_values(model)

    @cache
    def is_legal(size: int) -> bool:
        return size == train.size or (size <= MAX_SIZE and refusal(shape, size) is None)

    patch = patch_size(model)
    steps = list(dict.fromkeys((_STEP if _STEP % patch == 0 else patch, 28, 16, 8)))
    sizes = {train.size}
    for place, step in enumerate(steps):
        candidates = candidate_sizes(train.size, step)
        legal = [size for size in candidates if is_legal(size)]
        # A network may take one of many by chance, which makes the step none of its own.
        is_own = len(legal) > (2 if len(candidates) > 2 else 1)
        if place == 0 or is_own:
            sizes.update(legal)
        if is_own:
            steps = steps[place:]
            break
    exact, matching = exact_matching_size(train, stage.crop, stage.crop_scale), train.size
    for step in steps:
        matching = matching_size(train, stage.crop, stage.crop_scale, step, is_legal)
        if matching != train.size or exact <= (1 + HARDLY_LARGER) * train.size:
            break
    return Offer(tuple(sorted({*sizes, matching})), exact, matching)
