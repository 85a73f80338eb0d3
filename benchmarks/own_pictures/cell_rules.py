"""Which size and crop a probe should take: rules on frozen features, cross-validated, and tested on every fold.

    python -m benchmarks.own_pictures.cell_rules --folds runs/own/stamps/folds --features runs/own/features

Reads the features that `logistic_peer.py` keeps in `features` of its --out, and makes those that are missing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.own_pictures.folds import fold_files, read_fold
from benchmarks.own_pictures.logistic_peer import CROP_RATIOS, SIZES, kept_features
from fixres.resolution import one_error_rule
from fixres.training.cached_solver.cross_validation import cross_validate, solve_head

ENSEMBLE = 5
"""Cells of the least loss whose probabilities are averaged."""


class Cell(NamedTuple):
    """One size and crop on one fold."""

    name: str
    work: int
    """In proportion to the multiply-adds."""
    losses: npt.NDArray[np.float64]
    """Of the training pictures, each by a head that was not solved on it."""
    shares: npt.NDArray[np.float64]
    """Probabilities of the test pictures, by the head solved on all training pictures."""


def cells_of(features: Path, file: Path) -> tuple[list[Cell], npt.NDArray[np.int64]]:
    """Return every cell of a fold, and the labels of its test pictures."""
    rows = read_fold(file)
    names = sorted({row.label for row in rows})
    labels = np.array([names.index(row.label) for row in rows], dtype=np.int64)
    is_test = np.array([row.split == "test" for row in rows])
    known, found = torch.from_numpy(labels[~is_test]), []
    for size in SIZES:
        for crop in CROP_RATIOS:
            made = torch.from_numpy(kept_features(features, [row.path for row in rows], size, crop)[0])
            held = cross_validate(made[~is_test], known, len(names))
            head = solve_head(made[~is_test], known, len(names), held.decay)
            shares = head.logits(made[is_test]).softmax(1).numpy()
            found.append(Cell(f"{size} px, crop {crop:g}", size**2, held.tempered_losses(), shares))
    return found, labels[is_test]


def main() -> None:
    """Print the accuracy of every rule and of every single cell over all folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    asked = parser.parse_args()
    right: dict[str, list[npt.NDArray[np.bool_]]] = defaultdict(list)
    for file in fold_files(asked.folds).values():
        cells, labels = cells_of(asked.features, file)
        best, cheapest = one_error_rule(np.stack([cell.losses for cell in cells]), [cell.work for cell in cells])
        ranked = sorted(cells, key=lambda cell: float(cell.losses.mean()))
        said = {cell.name: cell.shares for cell in cells}
        said["the least loss"] = cells[best].shares
        said["the cheapest within one standard error"] = cells[cheapest].shares
        said[f"the mean of the best {ENSEMBLE}"] = np.mean([cell.shares for cell in ranked[:ENSEMBLE]], axis=0)
        for name, shares in said.items():
            right[name].append(shares.argmax(1) == labels)
    for name, parts in right.items():
        every = np.concatenate(parts)
        print(f"{name}: {100 * every.mean():.2f} % of {len(every)}")


if __name__ == "__main__":
    main()
