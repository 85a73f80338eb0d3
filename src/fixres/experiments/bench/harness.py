"""What the benches share: sides that take turns, their medians and ratios, pictures to read, and timm's loader.

The sides take turns within every repeat, so that whatever else the machine does hits all of them; ratios are taken
within a repeat.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from timm.data import create_loader
from torch.utils.data import Dataset
from torchvision.transforms import transforms as v1

from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.splits import Encoded, Split
from fixres.io.progress import Progress
from fixres.resolution import Preprocess


@dataclass(frozen=True)
class Turn:
    """One turn of one side: pictures per second, and per second of processor time."""

    rate: float
    cpu_rate: float


T = TypeVar("T", bound=Turn)
Sides = Mapping[str, Callable[[], T]]


def race(heats: Sequence[Sides[T]], repeat: int, progress: Progress) -> list[dict[str, list[T]]]:
    """Return the turns of every side in every heat; `progress` is called with (turns done, turns in all)."""
    found: list[dict[str, list[T]]] = [{name: [] for name in sides} for sides in heats]
    order = [
        (place, name)
        for place, sides in enumerate(heats)
        for number in range(repeat)
        for name in list(sides)[:: -1 if number % 2 else 1]
    ]
    for done, (place, name) in enumerate(order, 1):
        found[place][name].append(heats[place][name]())
        progress(done, len(order))
    return found


def compare(
    turns: Mapping[str, Sequence[Turn]], pairs: Mapping[str, tuple[str, str]], has_cpu: bool, digits: int = 1
) -> dict[str, dict[str, Any]]:
    """Return the speeds of every side, and at the sides named by `pairs` the ratios of the first to the second.

    `has_cpu`: by processor time too, where it is all that a side costs: that of loader processes is not seen.
    """
    sides: dict[str, dict[str, Any]] = {}
    for name, own in turns.items():
        rates = [turn.rate for turn in own]
        side = {"images_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}
        if has_cpu:
            side["images_per_cpu_second"] = statistics.median(turn.cpu_rate for turn in own)
        sides[name] = {key: round(value, digits) for key, value in side.items()}
        if name not in pairs:
            continue
        both = list(zip(*(turns[side] for side in pairs[name]), strict=True))
        ratios = spread("ratio", [one.rate / other.rate for one, other in both])
        if has_cpu:
            ratios |= spread("cpu_ratio", [one.cpu_rate / other.cpu_rate for one, other in both])
        sides[name] |= {key: round(value, 3) for key, value in ratios.items()}
    return sides


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest of a figure."""
    return {name: statistics.median(values), f"{name}_lowest": min(values), f"{name}_highest": max(values)}


def training_split(uri: str, num_images: int | None) -> Split:
    """Return the training pictures of a collection, or so many of them, evenly spaced."""
    split = open_collection(Data(uri=uri, holdout=0)).splits["train"]
    if num_images and num_images < len(split):
        split = split.take(split.name, np.linspace(0, len(split) - 1, num_images).astype(np.int64))
    return split


class Pictures(Dataset[tuple[Any, int]]):
    """What `torchvision.datasets.ImageFolder` does, for any split."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        source = self.split.source
        if isinstance(source, Encoded):
            picture = Image.open(io.BytesIO(source.read_bytes(self.split.paths[index]))).convert("RGB")
        else:
            picture = self.split.read(index)
        return (self.transform(picture) if self.transform else picture), int(self.split.labels[index])


def torchvision_chain(preprocess: Preprocess, stage: Stage | None) -> v1.Compose:
    """Return torchvision's transforms: random crop and flip of a training stage, or without one the centre crop."""
    resample = v1.InterpolationMode(preprocess.interpolation)
    if stage is None:
        crop = [v1.Resize(preprocess.resize_size, resample), v1.CenterCrop(preprocess.size)]
    else:
        crop = [
            v1.RandomResizedCrop(preprocess.size, stage.crop_scale, interpolation=resample),
            v1.RandomHorizontalFlip(),
        ]
    return v1.Compose([*crop, v1.ToTensor(), v1.Normalize(preprocess.mean, preprocess.std)])


def timm_loader(dataset: Any, preprocess: Preprocess, batch_size: int, workers: int, stage: Stage | None = None) -> Any:
    """Return timm's loader for one pass on a CPU: for training as `stage` crops, or without one for testing."""
    training = {"is_training": True, "scale": stage.crop_scale, "hflip": 0.5, "color_jitter": None} if stage else {}
    return create_loader(
        dataset,
        input_size=(3, preprocess.size, preprocess.size),
        batch_size=batch_size,
        interpolation=preprocess.interpolation,
        crop_pct=preprocess.crop_ratio,
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=workers,
        persistent_workers=False,
        device=torch.device("cpu"),
        **training,
    )
