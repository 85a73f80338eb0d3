"""What an arm said on one fold, as a JSON file: written once, read by table.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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


def read_answers(folder: Path) -> Iterator[Answers]:
    """Yield what lies in a folder, sorted by file name."""
    for file in sorted(folder.glob("*-fold-*.json")):
        yield Answers(**json.loads(file.read_text(encoding="utf-8")))
