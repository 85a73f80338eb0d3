"""The table of the comparison: every arm's accuracy, and whether ours is as good as the better of the others.

    python -m benchmarks.own_pictures.table runs/own/elpv/answers --lowest -2
    python -m benchmarks.own_pictures.table runs/own/stamps/answers --mean -0.5 --lowest -3

Each picture was tested once, in the fold that it was kept out of. Ours is compared picture by picture with the better
of (a) timm at the rate that is best on *these* pictures and (b) logistic regression; a row that misses a bar says so.
An arm that did only some folds is compared on those.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.own_pictures.answers import Answers, read_answers
from fixres.evaluation.metrics import PairedDifference, paired_difference, wilson_interval


@dataclass(frozen=True)
class Bars:
    """What the paired difference, ours minus the other, must reach in points."""

    lowest: float
    """Of the lower end of its 95 % interval."""
    mean: float | None = None
    """Of the difference itself; None: nothing is asked."""

    def failures(self, found: PairedDifference) -> list[str]:
        """Return which bars a difference misses."""
        missed = []
        if self.mean is not None and found.difference < self.mean:
            missed.append(f"mean {found.difference:+.2f} < {self.mean:+g}")
        if found.ci95[0] < self.lowest:
            missed.append(f"lower end {found.ci95[0]:+.2f} < {self.lowest:+g}")
        return missed


class Arm:
    """All folds of one arm: which pictures were tested, and which of them were right."""

    def __init__(self, folds: Sequence[Answers]) -> None:
        self.name, self.kind, self.folds = folds[0].arm, folds[0].kind, sorted(folds, key=lambda one: one.fold)
        self.right: dict[str, bool] = {}
        for one in self.folds:
            twice = self.right.keys() & one.labels.keys()
            if twice:
                raise ValueError(f"{self.name}: {len(twice)} pictures were tested in two folds: {min(twice)}")
            self.right |= {path: one.predictions[path] == label for path, label in one.labels.items()}

    @property
    def accuracy(self) -> float:
        """Share of right answers in percent."""
        return 100 * sum(self.right.values()) / len(self.right)

    def on(self, paths: Iterable[str]) -> np.ndarray:
        """Return whether the answers were right, in the order of `paths`."""
        return np.array([self.right[path] for path in paths], dtype=bool)


def arms_of(answers: Iterable[Answers]) -> list[Arm]:
    """Return the arms by name, ours behind the others."""
    groups: dict[str, list[Answers]] = {}
    for one in answers:
        groups.setdefault(one.arm, []).append(one)
    return sorted(map(Arm, groups.values()), key=lambda arm: (arm.kind == "ours", arm.name))


def better_of(others: Sequence[Arm], paths: Sequence[str]) -> Arm | None:
    """Return the arm with the most right answers among those that were tested on all of `paths`."""
    able = [arm for arm in others if all(path in arm.right for path in paths)]
    return max(able, key=lambda arm: int(arm.on(paths).sum()), default=None)


def comparison(ours: Arm, others: Sequence[Arm], bars: Bars) -> tuple[str, str]:
    """Return the difference to the better of the others in words, and the verdict."""
    paths = sorted(ours.right)
    other = better_of(others, paths)
    if other is None:
        return "nothing to compare with on these pictures", ""
    found = paired_difference(other.on(paths), ours.on(paths))
    low, high = found.ci95
    best = " (its better rate, chosen on these pictures)" if other.kind == "timm" else ""
    missed = bars.failures(found)
    verdict = f"**misses**: {', '.join(missed)}" if missed else "passes"
    return f"{found.difference:+.2f} ({low:+.2f} to {high:+.2f}) against {other.name}{best}", verdict


def markdown(arms: Sequence[Arm], bars: Bars) -> str:
    """Return the table."""
    others = [arm for arm in arms if arm.kind != "ours"]
    lines = [
        "| arm | folds | n | accuracy, % (95 % interval) | ours minus the better other, points (95 %) | bars "
        "| seconds, median | first product, s, median |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm in arms:
        low, high = wilson_interval(sum(arm.right.values()), len(arm.right))
        apart, verdict = comparison(arm, others, bars) if arm.kind == "ours" else ("", "")
        firsts = [one.details["first_product_seconds"] for one in arm.folds if "first_product_seconds" in one.details]
        known = [seconds for seconds in firsts if seconds is not None]
        first = f"{median(known):.0f}" if known else ""
        cells = (
            arm.name,
            len(arm.folds),
            f"{len(arm.right):,}",
            f"{arm.accuracy:.2f} ({low:.1f} to {high:.1f})",
            apart,
            verdict,
            f"{median(one.seconds for one in arm.folds):.0f}",
            first,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def choices(arms: Sequence[Arm]) -> str:
    """Return what was chosen on each fold, ours and the logistic regression's, as a list."""
    lines = []
    for arm in arms:
        for one in arm.folds:
            if "test_size" in one.details:
                made = one.details.get("shipped", "")
                sizes = f"{made}, trained at {one.details['train_size']} px, tested at {one.details['test_size']} px"
                lines.append(f"* {arm.name}, fold {one.fold}: {one.details['network']}, {sizes}")
            elif "C" in one.details:
                text = f"{one.details['size']} px, crop ratio {one.details['crop_ratio']}, C {one.details['C']:g}"
                lines.append(f"* {arm.name}, fold {one.fold}: {text}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of a folder of answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="folder, or the file answers.py made of it")
    parser.add_argument("--lowest", type=float, default=-2.0, help="bar for the lower end of the interval")
    parser.add_argument("--mean", type=float, help="bar for the difference itself")
    asked = parser.parse_args()
    arms = arms_of(read_answers(asked.answers))
    print(markdown(arms, Bars(asked.lowest, asked.mean)) + "\n\n" + choices(arms))


if __name__ == "__main__":
    main()
