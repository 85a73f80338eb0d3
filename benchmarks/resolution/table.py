"""The tables of the clean experiment: paired differences in loss and in points, over pictures, folds and seeds.

    python -m benchmarks.resolution.table runs/resolution/arms
    python -m benchmarks.resolution.table benchmarks/resolution/answers.jsonl      # as published

The outcomes were fixed before the run: (1) loss of `fixed 96` less that of `head+stats 64`, the control; (2) its
points of top-1; (3) the same of `enlarged 96` and (4) of `zoomed 64`, which have the apparent size of 96 px and no more
detail; (5) the difference of (1) between the two trainings. Intervals of one training's differences resample pictures;
that of (5) resamples folds and seeds, too. (5) also contains the difference in augmentation between the trainings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Key = tuple[str, int, int]
"""Training, fold and seed."""
CONTROL = "head+stats 64"
OUTCOMES = ("fixed 96", "fixed 128", "enlarged 96", "zoomed 64", "none 64", "none 96", "head 64")
NUM_RESAMPLES = 2_000


def read_arms(source: Path) -> dict[str, dict[Key, dict[str, Floats]]]:
    """Return loss and right of every arm, by training, fold and seed, from a folder of them or a file of lines."""
    found: dict[str, dict[Key, dict[str, Floats]]] = {}
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        one: Mapping[str, Any] = json.loads(line)
        key = (one["training"], one["fold"], one["seed"])
        arrays = {name: np.array(one[name], dtype=np.float64) for name in ("loss", "right")}
        found.setdefault(one["arm"], {})[key] = arrays
    return found


def differences(
    arms: Mapping[str, Mapping[Key, Mapping[str, Floats]]], arm: str, training: str, what: str
) -> dict[tuple[int, int], Floats]:
    """Return arm less control of every tested picture, by fold and seed, where both were measured."""
    own, control = arms.get(arm, {}), arms.get(CONTROL, {})
    keys = [key for key in own if key in control and key[0] == training]
    return {key[1:]: own[key][what] - control[key][what] for key in sorted(keys)}


def by_picture(parts: Mapping[tuple[int, int], Floats]) -> Floats:
    """Return the mean over seeds of every picture's difference, all folds in a row."""
    folds = sorted({fold for fold, _ in parts})
    means = [np.mean([gaps for (own, _), gaps in parts.items() if own == fold], axis=0) for fold in folds]
    return np.concatenate(means) if means else np.empty(0)


def interval(values: Floats, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return mean and 95 % interval over resampled pictures."""
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def interaction(
    first: Mapping[tuple[int, int], Floats], second: Mapping[tuple[int, int], Floats], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return the difference of two trainings' mean differences, resampling folds, seeds and pictures.

    Folds are drawn with replacement, then seeds of each, then pictures of each; both trainings of a picture stay
    together.
    """
    keys = sorted(first.keys() & second.keys())
    gaps = {key: first[key] - second[key] for key in keys}
    folds = sorted({fold for fold, _ in keys})
    seeds = {fold: [seed for own, seed in keys if own == fold] for fold in folds}
    drawn = []
    for _ in range(NUM_RESAMPLES):
        means = []
        for fold in rng.choice(folds, len(folds)).tolist():
            for seed in rng.choice(seeds[fold], len(seeds[fold])).tolist():
                values = gaps[fold, seed]
                means.append(values[rng.integers(0, len(values), len(values))].mean())
        drawn.append(np.mean(means))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([gaps[key].mean() for key in keys])), float(low), float(high)


def markdown(arms: Mapping[str, Mapping[Key, Mapping[str, Floats]]]) -> str:
    """Return the tables."""
    rng = np.random.default_rng(0)
    trainings = sorted({key[0] for own in arms.values() for key in own})
    lines = [
        f"| minus {CONTROL} | training | folds x seeds | n | loss, nats (95 %) | top-1, points (95 %) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm in _present(arms):
        for training in trainings:
            losses = differences(arms, arm, training, "loss")
            if not losses:
                continue
            told = interval(by_picture(losses), rng)
            points = interval(100 * by_picture(differences(arms, arm, training, "right")), rng)
            num = len(by_picture(losses))
            cells = (arm, training, len(losses), f"{num:,}", _shown(told, 4), _shown(points, 2))
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    both = [differences(arms, "fixed 96", training, "loss") for training in ("crops", "resize")]
    if all(both):
        lines += ["", f"(5) crops less resize, in loss: {_shown(interaction(both[0], both[1], rng), 4)} nats"]
    return "\n".join(lines)


def _present(arms: Iterable[str]) -> list[str]:
    own = [arm for arm in arms if arm != CONTROL]
    return [*(arm for arm in OUTCOMES if arm in own), *sorted(arm for arm in own if arm not in OUTCOMES)]


def _shown(told: tuple[float, float, float], digits: int) -> str:
    mean, low, high = told
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def main() -> None:
    """Print the tables of a folder or a file of arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", type=Path)
    print(markdown(read_arms(parser.parse_args().arms)))


if __name__ == "__main__":
    main()
