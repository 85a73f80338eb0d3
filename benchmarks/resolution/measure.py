"""What a larger size gives beside a head solved again: every arm on every picture, each tested once.

    python -m benchmarks.own_pictures.folds elpv: --out runs/resolution/folds
    python -m benchmarks.resolution.measure --folds runs/resolution/folds --out runs/resolution

Each fold's table is divided anew: one fifth of all pictures tests, one fifth selects the strength of a head's pull and
nothing else, three fifths train. Every seed of a fold has two trainings at 64 px: with random crops of 8 to 100 % of
the area, after which objects look larger than in testing, and with the whole picture resized, after which they do not.
From each trained network:

    none 64, none 96    the network as it is
    head 64             the head solved again, on test views
    head+stats 64       and the statistics of the last norm; the control of every larger size
    ... train crops     the same on random training crops, by the SGD solver (10 epochs)
    fixed 96, fixed 128 head+stats at a larger size
    enlarged 96         head+stats at 96 px on pictures first reduced to 64 px: as large as at 96, with no more detail
    zoomed 64           head+stats at 64 px on the centre crop that shows objects as large as 96 px does

An arm's file holds loss and answer of every tested picture; what is there, or in the file of `--answers`, is skipped.
Tables: `table.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.own_pictures.folds import Row, fold_files, read_fold
from benchmarks.resolution.table import read_arms
from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load, unfixed
from fixres.checkpoints.weights_file import with_feeding
from fixres.config.loading import load as load_recipe
from fixres.data.sampling import stratified_folds
from fixres.evaluation.measure import own_split
from fixres.io.csv_text import read_marked
from fixres.io.files import write_text
from fixres.training.comparison_table import PICTURES
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe

SMALL, LARGE, LARGEST = 64, 96, 128
TRAININGS = {"crops": "random", "resize": "resize"}
SEEDS = (0, 1)
SELECT_PART = 4
"""One in so many of a fold's training pictures selects: a fifth of all."""
SGD: dict[str, Any] = {"solver": "sgd", "epochs": 10, "lr": 1e-3, "weight_decay": 0.0}
SGD |= {"crop": "random", "crop_scale": (0.08, 1.0), "augment": "dihedral"}
"""Training crops for a head: what the cached solver, which sees test views, cannot give it."""
ROWS = {
    "train size": f"none {SMALL}",
    "larger size only": f"none {LARGE}",
    "fixed at the train size": f"head+stats {SMALL}",
    f"fixed at {LARGEST} px": f"fixed {LARGEST}",
    "fixed": f"fixed {LARGE}",
}
"""Rows of the comparison of the fix at 96 px, which has a head for 64 and 128 px too."""


def divided(rows: Sequence[Row]) -> list[Row]:
    """Return a fold's rows with a quarter of its training pictures as `val`, stratified."""
    train = [place for place, row in enumerate(rows) if row.split == "train"]
    names = sorted({row.label for row in rows})
    labels = np.array([names.index(rows[place].label) for place in train])
    parts = stratified_folds(labels, SELECT_PART, 0)
    select = {place for place, part in zip(train, parts.tolist(), strict=True) if part == 0}
    return [row._replace(split="val") if place in select else row for place, row in enumerate(rows)]


def reduced(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Return the rows with their pictures reduced to 64 px and enlarged to 96 again, written once."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, row in enumerate(sorted(rows, key=lambda row: row.path)):
        path = folder / f"{number:05}.png"
        if not path.exists():
            with Image.open(row.path) as opened:
                picture = opened.convert("RGB")
            small = picture.resize((SMALL, SMALL), Image.Resampling.BICUBIC)
            small.resize((LARGE, LARGE), Image.Resampling.BICUBIC).save(path)
        made.append(row._replace(path=str(path)))
    order = {row.path: place for place, row in enumerate(sorted(rows, key=lambda row: row.path))}
    return [made[order[row.path]] for row in rows]


def write_table(file: Path, rows: Sequence[Row]) -> str:
    """Write a table of pictures and return its data URI."""
    lines = [["path", "label", "split"], *([row.path, row.label, row.split] for row in rows)]
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(lines)
    return f"csv:{file}"


def trained(uri: str, training: str, seed: int, out: Path) -> Path:
    """Train at 64 px as the demo does, keep the last weights, and return the run."""
    changes = {
        "data": {"uri": uri},
        "seed": seed,
        "augment": {"crop": TRAININGS[training]},
        "train": {"size": SMALL},
        "fix": {"enabled": False},
        "evaluation": {"keep": "last", "sizes": ()},
        "output": {"tracker": "none"},
    }
    run_recipe(load_recipe("elpv-demo", changes, require_data=True), out, resume=out.exists())
    return out


def fixed(product: Product, uri: str, out: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Fix a network and return loss and right of every tested picture, by row of its comparison."""
    recipe = fix_recipe(product, uri, {"solver": "cached", "moves": "head+stats", **settings}, 0)
    run_recipe(recipe, out, resume=out.exists(), split_from=own_split(product, uri))
    with (out / PICTURES).open(encoding="utf-8", newline="") as lines:
        rows = sorted(read_marked(lines), key=lambda row: row["path"])
    labels = [name.removesuffix(" loss") for name in rows[0] if name.endswith(" loss")]
    return {
        label: {
            "path": [row["path"] for row in rows],
            "loss": [float(row[f"{label} loss"]) for row in rows],
            "right": [int(row[label] == row["label"]) for row in rows],
        }
        for label in labels
    }


def keep(out: Path, arm: str, where: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write an arm's account of the tested pictures."""
    name = f"{arm.replace(' ', '-')}_{where['training']}_fold-{where['fold']}_seed-{where['seed']}.json"
    write_text(out / "arms" / name, json.dumps({"arm": arm, **where, "loss": found["loss"], "right": found["right"]}))


def measure(uri: str, small_uri: str, where: Mapping[str, Any], out: Path) -> None:
    """Measure every arm of one training, unless it was."""
    name = f"{where['training']}_fold-{where['fold']}_seed-{where['seed']}"
    done = out / "arms" / f"zoomed-{SMALL}_{name}.json"
    if done.exists():
        return
    runs = out / "runs" / name
    product = unfixed(load(str(trained(uri, where["training"], where["seed"], runs / "train"))))
    found = fixed(product, uri, runs / "fixed", {"size": LARGE, "head_sizes": (SMALL, LARGEST)})
    for row, arm in ROWS.items():
        keep(out, arm, where, found[row])
    for arm, settings in (
        (f"head {SMALL}", {"moves": "head"}),
        (f"head {SMALL} train crops", {"moves": "head", **SGD}),
        (f"head+stats {SMALL} train crops", SGD),
    ):
        own = fixed(product, uri, runs / arm.replace(" ", "-"), {"size": SMALL, **settings})
        keep(out, arm, where, own["fixed"])
    enlarged = fixed(product, small_uri, runs / "enlarged", {"size": LARGE})
    keep(out, f"enlarged {LARGE}", where, enlarged["fixed"])
    zoomed = with_feeding(product, crop_ratio=product.preprocess.crop_ratio * SMALL / LARGE)
    keep(out, f"zoomed {SMALL}", where, fixed(zoomed, uri, runs / "zoomed", {"size": SMALL})["fixed"])


def main() -> None:
    """Measure every fold, seed and training that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True, help="folder that benchmarks.own_pictures.folds wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, nargs="+")
    parser.add_argument("--answers", type=Path, help="answers.jsonl: trainings whose arms are there are left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    out = asked.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    known = read_arms(asked.answers)[f"zoomed {SMALL}"] if asked.answers else {}
    # One seed of every fold first: the page can be written from it.
    for seed in asked.seeds:
        for fold, file in fold_files(asked.folds, asked.fold).items():
            rows = divided(read_fold(file))
            uri = write_table(out / f"fold-{fold}.csv", rows)
            small_uri = write_table(out / f"reduced-{fold}.csv", reduced(rows, out / "reduced"))
            for training in (name for name in TRAININGS if (name, fold, seed) not in known):
                measure(uri, small_uri, {"training": training, "fold": fold, "seed": seed}, out)
                print(f"{training}, fold {fold}, seed {seed}: done", flush=True)


if __name__ == "__main__":
    main()
