"""Which epoch to keep: rules that read few pictures, judged on many that they did not read.

    python -m benchmarks.own_pictures.trajectories --out runs/selection
    python -m benchmarks.own_pictures.selection_rules runs/selection

Of the 1,624 pictures that a training never saw, `n` are drawn to select on (stratified, 500 times) and the rest tests
the epoch that each rule takes. What a rule loses is its epoch's accuracy on the rest minus that of the epoch which is
best there, and the same of the cross-entropy, of the logits as they are and divided by the temperature fitted on the
selecting pictures. No rule reaches 0: the best epoch is known only afterwards.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student

from fixres.data.sampling import stratified_split
from fixres.evaluation.temperature_scaling import fit_temperature
from fixres.io.files import write_text

Floats = npt.NDArray[np.float64]
Rule = Callable[["Selection"], int]
SIZES = (50, 100, 500, 1000)
DRAWS = 500
MEASURES = ("accuracy", "loss", "calibrated")
_SAME = 1e-9


@dataclass(frozen=True)
class Selection:
    """What every epoch did on the selecting pictures: `[E, n]`, one row per epoch."""

    hits: Floats
    """1 where the answer was right."""
    losses: Floats
    """Cross-entropy of the logits as they are."""
    calibrated: Floats
    """Cross-entropy after the temperature that was fitted, epoch by epoch, on these very pictures."""
    common: Floats
    """The same with one temperature, fitted on the logits of all epochs together."""


def _last(values: Floats, best: float) -> int:
    """Return the last place whose value is the best one."""
    return int(np.flatnonzero(np.abs(values - best) <= _SAME)[-1])


def _smooth(figures: Floats) -> Floats:
    """Return the mean of every figure and its neighbours; the ends have one neighbour."""
    weights = np.ones(3)
    return np.convolve(figures, weights, "same") / np.convolve(np.ones(len(figures)), weights, "same")


def accuracy_then_loss(selection: Selection) -> int:
    """Return the epoch with the most right answers, of equal ones that with the lower loss."""
    accuracy, loss = selection.hits.mean(1), selection.losses.mean(1)
    return int(np.lexsort((loss, -accuracy))[0])


def _within(values: Floats, errors: float) -> npt.NDArray[np.int64]:
    """Return the epochs whose mean is above the lowest by at most `errors` standard errors of the difference."""
    best = int(values.mean(1).argmin())
    apart = values - values[best]
    error = apart.std(1, ddof=1) / np.sqrt(values.shape[1])
    return np.flatnonzero(apart.mean(1) <= errors * error + _SAME)


def last_unless(values: Floats, errors: float = 1.0) -> int:
    """Return the last epoch, or the lowest one if the last is above it by more than `errors` standard errors."""
    last = len(values) - 1
    return last if last in _within(values, errors) else int(values.mean(1).argmin())


RULES: dict[str, Rule] = {
    "last epoch": lambda s: len(s.hits) - 1,
    "accuracy, the first of equals": lambda s: int(s.hits.mean(1).argmax()),
    "accuracy, the last of equals": lambda s: _last(s.hits.mean(1), s.hits.mean(1).max()),
    "accuracy, then loss": accuracy_then_loss,
    "accuracy over 3 epochs": lambda s: _last(_smooth(s.hits.mean(1)), _smooth(s.hits.mean(1)).max()),
    "accuracy, earliest within 1 SE": lambda s: int(_within(-s.hits, 1)[0]),
    "accuracy, latest within 1 SE": lambda s: int(_within(-s.hits, 1)[-1]),
    "loss": lambda s: int(s.losses.mean(1).argmin()),
    "loss over 3 epochs": lambda s: int(_smooth(s.losses.mean(1)).argmin()),
    "loss, latest within 1 SE": lambda s: int(_within(s.losses, 1)[-1]),
    "loss after temperature": lambda s: int(s.calibrated.mean(1).argmin()),
    "loss after temperature, over 3 epochs": lambda s: int(_smooth(s.calibrated.mean(1)).argmin()),
    "loss after temperature, earliest within 1 SE": lambda s: int(_within(s.calibrated, 1)[0]),
    "loss after temperature, latest within 1 SE": lambda s: int(_within(s.calibrated, 1)[-1]),
    "loss after temperature, latest within 1/2 SE": lambda s: int(_within(s.calibrated, 0.5)[-1]),
    "loss after one temperature for all": lambda s: int(s.common.mean(1).argmin()),
    "loss after one temperature for all, latest within 1 SE": lambda s: int(_within(s.common, 1)[-1]),
    "last, unless loss is lower by 1 SE": lambda s: last_unless(s.losses),
    "last, unless loss after temperature is lower by 1 SE": lambda s: last_unless(s.calibrated),
    "last, unless loss after temperature is lower by 2 SE": lambda s: last_unless(s.calibrated, 2),
}
"""Rules by what they are called in the table."""
FLOOR = "(the one epoch that is best on all 1,624)"


def cross_entropy(logits: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Return the cross-entropy of every picture, `[..., N]` of logits `[..., N, C]`."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1))
    chosen = np.take_along_axis(shifted, labels.reshape((1,) * (logits.ndim - 2) + (-1, 1)), -1)[..., 0]
    return log_sum - chosen


def select(logits: Floats, labels: npt.NDArray[np.int64]) -> tuple[Selection, Floats]:
    """Return what a rule may read of the selecting pictures, logits `[E, n, C]`, and every epoch's temperature."""
    given, target = torch.from_numpy(np.ascontiguousarray(logits)), torch.from_numpy(labels)
    own = np.array([fit_temperature(epoch, target) for epoch in given])
    common = fit_temperature(given.flatten(0, 1), target.repeat(len(given)))
    read = Selection(
        hits=(logits.argmax(-1) == labels).astype(np.float64),
        losses=cross_entropy(logits, labels),
        calibrated=cross_entropy(logits / own[:, None, None], labels),
        common=cross_entropy(logits / common, labels),
    )
    return read, own


def regrets(logits: Floats, labels: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Return what each rule's epoch loses on the pictures that are not `chosen`, per rule in the order of MEASURES."""
    hits, losses = (logits.argmax(-1) == labels).astype(np.float64), cross_entropy(logits, labels)
    selection, temperatures = select(logits[:, chosen], labels[chosen])
    calibrated = cross_entropy(logits / temperatures[:, None, None], labels)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    test = np.stack([100 * (1 - hits[:, rest].mean(1)), losses[:, rest].mean(1), calibrated[:, rest].mean(1)])
    lost = test - test.min(1, keepdims=True)
    found = {name: lost[:, rule(selection)] for name, rule in RULES.items()}
    best = [(1 - hits.mean(1)).argmin(), losses.mean(1).argmin(), calibrated.mean(1).argmin()]
    return found | {FLOOR: lost[np.arange(3), best]}


def draws(labels: npt.NDArray[np.int64], num: int, count: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield `count` stratified choices of `num` pictures."""
    for seed in range(count):
        share = num / len(labels)
        yield stratified_split(labels, {"rest": 1 - share, "chosen": share}, seed)["chosen"]


def study(file: Path, count: int) -> dict[str, dict[str, list[float]]]:
    """Return for every number of selecting pictures and every rule the mean losses of one training."""
    with np.load(file) as arrays:
        logits, labels = arrays["logits"].astype(np.float64), arrays["labels"]
    found = {}
    for num in SIZES:
        each: dict[str, list[Floats]] = defaultdict(list)
        for chosen in draws(labels, num, count):
            for name, lost in regrets(logits, labels, chosen).items():
                each[name].append(lost)
        found[str(num)] = {name: np.mean(lost, axis=0).tolist() for name, lost in each.items()}
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean of one figure per seed and half the width of its 95 % interval, by Student's t."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, float(student.ppf(0.975, len(values) - 1)) * error


def table(studies: dict[str, dict[str, dict[str, list[float]]]], measure: int, digits: int) -> str:
    """Return one measure as Markdown: a row per rule, a column per number of selecting pictures."""
    lines = ["| rule | " + " | ".join(f"{num:,}" for num in SIZES) + " |", "| --- |" + " --- |" * len(SIZES)]
    for name in (*RULES, FLOOR):
        cells = []
        for num in SIZES:
            mean, half = interval([found[str(num)][name][measure] for found in studies.values()])
            cells.append(f"{mean:.{digits}f} ± {half:.{digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Study what is new and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trajectories.py wrote")
    parser.add_argument("--recipes", nargs="+", default=[""], help="only trainings whose name begins so")
    parser.add_argument("--draws", type=int, default=DRAWS)
    asked = parser.parse_args()
    studies = {}
    for file in sorted(asked.folder.glob("*-*.npz")):
        if not file.name.startswith(tuple(asked.recipes)) or file.name.endswith(".part.npz"):
            continue
        answer = file.with_suffix(f".{asked.draws}.json")
        found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
        if any({*found.get(str(num), {})} != {*RULES, FLOOR} for num in SIZES):
            found = study(file, asked.draws)
            write_text(answer, json.dumps(found))
        studies[file.stem] = found
    print(f"{len(studies)} trainings: {', '.join(studies)}; {asked.draws} draws of each\n")
    titles = ("Points of accuracy lost", "Cross-entropy lost", "Cross-entropy lost, after temperature")
    for place, (title, digits) in enumerate(zip(titles, (2, 4, 4), strict=True)):
        print(f"{title}, mean over trainings and draws ± half a 95 % interval over trainings\n")
        print(table(studies, place, digits) + "\n")


if __name__ == "__main__":
    main()
