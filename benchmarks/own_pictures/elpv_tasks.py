"""Two more questions to ask of the ELPV pictures: the type of the cell, and its four grades of damage.

    python -m benchmarks.own_pictures.elpv_tasks type --out runs/own/type.csv
    python -m benchmarks.own_pictures.folds csv:runs/own/type.csv --out runs/own/type/folds

They have the pictures of `elpv:` and other labels: tasks two and three on one collection, not further collections.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

from fixres.config.recipe import Data
from fixres.data.collections import open_splits
from fixres.data.sources.folder import Files

TASKS = ("type", "grade")
GRADES = {0.0: "intact", 1 / 3: "probably intact", 2 / 3: "probably defective", 1.0: "defective"}
"""What the probabilities of a defect that the raters gave are called here."""


def grade_of(probability: float) -> str:
    """Return the name of the grade nearest to a defect probability."""
    return GRADES[min(GRADES, key=lambda grade: abs(grade - probability))]


def labelled(task: str) -> list[tuple[str, str]]:
    """Return the file and the label of every ELPV picture."""
    source = open_splits(Data(uri="elpv:"))[1]["all"].source
    assert isinstance(source, Files)
    lines = [line.split() for line in (source.root / "labels.csv").read_text(encoding="utf-8").splitlines()]
    return [
        (str(source.root / path), kind if task == "type" else grade_of(float(probability)))
        for path, probability, kind in filter(None, lines)
    ]


def main() -> None:
    """Write the table of one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    rows = labelled(asked.task)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([("path", "label"), *rows])
    print(f"{asked.out}: {dict(Counter(label for _, label in rows))}")


if __name__ == "__main__":
    main()
