"""Small collections held in memory, decoded: a batch is cut out of one block of pixels.

Only augmentation that needs no more than a place and a flip is done here. Its chance comes from a hash of (seed,
stage, epoch, index, copy) computed for a whole batch at once, so a batch is the same however the work is divided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fixres.config.recipe import Stage
from fixres.data.sampling import Indices, sample_draws
from fixres.data.transforms import is_plain
from fixres.resolution import Preprocess

GIB = 1 << 30


def can_hold(num_images: int, stage: Stage, preprocess: Preprocess, gib: float) -> bool:
    """Return whether a stage's pictures may be held: simple augmentation, several epochs, at most `gib` GiB.

    The answer follows from the recipe and the number of pictures, never from the machine.
    """
    needed = num_images * 3 * preprocess.size**2
    return is_plain(stage) and stage.epochs > 1 and stage.crop in ("pad", "center") and needed <= gib * GIB


def held_view(stage: Stage, preprocess: Preprocess) -> Preprocess:
    """Return the test-time preprocessing whose view of a square picture is what `stage` starts from."""
    if stage.interpolation != "test":
        preprocess = replace(preprocess, interpolation=stage.interpolation)
    return preprocess if stage.crop == "center" else replace(preprocess, resize="squash")


@dataclass(frozen=True, eq=False)
class Held:
    """Every picture of a split before augmentation, uint8 `[N, S, S, 3]`."""

    pixels: npt.NDArray[np.uint8]

    def batch(self, stage: Stage, coordinates: tuple[int, int, int], indices: Indices, copies: Indices) -> Tensor:
        """Return the augmented pictures at `indices`, uint8 `[B, 3, S, S]`, channels last in memory.

        Args:
            stage: a stage that `can_hold` allows.
            coordinates: seed, stage, epoch.
            indices: int64 `[B]`.
            copies: int64 `[B]`, how often the same index came earlier in the epoch.
        """
        size = self.pixels.shape[1]
        pad = size // 8 if stage.crop == "pad" else 0
        draws = sample_draws(3, *coordinates, indices, copies)
        left, top = ((draws[:, k] * (2 * pad + 1)).astype(np.int64) - pad for k in (0, 1))
        is_flipped = (draws[:, 2] < 0.5) & (stage.augment == "flip")
        batch = np.zeros((len(indices), size, size, 3), dtype=np.uint8)
        places = zip(indices.tolist(), left.tolist(), top.tolist(), is_flipped.tolist(), strict=True)
        for out, (index, x, y, flip) in zip(batch, places, strict=True):
            # What lies outside the picture stays black.
            rows, columns = slice(max(0, -y), size - max(0, y)), slice(max(0, -x), size - max(0, x))
            target = out[:, ::-1] if flip else out
            target[rows, columns] = self.pixels[index][max(0, y) : size + min(0, y), max(0, x) : size + min(0, x)]
        return torch.from_numpy(batch).permute(0, 3, 1, 2)
