"""The paper's grid in words and numbers: means over seeds, paired differences, what every cell cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fixres.experiments.seeds import difference

Found = dict[str, Any]
"""A cell as `run_grid` returns it."""


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
            "num_images": own[0]["num_images"],
            "top1": top1,
            "mean": statistics.fmean(top1),
            "std": statistics.stdev(top1) if len(top1) > 1 else 0.0,
            "loss": statistics.fmean(cell["loss"] for cell in own),
            "gmacs": own[0]["gmacs"],
            "seconds": statistics.fmean(cell["seconds"] for cell in own),
            "train_seconds": statistics.fmean(cell["train_seconds"] for cell in own),
            "training_gmacs": statistics.fmean(cell["training_gmacs"] for cell in own),
            "solver": own[0]["solver"],
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
    num = f"n = {first['num_images']:,} pictures, {len(first['seeds'])} seeds"
    parts.append(_table(entries, f"Top-1 in percent, mean ± standard deviation over seeds ({num})", _accuracy))
    if any(entry.get("differences") for entry in entries):
        # `direct` is a training of its own, so its rows name the one they are compared with.
        what = "Minus `none`, in points, with the 95 % interval over pictures; of the same training but for `direct`"
        parts.append(_table(_with_difference(entries), what, _gain))
    what = "Wall time of the fix in seconds (of the training for `none` and `direct`)"
    parts.append(_table(entries, what, _seconds))
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
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for entry in entries:
        trained = "the test size" if entry["arm"].startswith("direct") else f"{entry['train_size']} px"
        rows.setdefault((trained, entry["arm"]), {})[entry["test_size"]] = write(entry)
    for (trained, arm), values in sorted(rows.items(), key=lambda row: _row_order(row[0])):
        lines.append(f"| {trained} | {arm} | {' | '.join(values.get(size, '–') for size in sizes)} |")
    return "\n".join(lines) + "\n"


def _row_order(row: tuple[str, str]) -> tuple[bool, int]:
    trained, _ = row
    return (trained == "the test size", 0 if trained == "the test size" else int(trained.split()[0]))


def _accuracy(entry: dict[str, Any]) -> str:
    return f"{entry['mean']:.1f} ± {entry['std']:.1f}"


def _gain(entry: dict[str, Any]) -> str:
    low, high = entry["paired"]["ci95"]
    return f"{entry['paired']['mean']:+.1f} ({low:+.1f} to {high:+.1f})"


def _seconds(entry: dict[str, Any]) -> str:
    return f"{entry['train_seconds'] if entry['arm'] in ('none', 'direct') else entry['seconds']:.0f}"
