"""What an arm said on one fold, as a JSON file: written once, read by table.py.

    python -m benchmarks.own_pictures.answers runs/own/elpv/answers --out runs/own/elpv.jsonl

writes all files of a folder as one that is small enough to keep: a line per arm and fold, pictures by their place in
the order of their paths, nothing of the machine. The table reads it like the folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fixres.io.files import write_text


@dataclass(frozen=True)
class Answers:
    """One arm on one fold."""

    arm: str
    """As the table calls it."""
    kind: str
    """`timm`, `logistic` or `ours`: what it is compared as."""
    fold: int
    labels: Mapping[str, str]
    """The label of every tested picture by its path."""
    predictions: Mapping[str, str]
    """What the arm said, by the same paths."""
    seconds: float
    """Wall clock of everything the arm did on this fold, start-up included."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """All settings, and whatever else the table may say."""


def answers_file(out: Path, arm: str, fold: int) -> Path:
    """Return where an arm's answers on a fold are kept."""
    return out / f"{arm.replace(' ', '-').replace('/', '-')}-fold-{fold}.json"


def write_answers(out: Path, found: Answers) -> None:
    """Write one file, whole or not at all."""
    if set(found.labels) != set(found.predictions):
        raise ValueError(f"{found.arm}, fold {found.fold}: predictions of other pictures than those that were tested")
    write_text(answers_file(out, found.arm, found.fold), json.dumps(asdict(found), indent=1))


def read_answers(source: Path) -> Iterator[Answers]:
    """Yield what lies in a folder, sorted by file name, or in a file that `kept_lines` wrote."""
    if source.is_file():
        yield from map(_unpacked, source.read_text(encoding="utf-8").splitlines())
        return
    for file in sorted(source.glob("*-fold-*.json")):
        yield Answers(**json.loads(file.read_text(encoding="utf-8")))


def kept_lines(answers: Iterable[Answers], details: Iterable[str]) -> Iterator[str]:
    """Yield one line of JSON for each, with those of the details that are named.

    Raises:
        ValueError: two arms were tested on other pictures of a fold, so that places would mean different ones.
    """
    names, pictures = set(details), dict[int, list[tuple[str, str]]]()
    for one in answers:
        order = sorted(one.labels)
        if pictures.setdefault(one.fold, sorted(one.labels.items())) != sorted(one.labels.items()):
            raise ValueError(f"{one.arm} was tested on other pictures of fold {one.fold} than the arm before")
        classes = sorted({*one.labels.values(), *one.predictions.values()})
        yield json.dumps(
            {
                "arm": one.arm,
                "kind": one.kind,
                "fold": one.fold,
                "seconds": round(one.seconds, 1),
                "details": {key: value for key, value in one.details.items() if key in names},
                "classes": classes,
                "labels": " ".join(str(classes.index(one.labels[path])) for path in order),
                "predictions": " ".join(str(classes.index(one.predictions[path])) for path in order),
            }
        )


def _unpacked(line: str) -> Answers:
    kept = json.loads(line)
    named = [[kept["classes"][int(place)] for place in kept[key].split()] for key in ("labels", "predictions")]
    labels, predictions = ({f"{kept['fold']}/{place}": name for place, name in enumerate(column)} for column in named)
    return Answers(kept["arm"], kept["kind"], kept["fold"], labels, predictions, kept["seconds"], kept["details"])


KEPT_DETAILS = (
    *("network", "size", "crop_ratio", "C", "cross_validated", "batch_size", "epochs", "optimizer", "lr", "threads"),
    *("weight_decay", "momentum", "train_size", "test_size", "moves", "first_product_seconds", "is_on_time", "shipped"),
)


def main() -> None:
    """Write a folder of answers as one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    lines = list(kept_lines(read_answers(asked.answers), KEPT_DETAILS))
    write_text(asked.out, "".join(f"{line}\n" for line in lines))
    print(f"{asked.out}: {len(lines)} arms and folds")


if __name__ == "__main__":
    main()
