"""Pictures that a run shows its trackers: the first batch as the network sees it, and what it confuses most surely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid

from fixres.data.splits import Split
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.evaluation.evaluate import Evaluation
from fixres.resolution import Preprocess
from fixres.runtime.run_folder import RunLog
from fixres.runtime.trackers import Pixels

MAX_PICTURES = 16


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 `[B, 3, S, S]` of the network's float inputs, the inverse of `transforms.normalise`, clipped."""
    shift, scale = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
    pixels: Tensor = (images.detach().float().cpu() * scale + shift) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8)


def tile(images: Tensor) -> Pixels:
    """Return uint8 `[H, W, 3]`: at most 16 pictures uint8 `[B, 3, S, S]`, four in a row."""
    sheet: Tensor = make_grid(images[:MAX_PICTURES], nrow=4, padding=2)
    return np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())


def show_batch(log: RunLog, stage: str, images: Tensor, preprocess: Preprocess, total_step: int) -> None:
    """Show the first pictures of a training batch.

    Args:
        log: the run's.
        stage: its name.
        images: float `[B, 3, S, S]`, what is about to enter the network: cropped, augmented, mixed, normalised.
        preprocess: its mean and deviation are undone.
        total_step: step of the whole run.
    """
    log.picture(f"{stage}/first_batch", tile(denormalise(images, preprocess.mean, preprocess.std)), total_step)


def most_confused(found: Evaluation, row: int = 0, count: int = MAX_PICTURES) -> list[int]:
    """Return the places in `found` of wrong predictions, the surest first; the earlier picture where two are equal."""
    wrong = np.flatnonzero(~found.correct()[row])
    order = np.argsort(-found.probabilities[row][wrong], kind="stable")
    return [int(place) for place in wrong[order][:count]]


def show_confused(
    log: RunLog, stage: str, split: Split, found: Evaluation, preprocess: Preprocess, total_step: int
) -> None:
    """Show what the network gets wrong most surely on a split, as it sees it, with names below.

    Args:
        log: the run's.
        stage: its name.
        split: what was measured.
        found: the measurement; its first size is shown.
        preprocess: of that size.
        total_step: step of the whole run.
    """
    views, lines = [], []
    for place in most_confused(found):
        index = int(found.indices[place])
        try:
            picture = split.read(index, preprocess.exif, preprocess.alpha)
        except UserError:
            continue  # It could be read a moment ago; a picture for people is no reason to stop.
        views.append(evaluation_crop(picture, preprocess))
        label, predicted = (split.classes[int(k)] for k in (found.labels[place], found.predictions[0, place]))
        lines.append(f"{len(views)}. {split.paths[index]}: {label}, taken for {predicted}, ")
        lines[-1] += f"{100 * found.probabilities[0, place]:.0f} % sure"
    if views:
        log.picture(f"{stage}/confused", tile(torch.stack(views)), total_step, "\n".join(lines))
