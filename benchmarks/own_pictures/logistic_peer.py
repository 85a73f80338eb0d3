"""What else could be typed (b): scikit-learn's logistic regression on frozen features.

    python -m benchmarks.own_pictures.logistic_peer --folds runs/own/elpv/folds --out runs/own/elpv/answers

Size, crop ratio and C are chosen by cross-validated accuracy on the training pictures of each fold; of equal ones the
cheapest. The trunk is frozen and sees no label, so the features of a size and crop are made once for all folds.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from benchmarks.own_pictures.answers import Answers, answers_file, write_answers
from benchmarks.own_pictures.folds import Row, fold_files, read_fold
from benchmarks.own_pictures.timm_peer import NETWORK, WEIGHTS, WORKERS, Pictures, pretrained, test_view

ARM = "logistic regression"
SIZES, CROP_RATIOS = (96, 128, 160, 192, 224), (0.875, 1.0)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of C: how weakly the standardised features are pulled towards zero."""
INNER_FOLDS = 5
Floats = npt.NDArray[np.float32]


class Cell(NamedTuple):
    """One choice of size and crop ratio, with its cross-validated accuracy."""

    size: int
    crop_ratio: float
    accuracy: float
    strength: float
    classifier: Any


@torch.inference_mode()
def features(rows: Sequence[Row], size: int, crop_ratio: float) -> Floats:
    """Return the pooled features of every row, `[N, D]`."""
    model = pretrained(1).eval()
    loader = DataLoader(Pictures(rows, [""], test_view(model, size, crop_ratio)), 64, num_workers=WORKERS)
    made = [model.forward_head(model.forward_features(images), pre_logits=True) for images, _ in loader]
    return torch.cat(made).numpy()


def kept_features(folder: Path, paths: Sequence[str], size: int, crop_ratio: float) -> tuple[Floats, float]:
    """Return the features of the pictures, and the seconds they took when they were made."""
    digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    file = folder / f"{digest}-{size}-{crop_ratio}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        made = features([Row(path, "", "") for path in paths], size, crop_ratio)
        np.savez(file.with_suffix(".part.npz"), features=made, seconds=time.monotonic() - begun)
        file.with_suffix(".part.npz").rename(file)
    with np.load(file) as arrays:
        return arrays["features"], float(arrays["seconds"])


def cross_validated(train: Floats, labels: Sequence[str], size: int, crop_ratio: float) -> Cell:
    """Return the best C of one size and crop, its accuracy, and the classifier it gives on all training pictures."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        {"logisticregression__C": list(STRENGTHS)},
        cv=StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(train, labels)
    strength = search.best_params_["logisticregression__C"]
    return Cell(size, crop_ratio, float(search.best_score_), strength, search.best_estimator_)


def main() -> None:
    """Choose and test on every fold that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True, help="folder that folds.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="others only to try the script")
    asked = parser.parse_args()
    for fold, file in fold_files(asked.folds, asked.fold).items():
        if answers_file(asked.out, ARM, fold).exists():
            continue
        rows = read_fold(file)
        labels = np.array([row.label for row in rows])
        is_test = np.array([row.split == "test" for row in rows])
        begun, spent, cells, tested = time.monotonic(), 0.0, [], []
        for size in asked.sizes:
            for crop_ratio in CROP_RATIOS:
                before = time.monotonic()
                made, seconds = kept_features(asked.out / "features", [row.path for row in rows], size, crop_ratio)
                # Read back or made just now, they count with what they took.
                spent += seconds - (time.monotonic() - before)
                cells.append(cross_validated(made[~is_test], labels[~is_test], size, crop_ratio))
                tested.append(made[is_test])
        chosen = max(range(len(cells)), key=lambda place: (cells[place].accuracy, -place))
        said = cells[chosen].classifier.predict(tested[chosen]).tolist()
        seconds = time.monotonic() - begun + spent
        paths = [row.path for row in rows if row.split == "test"]
        details = {
            "network": NETWORK,
            "weights": WEIGHTS,
            "size": cells[chosen].size,
            "crop_ratio": cells[chosen].crop_ratio,
            "C": cells[chosen].strength,
            "cross_validated": {f"{c.size} px, crop {c.crop_ratio}": 100 * c.accuracy for c in cells},
        }
        answers = Answers(
            ARM,
            "logistic",
            fold,
            dict(zip(paths, labels[is_test].tolist(), strict=True)),
            dict(zip(paths, said, strict=True)),
            seconds,
            details,
        )
        write_answers(asked.out, answers)
        right = sum(answers.labels[path] == answer for path, answer in answers.predictions.items())
        print(f"{ARM}, fold {fold}: {100 * right / len(paths):.2f} % of {len(paths)}, {seconds:.0f} s; {details}")


if __name__ == "__main__":
    main()
