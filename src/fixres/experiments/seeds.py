"""Runs over several seeds: mean and spread, and the paired difference over pictures and seeds.

`summarise` puts the runs of one recipe side by side, `summarise_grid` the cells of the paper's grid.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fixres.config.loading import read_document, saved_values
from fixres.errors import UserError, counted
from fixres.evaluation.metrics import METRICS
from fixres.io.csv_text import read_marked
from fixres.runtime.run_folder import read_events
from fixres.training.comparison_table import PICTURES
from fixres.training.train_size_control import CONTROL

Found = dict[str, Any]
"""A cell of the grid as `run_grid` returns it."""
_MEANS = ("loss", "seconds", "train_seconds", "training_gmacs")


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
    head: Difference | None = None
    """The part of `top1` that solving the head again gains at the train size, where every run has that control."""
    size: Difference | None = None
    """The part that the size gains: the fixed network minus the control."""
    imbalance: float | None = None
    """How many times larger the largest class of the split is than the smallest; None where the runs do not say."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of study.json."""
        return {
            "split": self.split,
            "num_images": self.num_images,
            "imbalance": self.imbalance,
            "seeds": self.seeds,
            "rows": [{**vars(row), "mean": row.mean, "std": row.std} for row in self.rows],
            "top1_difference": vars(self.top1) if self.top1 else None,
            "loss_difference": vars(self.loss) if self.loss else None,
            "head_difference": vars(self.head) if self.head else None,
            "size_difference": vars(self.size) if self.size else None,
        }


def summarise(runs: Sequence[Path]) -> Study:
    """Read finished runs of one recipe and put their results side by side.

    Raises:
        UserError: a run has no result, or the runs do not report on the same pictures.
    """
    comparisons = [last_comparison(run) for run in runs]
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
                statistics.fmean(_train_seconds(run, label) for run in runs),
                {key: tuple(r[key] for r in same) for key in METRICS if all(r.get(key) is not None for r in same)},
            )
        )
    if not rows:
        raise UserError("these runs were not made by one recipe and cannot be averaged")
    top1 = loss = head = size = None
    if first["paired"]:
        top1, loss = row_differences(runs, "fixed", "train size")
    labels = {row.label for row in rows}
    if CONTROL in labels:
        size, _ = row_differences(runs, "fixed", CONTROL)
    if {CONTROL, "train size"} <= labels:
        head, _ = row_differences(runs, CONTROL, "train size")
    ratio = _imbalance(runs[0], first["split"])
    return Study(first["split"], first["num_images"], seeds, tuple(rows), top1, loss, head, size, ratio)


def _imbalance(run: Path, split: str) -> float | None:
    starts = [event for event in read_events(run) if event["event"] == "start"]
    found: float | None = (starts[-1].get("imbalance") or {}).get(split) if starts else None
    return found


def _check_recipes(runs: Sequence[Path]) -> tuple[int, ...]:
    """Return the seeds of runs that differ in nothing else that matters.

    Raises:
        UserError: the recipes differ, or a seed comes twice.
    """
    recipes = [_settings(run) for run in runs]
    seeds = tuple(recipe.get("seed", 0) for recipe in recipes)
    ignored = ("seed", "output.", "runtime.", "data.workers")
    for run, recipe in zip(runs, recipes, strict=True):
        different = [key for key in different_keys(recipe, recipes[0]) if not key.startswith(ignored)]
        if different:
            raise UserError(
                f"{run} and {runs[0]} were made by different recipes and cannot be averaged: {', '.join(different[:6])}"
            )
    if len(set(seeds)) != len(seeds):
        raise UserError(f"a seed comes twice: {', '.join(map(str, seeds))}\n  name every run once")
    return seeds


def different_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys that two mappings do not agree on, in order."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def _settings(run: Path) -> dict[str, Any]:
    """Return the settings of a run by dotted key, those of a stage that did not run left out."""
    values = saved_values(read_document(run / "recipe.yaml").values)
    idle = tuple(key.removesuffix("enabled") for key, value in values.items() if key.endswith(".enabled") and not value)
    return {key: value for key, value in values.items() if not key.startswith(idle)}


def row_differences(runs: Sequence[Path], row: str, minus: str) -> tuple[Difference, Difference]:
    """Return the paired differences of two rows of the comparisons of several runs, in points of top-1 and in nats.

    Raises:
        UserError: the runs report on different pictures, or one has no comparison.
    """
    tables = [_gains(run / PICTURES, row, minus) for run in runs]
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


def _gains(path: Path, row: str, minus: str) -> dict[str, tuple[float, float]]:
    """Return {picture: (gain in top-1 in points, gain in loss)} of one row of a run's comparison over another."""
    if not path.exists():
        raise UserError(f"{path} is missing: the run has no comparison")
    gains = {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for told in read_marked(file):
            right = (told[row] == told["label"]) - (told[minus] == told["label"])
            gains[told["path"]] = 100.0 * right, float(told[f"{row} loss"]) - float(told[f"{minus} loss"])
    return gains


def last_comparison(run: Path) -> dict[str, Any]:
    """Return what a run found in the end.

    Raises:
        UserError: no run, or one that has not finished.
    """
    found = [e for e in read_events(run) if e["event"] == "comparison"]
    if not found:
        raise UserError(f"{run} has no result yet\n  fixres train {run / 'recipe.yaml'} --out {run} --resume")
    return found[-1]


def _train_seconds(run: Path, label: str) -> float:
    """Return the wall time of the work behind a row: a fix counts for the fixed row only, so does its control.

    Nothing was trained for a probe.
    """
    if label.startswith("probe "):
        return 0.0
    own = {"fixed": "fix", CONTROL: "control"}.get(label)
    done = [
        ("control" if e["event"] == "control" else e["stage"], e["seconds"])
        for e in read_events(run)
        if e["event"] in ("stage_done", "control")
    ]
    return math.fsum(seconds for what, seconds in done if what == own or what not in ("fix", "control"))


def summarise_grid(cells: Sequence[Found]) -> list[dict[str, Any]]:
    """Return one entry for every arm, train size and test size, over the seeds that have it.

    `difference` is the arm minus `none` on the same pictures, the same seeds and the same training. Training directly
    at the test size is compared with every train size, in `differences`.
    """
    groups: dict[tuple[str, int, int], list[Found]] = {}
    for cell in cells:
        groups.setdefault((cell["arm"], cell["train_size"], cell["test_size"]), []).append(cell)
    entries = []
    for (arm, train_size, test_size), own in groups.items():
        top1 = [cell["top1"] for cell in own]
        entry: dict[str, Any] = {
            "arm": arm,
            "train_size": train_size,
            "test_size": test_size,
            "seeds": [cell["seed"] for cell in own],
            **{key: own[0][key] for key in ("num_images", "gmacs", "solver")},
            "top1": top1,
            "mean": statistics.fmean(top1),
            "std": statistics.stdev(top1) if len(top1) > 1 else 0.0,
            **{key: statistics.fmean(cell[key] for cell in own) for key in _MEANS},
        }
        against = [train for kind, train, test in groups if kind == "none" and test == test_size]
        against = [train for train in against if train == train_size or arm == "direct"]
        if arm != "none":
            pairs = {train: _paired(own, groups["none", train, test_size]) for train in against}
            entry["differences"] = {str(train): found for train, found in pairs.items() if found}
        entries.append(entry)
    return entries


def _paired(own: Sequence[Found], none: Sequence[Found]) -> dict[str, Any] | None:
    """Return the difference in points of top-1 over the seeds that both have."""
    before = {cell["seed"]: np.array(cell["correct"]) for cell in none}
    gains = [100.0 * (np.array(cell["correct"]) - before[cell["seed"]]) for cell in own if cell["seed"] in before]
    if not gains:
        return None
    found = difference(np.stack(gains))
    return {"mean": found.mean, "std": found.std, "ci95": list(found.ci95), "num_seeds": len(gains)}


def as_markdown(entries: Sequence[dict[str, Any]], title: str) -> str:
    """Return the tables of a grid: accuracy, difference to `none`, and cost, with test sizes across."""
    parts = [f"# {title}\n"]
    first = entries[0]
    num = f"n = {first['num_images']:,} pictures, {counted(len(first['seeds']), 'seed')}"
    spread = ", mean ± standard deviation over seeds" if any(len(entry["seeds"]) > 1 for entry in entries) else ""
    parts.append(_table(entries, f"Top-1 in percent{spread} ({num})", _accuracy))
    if any(entry.get("differences") for entry in entries):
        # `direct` is a training of its own, so its rows name the one they are compared with.
        what = "Minus `none`, in points, with the 95 % interval over pictures; of the same training but for `direct`"
        parts.append(_table(_with_difference(entries), what, _difference))
    what = "Wall time of the fix in seconds (of the training for `none` and `direct`)"
    parts.append(_table(entries, what, _wall_time))
    what = "Work of training and fix together, in GMACs"
    parts.append(_table(entries, what, lambda entry: f"{entry['training_gmacs']:,.0f}"))
    return "\n".join(parts)


def _with_difference(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an entry for every difference; `direct` has one for each train size."""
    found = []
    for entry in entries:
        for train, paired in (entry.get("differences") or {}).items():
            label = f"direct, minus {train} px" if entry["arm"] == "direct" else entry["arm"]
            found.append({**entry, "arm": label, "paired": paired})
    return found


def _table(entries: Sequence[dict[str, Any]], what: str, write: Callable[[dict[str, Any]], str]) -> str:
    sizes = sorted({entry["test_size"] for entry in entries})
    lines = [f"## {what}\n", f"| trained at | moves | {' | '.join(f'{size} px' for size in sizes)} |"]
    lines.append("| --- | --- |" + " --- |" * len(sizes))
    rows: dict[tuple[bool, int, str], dict[int, str]] = {}
    for entry in entries:
        is_direct = entry["arm"].startswith("direct")
        row = (is_direct, 0 if is_direct else entry["train_size"], entry["arm"])
        rows.setdefault(row, {})[entry["test_size"]] = write(entry)
    for is_direct, train_size, arm in sorted(rows, key=lambda row: row[:2]):
        values = rows[is_direct, train_size, arm]
        trained = "the test size" if is_direct else f"{train_size} px"
        lines.append(f"| {trained} | {arm} | {' | '.join(values.get(size, '–') for size in sizes)} |")
    return "\n".join(lines) + "\n"


def _accuracy(entry: dict[str, Any]) -> str:
    # One seed has no spread, which is not a spread of 0.
    return f"{entry['mean']:.1f}" + (f" ± {entry['std']:.1f}" if len(entry["seeds"]) > 1 else "")


def _difference(entry: dict[str, Any]) -> str:
    low, high = entry["paired"]["ci95"]
    return f"{entry['paired']['mean']:+.1f} ({low:+.1f} to {high:+.1f})"


def _wall_time(entry: dict[str, Any]) -> str:
    return f"{entry['train_seconds'] if entry['arm'] in ('none', 'direct') else entry['seconds']:.0f}"
