"""What is left of a fix elsewhere, and what mixing it with the network before gives: ELPV, and ELPV seen from nearer.

    python -m benchmarks.resolution.mixes runs/resolution/runs/crops_*_seed-0 --out runs/resolution/mixes

For the runs of `measure.py`. The second collection is the middle of every picture, two thirds of each side: objects are
half as large again, as on pictures of another source. `fixres fix --mix auto --also` chooses the share on the fold's
selecting pictures and their middles; its test pictures and their middles, which nothing was chosen on, report.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import fixres
from benchmarks.own_pictures.folds import Row, read_fold
from benchmarks.resolution.measure import LARGE, SMALL, write_table
from benchmarks.resolution.table import interval

PART = 2 / 3
"""Of each side, that is left of a picture seen from nearer."""
Floats = npt.NDArray[np.float64]
Measured = dict[str, Floats]


def nearer(rows: Sequence[Row], folder: Path, split: str) -> list[Row]:
    """Return the middles of a split's pictures, each written once."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for row in (row for row in rows if row.split == split):
        path = folder / f"{Path(row.path).stem}.png"
        if not path.exists():
            with Image.open(row.path) as opened:
                width, height = opened.size
                left, top = (round(side * (1 - PART) / 2) for side in (width, height))
                opened.crop((left, top, width - left, height - top)).save(path)
        made.append(row._replace(path=str(path)))
    return made


def measured(network: str, uri: str, size: int) -> Measured:
    """Return loss and right of every test picture, in the order of their paths."""
    found = fixres.evaluate(network, uri, split="test", sizes=(size,))
    order = np.argsort(found.paths)
    right = found.predictions[0] == found.labels
    # Two classes: what is not the predicted one's is the other's.
    assert found.num_classes == 2
    shares = np.where(right, found.probabilities[0], 1 - found.probabilities[0])
    return {"loss": -np.log(np.maximum(shares, 1e-12))[order], "right": 100.0 * right[order]}


def measure(run: Path, out: Path) -> dict[str, Mapping[str, Measured]]:
    """Return what every network gives on the fold's test pictures and on their middles."""
    fold = run.name.split("_")[1]
    table = run.parents[1] / f"{fold}.csv"
    rows = read_fold(table)
    near = {split: nearer(rows, out / "nearer", split) for split in ("val", "test")}
    choosing = write_table(out / f"nearer-select-{fold}.csv", near["val"])
    places = {"own": f"csv:{table}", "nearer": write_table(out / f"nearer-{fold}.csv", near["test"])}
    mixed = out / run.name
    if not (mixed / "model").exists():
        asked = {"solver": "cached", "moves": "head+stats", "mix": "auto", "mix_also": (choosing,)}
        fixres.fix(str(run / "train"), LARGE, mixed, **asked)
    networks = {
        f"as trained, {SMALL} px": (run / "train", SMALL),
        f"as trained, {LARGE} px": (run / "train", LARGE),
        f"fixed, {LARGE} px": (run / "fixed", LARGE),
        f"mixed, {LARGE} px": (mixed, LARGE),
    }
    return {
        name: {place: measured(str(network), uri, size) for place, uri in places.items()}
        for name, (network, size) in networks.items()
    }


def joined(folds: Sequence[Mapping[str, Mapping[str, Measured]]], name: str, place: str, what: str) -> Floats:
    """Return one figure of every test picture, all folds in a row."""
    return np.concatenate([fold[name][place][what] for fold in folds])


def main() -> None:
    """Mix every fold's fix and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    out = asked.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    folds = [measure(run.absolute(), out) for run in asked.runs]
    rng = np.random.default_rng(0)
    print("| network | own: top-1, % | loss | minus fixed (95 %) | nearer: top-1, % | loss | minus fixed (95 %) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in folds[0]:
        cells = [name]
        for place in ("own", "nearer"):
            right, loss = (joined(folds, name, place, what) for what in ("right", "loss"))
            mean, low, high = interval(loss - joined(folds, f"fixed, {LARGE} px", place, "loss"), rng)
            cells += [f"{right.mean():.2f}", f"{loss.mean():.4f}", f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"]
        print("| " + " | ".join(cells) + " |")
    print(f"\nn = {len(joined(folds, name, 'own', 'loss')):,} in {len(folds)} folds; loss in nats")


if __name__ == "__main__":
    main()
