"""Pictures a second, memory of the GPU and time of the host in a run's training, watched from outside.

The rate is that of the run's own log, over the steps between the first ones and the last. In the last ones the host
begins every step on an idle GPU, and its time is that of `StageTrainer.step` without what it waits for the loss.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.plan import Scale
from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.runtime.run_folder import read_events
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe

LOG_EVERY = 5


@dataclass
class Watched:
    """What was seen of the steps."""

    host_seconds: list[float] = field(default_factory=list)
    """Of each lone step."""
    peak_bytes: int = 0
    """Most memory PyTorch had given out on the GPU since the first counted step; 0 on a CPU."""
    waited: float = 0.0
    """Seconds that the step which goes on has waited for a value of the device."""


@contextmanager
def watching(first_counted: int, first_lone: int) -> Iterator[Watched]:
    """Watch every step that is taken meanwhile; from `first_lone` on the device is idle at its start."""
    own_step, own_item = StageTrainer.step, torch.Tensor.item
    found = Watched()

    def item(tensor: torch.Tensor) -> Any:
        start = time.perf_counter()
        value = own_item(tensor)
        found.waited += time.perf_counter() - start
        return value

    def step(trainer: StageTrainer, batch: Any, lr: float) -> Any:
        number, is_cuda = trainer.state.step, trainer.context.runtime.device.type == "cuda"
        if is_cuda and number == first_counted:
            torch.cuda.reset_peak_memory_stats()
        if is_cuda and number >= first_lone:
            torch.cuda.synchronize()
        found.waited = 0.0
        start = time.perf_counter()
        value = own_step(trainer, batch, lr)
        if number >= first_lone:
            found.host_seconds.append(time.perf_counter() - start - found.waited)
        if is_cuda:
            found.peak_bytes = torch.cuda.max_memory_allocated()
        return value

    StageTrainer.step, torch.Tensor.item = step, item  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        StageTrainer.step, torch.Tensor.item = own_step, own_item  # type: ignore[method-assign]


def training_recipe(scale: Scale, uri: str, size: int, is_compiled: bool, workers: int) -> Recipe:
    """Return a training that is not measured before its end; generated pictures are held in memory."""
    is_drawn = uri.startswith("synthetic:")
    epochs = scale.steps * scale.batch_size // scale.num_files
    return validate(
        {
            "data": {"uri": uri, "holdout": 0, "workers": workers, "hold_gib": 4.0},
            "model": {"name": scale.network},
            "optim": {"lr": 0.01},
            "schedule": {"warmup_epochs": 0},
            "augment": {"crop": "center" if is_drawn else "random"},
            "train": {"size": size, "epochs": epochs, "batch_size": scale.batch_size},
            "evaluation": {"every_epochs": epochs, "batch_size": scale.batch_size, "keep": "last"},
            "runtime": {
                "device": scale.device,
                "precision": scale.precision,
                "channels_last": True,
                "compile": is_compiled,
            },
            "output": {"tracker": "none", "log_every_steps": LOG_EVERY, "save_every_epochs": epochs},
        }
    )


def measure_training(
    scale: Scale, uri: str, size: int, is_compiled: bool, workers: int, folder: Path
) -> dict[str, Any]:
    """Train, and return the figures."""
    if is_compiled and scale.device == "cpu":
        # Everything but the compiler, which takes a minute on a CPU.
        torch.compile = partial(torch.compile, backend="eager")
    first_lone = scale.steps - scale.lone_steps
    with watching(scale.warmup_steps, first_lone) as watched:
        run_recipe(training_recipe(scale, uri, size, is_compiled, workers), folder)
    lines = [event for event in read_events(folder) if event["event"] in ("train", "note")]
    rows = [event for event in lines if event["event"] == "train"]
    counted = [
        row
        for before, row in itertools.pairwise(rows)
        if scale.warmup_steps <= before["step"] and row["step"] <= first_lone
    ]
    seconds = sum(row["seconds"] for row in counted)
    waiting = sum(row["data_wait_ratio"] * row["seconds"] for row in counted) / seconds
    figures = {
        "images_per_second": sum(row["images_per_second"] * row["seconds"] for row in counted) / seconds,
        "peak_gib": watched.peak_bytes / 2**30 or None,
        "host_ms": 1000 * statistics.median(watched.host_seconds),
        "note": f"waited for pictures {100 * waiting:.0f} % of the time",
    }
    notes = [event["text"] for event in lines if event["event"] == "note"]
    return {"figures": figures, "rows": rows, "host_seconds": watched.host_seconds, "notes": notes}
