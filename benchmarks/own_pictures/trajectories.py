"""Trainings of which every epoch's logits are kept: what the study of selection rules chooses from.

    python -m benchmarks.own_pictures.trajectories --out runs/selection

Each recipe and seed trains EfficientNet-Lite0 on 1,000 stratified ELPV pictures and writes RECIPE-SEED.npz: logits
float32 `[E, 1624, 2]` of the pictures it never saw, one row per epoch, and their labels. What is there is skipped, and
a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fixres
from fixres.checkpoints.resolve import load
from fixres.config.recipe import Data
from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.data.collections import open_splits
from fixres.data.splits import Split, carve
from fixres.errors import EXIT_STOPPED, Stopped
from fixres.evaluation.evaluate import Reading, evaluate, network_views
from fixres.runtime.device import Runtime

EPOCHS = 12
NUM_TRAIN = 1000
BATCH = 32
NETWORK = "tf_efficientnet_lite0"
RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {"optim": {"name": "adamw", "lr": 3e-4}},
    "sgd": {"optim": {"name": "sgd", "lr": 0.01}},
    # A rate that never falls leaves epochs that differ: the last one is not the best one by construction.
    "constant": {"optim": {"name": "adamw", "lr": 1e-3}, "schedule": {"name": "constant"}},
}
"""Recipes by name: what differs from the common one in `train`."""


def divide(seed: int) -> dict[str, Split]:
    """Return ELPV as `train` (1,000 pictures) and `val` (the rest), stratified by class and type of cell."""
    whole = open_splits(Data(uri="elpv:"))[1]["all"]
    share = NUM_TRAIN / len(whole)
    return carve(whole, {"val": 1 - share, "train": share}, seed, None)


def train(recipe: str, seed: int, out: Path) -> Path:
    """Train one recipe with one seed and return the run folder, whose checkpoints hold every epoch."""
    table, run = out / f"{recipe}-{seed}.csv", out / f"{recipe}-{seed}"
    if (run / "model" / "config.json").exists():
        return run
    parts = divide(seed)
    rows = [
        f"{split.source.root / path},{split.classes[label]},{name}"
        for name, split in parts.items()
        for path, label in zip(split.paths, split.labels.tolist(), strict=True)
    ]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")
    fixres.train(
        None,
        run,
        resume=True,
        seed=seed,
        data={"uri": f"csv:{table}", "holdout": 0.0, "workers": 0},
        model={"name": NETWORK, "weights": "package:efficientnet-lite0"},
        train={"size": 64, "epochs": EPOCHS, "batch_size": BATCH},
        augment={"crop_scale": (0.35, 1.0), "label_smoothing": 0.1},
        # Measured here afterwards, all epochs at once.
        evaluation={"crop_ratio": 1.0, "every_epochs": EPOCHS, "keep": "last"},
        # A run that was stopped leaves one more at each stop.
        output={"tracker": "none", "keep_newest": 10 * EPOCHS},
        runtime={"threads": 1},
        **RECIPES[recipe],
    )
    return run


def measure(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of every epoch on the pictures that were not trained on, `[E, N, C]`, and their labels."""
    product = fixres.load(run)
    split = kept_back(run)
    files = [run / "checkpoints" / f"step-1-{epoch * (NUM_TRAIN // BATCH)}.pt" for epoch in range(1, EPOCHS + 1)]
    networks = [load(file, "raw", NETWORK).model for file in files]
    views = [view for network in networks for view in network_views(network, [product.preprocess])]
    found = evaluate(views, split, Runtime(RuntimeSettings(threads=1)), Reading(64, 0), keep_logits=True)
    assert found.logits is not None
    return np.stack([np.asarray(logits, dtype=np.float32) for logits in found.logits]), found.labels


def kept_back(run: Path) -> Split:
    """Return the pictures that the run did not train on."""
    return open_splits(Data(uri=f"csv:{run}.csv"))[1]["val"]


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for recipe in asked.recipes:
        for seed in asked.seeds:
            file = asked.out / f"{recipe}-{seed}.npz"
            if file.exists():
                continue
            try:
                run = train(recipe, seed, asked.out)
            except Stopped:
                sys.exit(EXIT_STOPPED)
            logits, labels = measure(run)
            np.savez(file.with_suffix(".part.npz"), logits=logits, labels=labels)
            file.with_suffix(".part.npz").rename(file)
            shutil.rmtree(run)


if __name__ == "__main__":
    main()
