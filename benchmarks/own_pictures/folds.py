"""Outer folds that all arms of the comparison share: every labelled picture is tested once.

    python -m benchmarks.own_pictures.folds elpv: --out runs/own/elpv/folds

Writes `fold-K.csv` (path, label, split: train or test) of all pictures and `train-K.csv`, which has the training ones
alone: what an arm that must not see the test pictures is given. Paths are absolute.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fixres.config.recipe import Data
from fixres.data.collections import open_splits
from fixres.data.sampling import stratified_split
from fixres.data.splits import OnDisk
from fixres.errors import UserError

NUM_FOLDS = 5


class Row(NamedTuple):
    """One picture of a fold."""

    path: str
    label: str
    split: str


def labelled_pictures(uri: str) -> tuple[list[str], list[str], npt.NDArray[np.int64]]:
    """Return the files of all splits of a collection, their labels, and the strata to divide evenly.

    Raises:
        UserError: there is no such collection, or its pictures are no files.
    """
    paths, labels, strata = [], [], []
    for split in open_splits(Data(uri=uri))[1].values():
        if not isinstance(split.source, OnDisk):
            raise UserError(f"the pictures of {uri} are no files\n  give a folder or a table of files")
        root, below = split.source.files(split.paths)
        names = [split.classes[label] for label in split.labels.tolist()]
        paths += [str((root / path).absolute()) for path in below]
        labels += names
        strata += names if split.subgroups is None else list(zip(names, split.subgroups, strict=True))
    places: dict[object, int] = {}
    return paths, labels, np.array([places.setdefault(stratum, len(places)) for stratum in strata], dtype=np.int64)


def fold_numbers(strata: npt.NDArray[np.int64], num_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold, 0 to `num_folds` - 1, in which every picture is tested."""
    parts = stratified_split(strata, {str(fold): 1 / num_folds for fold in range(num_folds)}, seed)
    numbers = np.empty(len(strata), dtype=np.int64)
    for fold, places in parts.items():
        numbers[places] = int(fold)
    return numbers


def write_folds(uri: str, out: Path, num_folds: int = NUM_FOLDS, seed: int = 0) -> list[Path]:
    """Write both tables of every fold, and return the whole ones. What is there must be the same.

    Raises:
        UserError: other folds lie in `out`.
    """
    paths, labels, strata = labelled_pictures(uri)
    numbers = fold_numbers(strata, num_folds, seed)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for fold in range(num_folds):
        splits = np.where(numbers == fold, "test", "train").tolist()
        rows = [Row(*row) for row in zip(paths, labels, splits, strict=True)]
        written.append(out / f"fold-{fold}.csv")
        _write(written[-1], rows)
        _write(out / f"train-{fold}.csv", [row for row in rows if row.split == "train"])
    return written


def read_fold(file: Path) -> list[Row]:
    """Return the rows of a fold's table."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [Row(row["path"], row["label"], row["split"]) for row in csv.DictReader(lines)]


def fold_files(folder: Path, asked: Sequence[int] | None = None) -> dict[int, Path]:
    """Return the whole tables in a folder by their number, only those `asked` for if any are.

    Raises:
        UserError: there are none.
    """
    files = {int(file.stem.split("-")[1]): file for file in sorted(folder.glob("fold-*.csv"))}
    chosen = {fold: file for fold, file in files.items() if not asked or fold in asked}
    if not chosen:
        raise UserError(f"{folder} holds no such folds\n  python -m benchmarks.own_pictures.folds URI --out {folder}")
    return chosen


def _write(file: Path, rows: Sequence[Row]) -> None:
    if file.exists():
        if read_fold(file) != list(rows):
            raise UserError(f"{file} holds another fold\n  another --out, or delete it with what was measured on it")
        return
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(Row._fields)
        table.writerows(rows)


def main() -> None:
    """Write the folds of one collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", help="folder or data URI")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=NUM_FOLDS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for file in write_folds(asked.uri, asked.out, asked.folds, asked.seed):
        rows = read_fold(file)
        print(f"{file}: {sum(row.split == 'test' for row in rows):,} of {len(rows):,} pictures tested")


if __name__ == "__main__":
    main()
