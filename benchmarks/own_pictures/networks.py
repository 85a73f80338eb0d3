"""Was the probe's choice right afterwards: every network, size and crop, cross-validated and tested on every fold.

    python -m benchmarks.own_pictures.networks --folds runs/own/stamps/folds --out runs/own/networks
    python -m benchmarks.own_pictures.networks ... --answers runs/own/stamps/answers

Heads are solved on all training pictures of a fold. With `--answers`, what `ours.py` chose in its minutes is set beside
the least cross-validated loss of all cells and the cell that is best on the *test* pictures, which nobody can know.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.own_pictures.folds import fold_files, read_fold
from fixres.checkpoints.resolve import load
from fixres.checkpoints.weights_file import with_feeding
from fixres.inference.extract import extract
from fixres.inference.requests import ExtractRequest
from fixres.training.cached_solver.cross_validation import cross_validate, solve_head
from fixres.training.probe_cells import CROP_RATIOS, SIZES

NETWORKS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


class Cell(NamedTuple):
    """A network at one size and crop."""

    network: str
    size: int
    crop: float

    def __str__(self) -> str:
        return f"{self.network} at {self.size} px, crop {self.crop:g}"


def features(cell: Cell, paths: list[str], out: Path) -> torch.Tensor:
    """Return the features `[N, D]` of the pictures, computed once."""
    digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    table = out / f"{digest}.csv"
    with table.open("w", encoding="utf-8", newline="") as opened:
        # A class of its own for half of them: the trunk sees no label.
        csv.writer(opened).writerows([["path", "label"], *([path, str(n % 2)] for n, path in enumerate(paths))])
    folder = out / f"{digest}-{cell.network}-{cell.size}-{cell.crop:g}"
    product = with_feeding(load(f"package:{cell.network}"), crop_ratio=cell.crop)
    extract(product, ExtractRequest(data=f"csv:{table}", split="all", size=cell.size), folder)
    with (folder / "index.csv").open(encoding="utf-8", newline="") as lines:
        if [row["path"] for row in csv.DictReader(lines)] != paths:
            raise SystemExit(f"{folder} holds other pictures, or in another order")
    return torch.from_numpy(np.load(folder / "embedding.npy"))


def right_and_loss(
    made: torch.Tensor, labels: npt.NDArray[np.int64], is_test: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which test pictures a cell is right about, and its cross-validated loss on the others."""
    known, num_classes = torch.from_numpy(labels[~is_test]), int(labels.max()) + 1
    held = cross_validate(made[~is_test], known, num_classes)
    head = solve_head(made[~is_test], known, num_classes, held.decay)
    said = head.logits(made[is_test]).argmax(1).numpy()
    return said == labels[is_test], float(held.tempered_losses().mean())


def chosen_in(answers: Path, minutes: str, fold: int) -> Cell | None:
    """Return the cell that `ours.py` chose on a fold; None where it was not run."""
    file = answers / "runs" / f"{minutes}-min-fold-{fold}" / "choices.json"
    if not file.exists():
        return None
    row = json.loads(file.read_text(encoding="utf-8"))["probe"]["chosen"]
    return Cell(row["network"].removeprefix("package:"), row["size"], row["crop_ratio"])


def main() -> None:
    """Measure every cell and print what each way of choosing would have been right about."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--fold", type=int, nargs="+")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    cells = [Cell(network, size, crop) for network in NETWORKS for size in SIZES for crop in CROP_RATIOS]
    right: dict[str, list[npt.NDArray[np.bool_]]] = defaultdict(list)
    for fold, file in fold_files(asked.folds, asked.fold).items():
        rows = sorted(read_fold(file), key=lambda row: row.path)
        names = sorted({row.label for row in rows})
        labels = np.array([names.index(row.label) for row in rows], dtype=np.int64)
        is_test = np.array([row.split == "test" for row in rows])
        paths = [row.path for row in rows]
        found = {cell: right_and_loss(features(cell, paths, asked.out), labels, is_test) for cell in cells}
        least, best = min(cells, key=lambda c: found[c][1]), max(cells, key=lambda c: found[c][0].sum())
        picks = {"the least loss of all": least, "the best on the test pictures": best}
        for minutes in ("1", "3", "6") if asked.answers else ():
            if pick := chosen_in(asked.answers, minutes, fold):
                picks[f"chosen in {minutes} min"] = pick
        for name, cell in picks.items():
            hits, loss = found[cell]
            print(f"fold {fold}, {name}: {cell}: loss {loss:.3f}, {100 * hits.mean():.2f} % of {len(hits)}", flush=True)
            right[name].append(hits)
        for cell in cells:
            right[str(cell)].append(found[cell][0])
    for name, parts in right.items():
        every = np.concatenate(parts)
        print(f"{name}: {100 * every.mean():.2f} % of {len(every)}")


if __name__ == "__main__":
    main()
