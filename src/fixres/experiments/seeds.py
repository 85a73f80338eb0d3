"""One recipe over several seeds: mean and spread, and the paired difference over pictures and seeds."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fixres.config.loading import flatten, read_document
from fixres.errors import UserError
from fixres.evaluation.metrics import METRICS
from fixres.runtime.run_folder import read_events
from fixres.training.before_after import PICTURES


@dataclass(frozen=True)
class Row:
    """One line of the table: a way to use the network, over seeds. Accuracies in percent."""

    label: str
    sizes: tuple[int, ...]
    top1: tuple[float, ...]
    """One per seed."""
    gmacs: float
    train_seconds: float
    """Mean wall time of the stages it needs."""
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Every metric that all seeds have, one value per seed."""

    @property
    def mean(self) -> float:
        """Mean top-1 over seeds."""
        return statistics.fmean(self.top1)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for one seed."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else 0.0


@dataclass(frozen=True)
class Difference:
    """Fixed minus before. The interval covers the choice of pictures, `std` that of seeds."""

    mean: float
    std: float
    ci95: tuple[float, float]
    per_seed: tuple[float, ...]
    num_images: int


@dataclass(frozen=True)
class Study:
    """What several runs of one recipe found."""

    split: str
    num_images: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    top1: Difference | None
    """In points of accuracy."""
    loss: Difference | None
    """In nats; below 0 is better."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of study.json."""
        return {
            "split": self.split,
            "num_images": self.num_images,
            "seeds": list(self.seeds),
            "rows": [
                {
                    "label": row.label,
                    "sizes": list(row.sizes),
                    "top1": list(row.top1),
                    "mean": row.mean,
                    "std": row.std,
                    "metrics": {key: list(values) for key, values in row.metrics.items()},
                    "gmacs": row.gmacs,
                    "train_seconds": row.train_seconds,
                }
                for row in self.rows
            ],
            "top1_difference": vars(self.top1) if self.top1 else None,
            "loss_difference": vars(self.loss) if self.loss else None,
        }


def summarise(runs: Sequence[Path]) -> Study:
    """Read finished runs of one recipe and put their results side by side.

    Raises:
        UserError: a run has no result, or the runs do not report on the same pictures.
    """
    comparisons = [_last(run, "comparison") for run in runs]
    seeds = _check_recipes(runs)
    first = comparisons[0]
    if any(c["num_images"] != first["num_images"] or c["split"] != first["split"] for c in comparisons):
        raise UserError("these runs report on different pictures and cannot be averaged")
    rows = []
    for label in [row["label"] for row in first["rows"]]:
        # A run whose fix stayed at the train size has no row for the larger size alone.
        same = [row for c in comparisons for row in c["rows"] if row["label"] == label]
        if len(same) != len(comparisons):
            continue
        rows.append(
            Row(
                label,
                tuple(sorted({r["size"] for r in same})),
                tuple(r["top1"] for r in same),
                statistics.fmean(r["gmacs"] for r in same),
                statistics.fmean(_seconds(run, label) for run in runs),
                {key: tuple(r[key] for r in same) for key in METRICS if all(r.get(key) is not None for r in same)},
            )
        )
    if not rows:
        raise UserError("these runs were not made by one recipe and cannot be averaged")
    top1, loss = _differences(runs) if first["paired"] else (None, None)
    return Study(first["split"], first["num_images"], seeds, tuple(rows), top1, loss)


def _check_recipes(runs: Sequence[Path]) -> tuple[int, ...]:
    """Return the seeds of runs that differ in nothing else that matters.

    Raises:
        UserError: the recipes differ, or a seed comes twice.
    """
    recipes = [_settings(run) for run in runs]
    seeds = tuple(recipe.get("seed", 0) for recipe in recipes)
    ignored = ("seed", "output.", "runtime.", "data.workers")
    for run, recipe in zip(runs, recipes, strict=True):
        keys = sorted(k for k in {*recipe, *recipes[0]} if recipe.get(k) != recipes[0].get(k))
        different = [key for key in keys if not key.startswith(ignored)]
        if different:
            raise UserError(
                f"{run} and {runs[0]} were made by different recipes and cannot be averaged: {', '.join(different[:6])}"
            )
    if len(set(seeds)) != len(seeds):
        raise UserError(f"a seed comes twice: {', '.join(map(str, seeds))}\n  name every run once")
    return seeds


def _settings(run: Path) -> dict[str, Any]:
    """Return the settings of a run by dotted key, those of a stage that did not run left out."""
    values = read_document(run / "recipe.yaml").values
    ran = {key: value for key, value in values.items() if not isinstance(value, dict) or value.get("enabled", True)}
    return flatten(ran)


def _differences(runs: Sequence[Path]) -> tuple[Difference, Difference]:
    """Return the differences in top-1 and in loss."""
    tables = [_gains(run / PICTURES) for run in runs]
    if any(list(table) != list(tables[0]) for table in tables):
        raise UserError("these runs report on different pictures and cannot be averaged")
    gains = np.array([list(table.values()) for table in tables])
    return difference(gains[..., 0]), difference(gains[..., 1])


def difference(gains: np.ndarray) -> Difference:
    """Summarise gains `[seeds, N]`: mean and interval over pictures, spread over seeds."""
    per_seed = gains.mean(axis=1)
    # A picture's outcomes under several seeds depend on each other, so the picture is the unit of the interval.
    per_picture = gains.mean(axis=0)
    mean = float(per_picture.mean())
    error = float(per_picture.std(ddof=1)) / math.sqrt(len(per_picture))
    std = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else 0.0
    interval = (mean - 1.959964 * error, mean + 1.959964 * error)
    return Difference(mean, std, interval, tuple(map(float, per_seed)), len(per_picture))


def _gains(path: Path) -> dict[str, tuple[float, float]]:
    """Return {picture: (gain in top-1 in points, gain in loss)} of a run."""
    if not path.exists():
        raise UserError(f"{path} is missing: the run has no comparison")
    gains = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            right = (row["fixed"] == row["label"]) - (row["train size"] == row["label"])
            gains[row["path"]] = 100.0 * right, float(row["fixed loss"]) - float(row["train size loss"])
    return gains


def _last(run: Path, event: str) -> dict[str, Any]:
    found = [e for e in read_events(run) if e["event"] == event]
    if not found:
        raise UserError(f"{run} has no result yet\n  fixres train {run / 'recipe.yaml'} --out {run} --resume")
    return found[-1]


def _seconds(run: Path, label: str) -> float:
    """Return the wall time of the stages behind a row: the fix counts for the fixed row only."""
    stages = [e for e in read_events(run) if e["event"] == "stage_done"]
    return math.fsum(e["seconds"] for e in stages if label == "fixed" or e["stage"] != "fix")
