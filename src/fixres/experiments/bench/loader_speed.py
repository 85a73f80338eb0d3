"""How fast pictures are read, against the loaders of torchvision and timm, run side by side.

Every side reads the same files, crops, flips and ends with normalised float batches in the main process. The sides
take turns within every repeat, so that whatever else the machine does hits all of them; ratios are taken within a
repeat.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data import create_loader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import transforms as v1
from torchvision.transforms import v2

from fixres.config.loading import validate
from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.decode import jpeg_size
from fixres.data.loader import Draw, ReadPolicy, evaluation_batches, train_batches
from fixres.data.scaled_decode import decode_at
from fixres.data.splits import Encoded, Split
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.experiments.questions import LoaderBench
from fixres.io.progress import Progress
from fixres.resolution import Preprocess

Run = Callable[[int], Iterator[int]]
"""Reads everything once with so many workers and yields the number of pictures of every batch."""

_SHAPES = ((500, 375), (375, 500), (500, 333), (500, 400))
_COMPARED = 100
_PASSES_OF_WORKERS = 5


def bench_loader(bench: LoaderBench, progress: Progress | None = None) -> dict[str, Any]:
    """Return images per second of every side and the ratios, as `fixres bench loader --json` writes them.

    Raises:
        UserError: no such data, or fewer pictures than one batch.
    """
    split = _split(bench)
    rows: list[dict[str, Any]] = []
    done, total = 0, len(bench.workers) * bench.repeat
    with _one_thread():
        for workers in bench.workers:
            sides = _sides(bench, split, workers)
            times: dict[str, list[_Time]] = {name: [] for name in sides}
            # Once unmeasured: files come into the page cache, modules are imported.
            for run in sides.values():
                _measure(run, workers)
            for repeat in range(bench.repeat):
                for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
                    times[name].append(_measure(sides[name], workers))
                done += 1
                if progress is not None:
                    progress(done, total)
            rows.append(_row(workers, times))
        answer = _headline(rows) | {"n": len(split), "size": bench.size, "repeats": bench.repeat}
        answer |= {"path": "eval" if bench.eval else f"train, decode {bench.decode}", "data": bench.data}
        answer |= _raw_rates(split)
    if bench.eval and "torchvision" in bench.vs:
        answer["within_one_level"] = _within_one_level(split, _settings(bench)[1])
    return answer | {"results": rows}


@dataclass(frozen=True)
class _Time:
    """One pass of one side. `cpu_rate` is pictures per second of the main process' processor time."""

    rate: float
    cpu_rate: float
    worker_mb: float


def _measure(run: Run, workers: int) -> _Time:
    before = os.times()
    batches = run(workers)
    if workers:
        # Starting the workers is the same for all sides and no part of the rate.
        next(batches)
    start = time.perf_counter()
    num, worker_mb = 0, 0.0
    for count in batches:
        num += count
        worker_mb = worker_mb or _worker_memory()
    seconds, after = time.perf_counter() - start, os.times()
    return _Time(num / seconds, num / max(sum(after[:2]) - sum(before[:2]), 1e-9), worker_mb)


def _worker_memory() -> float:
    """Return the mean proportional set size of the workers in MB: shared pages count in parts. 0 where unknown."""
    sizes = []
    for child in multiprocessing.active_children():
        try:
            text = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
        except OSError:
            return 0.0
        sizes.append(next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000)
    return statistics.mean(sizes) if sizes else 0.0


def _row(workers: int, times: dict[str, list[_Time]]) -> dict[str, Any]:
    row: dict[str, Any] = {"workers": workers, "sides": {}}
    for name, found in times.items():
        rates = [t.rate for t in found]
        side = {
            "images_per_second": round(statistics.median(rates), 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
            "worker_mb": round(max(t.worker_mb for t in found), 1),
        }
        if not workers:
            side["images_per_cpu_second"] = round(statistics.median(t.cpu_rate for t in found), 1)
        if name != "ours":
            ratios = [own.rate / other.rate for own, other in zip(times["ours"], found, strict=True)]
            side |= {
                "ratio": round(statistics.median(ratios), 3),
                "ratio_lowest": round(min(ratios), 3),
                "ratio_highest": round(max(ratios), 3),
            }
            if not workers:
                cpu = [own.cpu_rate / other.cpu_rate for own, other in zip(times["ours"], found, strict=True)]
                side["cpu_ratio"] = round(statistics.median(cpu), 3)
        row["sides"][name] = side
    return row


def _headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ratio, ours and theirs of the first number of workers against the first opponent."""
    sides = dict(rows[0]["sides"])
    ours = sides.pop("ours")
    other = next(iter(sides.values()), None)
    return {
        "ratio": other["ratio"] if other else None,
        "ours": ours["images_per_second"],
        "theirs": other["images_per_second"] if other else None,
    }


def _split(bench: LoaderBench) -> Split:
    splits = open_collection(Data(uri=bench.data, holdout=0)).splits
    split = splits["train"]
    if bench.images and bench.images < len(split):
        split = split.take(split.name, np.linspace(0, len(split) - 1, bench.images).astype(np.int64))
    if len(split) <= bench.batch_size:
        raise UserError(
            f"{len(split)} training pictures in {bench.data} are no more than one batch of {bench.batch_size}\n"
            "  give more pictures, or a smaller --batch-size"
        )
    return split


def _settings(bench: LoaderBench) -> tuple[Stage, Preprocess]:
    train = {"size": bench.size, "epochs": 1, "batch_size": bench.batch_size}
    recipe = validate({"data": {"uri": bench.data}, "train": train, "schedule": {"warmup_epochs": 0}})
    return recipe.train, Preprocess(bench.size, recipe.evaluation.crop_ratio)


def _sides(bench: LoaderBench, split: Split, workers: int) -> dict[str, Run]:
    if workers:
        # Long enough that the batches made before the first one is asked for do not matter.
        split = split.take(split.name, np.tile(np.arange(len(split)), _PASSES_OF_WORKERS))
    stage, preprocess = _settings(bench)
    sides = {"ours": _ours(bench, split, stage, preprocess)}
    for name in bench.vs:
        if name != "none":
            sides[name] = (_torchvision if name == "torchvision" else _timm)(bench, split, stage, preprocess)
    return sides


def _ours(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess) -> Run:
    def run(workers: int) -> Iterator[int]:
        if bench.eval:
            made = evaluation_batches(split, [preprocess], bench.batch_size, ReadPolicy(workers))
            pictures: Iterator[Tensor] = (views[0] for views, _, _ in made)
        else:
            batches = train_batches(split, stage, preprocess, Draw(0, 0), ReadPolicy(workers, decode=bench.decode))
            pictures = (batch.images for batch in batches)
        for images in pictures:
            yield len(normalise(images, preprocess.mean, preprocess.std))

    return run


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


def _torchvision(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess) -> Run:
    if bench.eval:
        crop = [v1.Resize(preprocess.resize_size), v1.CenterCrop(bench.size)]
    else:
        crop = [v1.RandomResizedCrop(bench.size, stage.crop_scale), v1.RandomHorizontalFlip()]
    chain = v1.Compose([*crop, v1.ToTensor(), v1.Normalize(preprocess.mean, preprocess.std)])
    dataset = Pictures(split, chain)

    def run(workers: int) -> Iterator[int]:
        loader = DataLoader(dataset, bench.batch_size, shuffle=not bench.eval, num_workers=workers)
        return (len(images) for images, _ in loader)

    return run


def _timm(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess) -> Run:
    def run(workers: int) -> Iterator[int]:
        loader = create_loader(
            Pictures(split),
            input_size=(3, bench.size, bench.size),
            batch_size=bench.batch_size,
            is_training=not bench.eval,
            scale=stage.crop_scale,
            hflip=0.5,
            color_jitter=None,
            interpolation=preprocess.interpolation,
            crop_pct=preprocess.crop_ratio,
            mean=preprocess.mean,
            std=preprocess.std,
            num_workers=workers,
            persistent_workers=False,
            pin_memory=False,
            device=torch.device("cpu"),
        )
        return (len(images) for images, _ in loader)

    return run


def _raw_rates(split: Split) -> dict[str, float]:
    """Return the floor: pictures per second of processor time that are decoded and nothing else, full and halved."""
    if not isinstance(split.source, Encoded):
        return {}
    files = [split.source.read_bytes(path) for path in split.paths[:_COMPARED]]
    jpegs = [(data, size) for data in files if (size := jpeg_size(data, "")) is not None]
    rates = {}
    for name, shrink in (("raw_decode_full", 1), ("raw_decode_half", 2)):
        passes = []
        for _ in range(5 if jpegs else 0):
            start = time.process_time()
            for data, size in jpegs:
                decode_at(data, size, shrink)
            passes.append(len(jpegs) / max(1e-9, time.process_time() - start))
        if passes:
            rates[name] = round(statistics.median(passes), 1)
    return rates


def _within_one_level(split: Split, preprocess: Preprocess) -> float:
    """Return the share of values in which our test-time view is within one level of torchvision's."""
    chain = v2.Compose([v2.Resize(preprocess.resize_size), v2.CenterCrop(preprocess.size)])
    close, total = 0, 0
    for index in range(min(_COMPARED, len(split))):
        picture = split.read(index)
        difference = v2.functional.pil_to_tensor(chain(picture)).int() - evaluation_crop(picture, preprocess).int()
        close, total = close + int((difference.abs() <= 1).sum()), total + difference.numel()
    return close / total


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_photographs(folder: Path, num: int, quality: int = 92) -> None:
    """Write `num` JPEGs of about 500 x 375 that cost as much to decode as photographs do, and the same ones always.

    Light falls off as a power of the frequency and edges cross it, as in natural pictures. Files have 35 to 80 kB; the
    photographs of scikit-image, brought to 500 x 375 at quality 92, have 34 to 72 kB.
    """
    for index in range(num):
        chance = np.random.default_rng(index)
        path = folder / "train" / f"class{index % 2}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = _SHAPES[int(chance.integers(len(_SHAPES)))]
        _photograph(chance, width, height).save(path, quality=quality)
    for label in range(2):
        (folder / "val" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / "val" / f"class{label}" / "0.jpg")


def _photograph(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    power = chance.uniform(1.3, 1.6)
    light = _field(chance, width, height, power) * chance.uniform(0.8, 1.3)
    y, x = np.mgrid[:height, :width]
    for _ in range(5):
        angle = chance.uniform(0, 2 * np.pi)
        side = (x - chance.uniform(0, width)) * np.cos(angle) + (y - chance.uniform(0, height)) * np.sin(angle)
        light += chance.normal(0, 0.5) * (side > 0)
    colour = np.stack([_field(chance, width, height, power + 0.5) for _ in range(2)], axis=-1)
    levels = light[..., None] + 0.35 * (colour @ np.array([[1, 0, -1], [0.5, -1, 0.5]]))
    return Image.fromarray(np.clip(120 + 40 * levels, 0, 255).astype(np.uint8))


def _field(chance: np.random.Generator, width: int, height: int, power: float) -> npt.NDArray[np.float64]:
    """Return noise whose amplitude falls as 1 / frequency ** power, mean 0 and deviation 1, `[height, width]`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    noise = np.fft.irfft2(np.exp(2j * np.pi * chance.random(frequency.shape)) / frequency**power, s=(height, width))
    return np.asarray((noise - noise.mean()) / noise.std())
