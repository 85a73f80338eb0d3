"""How fast pictures are read, against the loaders of torchvision and timm, run side by side.

Every side reads the same files, crops, flips and ends with normalised float batches in the main process.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from fixres.config.loading import validate
from fixres.config.recipe import Stage
from fixres.data.decode import jpeg_size
from fixres.data.loader import Draw, ReadPolicy, evaluation_batches, train_batches
from fixres.data.scaled_decode import decode_at
from fixres.data.splits import Encoded, Split
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.experiments.bench.harness import (
    Pictures,
    Turn,
    compare,
    race,
    timm_loader,
    torchvision_chain,
    training_split,
)
from fixres.experiments.questions import LoaderBench
from fixres.io.progress import Progress
from fixres.resolution import Preprocess

Run = Callable[[], Iterator[int]]
"""Reads everything once and yields the number of pictures of every batch."""

_SHAPES = ((500, 375), (375, 500), (500, 333), (500, 400))
_COMPARED = 100
_PASSES_OF_WORKERS = 5


def bench_loader(bench: LoaderBench, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Return images per second of every side and the ratios, as `fixres bench loader --json` writes them.

    Raises:
        UserError: no such data, or fewer pictures than one batch.
    """
    split = _split(bench)
    heats = [
        {name: partial(_measure, run, workers) for name, run in _sides(bench, split, workers).items()}
        for workers in bench.workers
    ]
    with _one_thread():
        # Once unmeasured: files come into the page cache, modules are imported.
        for measure in (side for sides in heats for side in sides.values()):
            measure()
        rows = [_row(*found) for found in zip(bench.workers, race(heats, bench.repeat, progress), strict=True)]
        answer = _headline(rows) | {"n": len(split), "size": bench.size, "repeats": bench.repeat}
        answer |= {"path": "eval" if bench.eval else f"train, decode {bench.decode}", "data": bench.data}
        answer |= _raw_rates(split)
    if bench.eval and "torchvision" in bench.vs:
        answer["within_one_level"] = _within_one_level(split, _settings(bench)[1])
    return answer | {"results": rows}


@dataclass(frozen=True)
class _Time(Turn):
    """One pass of one side. `cpu_rate` is pictures per second of the main process' processor time."""

    worker_mb: float


def _measure(run: Run, workers: int) -> _Time:
    before = os.times()
    batches = run()
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
    pairs = {name: ("ours", name) for name in times if name != "ours"}
    sides = compare(times, pairs, has_cpu=not workers)
    for name, found in times.items():
        sides[name]["worker_mb"] = round(max(t.worker_mb for t in found), 1)
    return {"workers": workers, "sides": sides}


def _headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ratio, ours and theirs of the first number of workers against the first opponent."""
    sides = rows[0]["sides"]
    other: dict[str, Any] = next((side for name, side in sides.items() if name != "ours"), {})
    ours, theirs = sides["ours"]["images_per_second"], other.get("images_per_second")
    return {"ratio": other.get("ratio"), "ours": ours, "theirs": theirs}


def _split(bench: LoaderBench) -> Split:
    split = training_split(bench.data, bench.images)
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
    makers = {"ours": _ours, "torchvision": _torchvision, "timm": _timm}
    names = ("ours", *(name for name in bench.vs if name != "none"))
    return {name: partial(makers[name], bench, split, stage, preprocess, workers) for name in names}


def _ours(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess, workers: int) -> Iterator[int]:
    if bench.eval:
        made = evaluation_batches(split, [preprocess], bench.batch_size, ReadPolicy(workers))
        pictures: Iterator[Tensor] = (views[0] for views, _, _ in made)
    else:
        batches = train_batches(split, stage, preprocess, Draw(0, 0), ReadPolicy(workers, decode=bench.decode))
        pictures = (batch.images for batch in batches)
    for images in pictures:
        yield len(normalise(images, preprocess.mean, preprocess.std))


def _torchvision(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess, workers: int) -> Iterator[int]:
    dataset = Pictures(split, torchvision_chain(preprocess, None if bench.eval else stage))
    loader = DataLoader(dataset, bench.batch_size, shuffle=not bench.eval, num_workers=workers)
    return (len(images) for images, _ in loader)


def _timm(bench: LoaderBench, split: Split, stage: Stage, preprocess: Preprocess, workers: int) -> Iterator[int]:
    loader = timm_loader(Pictures(split), preprocess, bench.batch_size, workers, None if bench.eval else stage)
    return (len(images) for images, _ in loader)


def _raw_rates(split: Split) -> dict[str, float]:
    """Return the floor: pictures per second of processor time that are decoded and nothing else, full and halved."""
    if not isinstance(split.source, Encoded):
        return {}
    files = [split.source.read_bytes(path) for path in split.paths[:_COMPARED]]
    jpegs = [(data, size) for data in files if (size := jpeg_size(data, "")) is not None]
    if not jpegs:
        return {}
    rates = {}
    for name, shrink in (("raw_decode_full", 1), ("raw_decode_half", 2)):
        passes = []
        for _ in range(5):
            start = time.process_time()
            for data, size in jpegs:
                decode_at(data, size, shrink)
            passes.append(len(jpegs) / max(1e-9, time.process_time() - start))
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
