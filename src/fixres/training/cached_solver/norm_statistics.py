"""Mean and variance of a norm's input over a whole split, exact and in the same bits for any number of processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Number of values, mean and sum of squared deviations per channel, in float64."""

    count: int
    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, which is what BatchNorm stores."""
        return self.squares / max(1, self.count - 1)


def moments_of(values: Tensor) -> Moments:
    """Return the moments of the channels of `[B, C, ...]`."""
    rows = values.detach().double().transpose(0, 1).flatten(1)
    mean = rows.mean(1)
    # In place: the largest activations are what limits the memory of recalibration.
    return Moments(rows.shape[1], mean, (rows - mean[:, None]).square_().sum(1))


def merge(parts: Iterable[Moments]) -> Moments:
    """Merge in the order given (Chan, Golub and LeVeque 1979); the order decides the last bits.

    Raises:
        ValueError: no parts.
    """
    merged: Moments | None = None
    for part in parts:
        if merged is None:
            merged = part
            continue
        count = merged.count + part.count
        gap = part.mean - merged.mean
        squares = merged.squares + part.squares + gap.square() * (merged.count * part.count / count)
        merged = Moments(count, merged.mean + gap * (part.count / count), squares)
    if merged is None:
        raise ValueError("nothing to merge")
    return merged


def pack(name: str, moments: Moments) -> dict[str, Tensor]:
    """Return the tensors that keep moments on disk."""
    count = torch.tensor(moments.count, dtype=torch.int64)
    return {f"{name}.count": count, f"{name}.mean": moments.mean, f"{name}.squares": moments.squares}
