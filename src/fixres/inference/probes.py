"""What embeddings know by themselves: nearest neighbours and a linear classifier, from scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from fixres.errors import UserError, require_extra
from fixres.evaluation.metrics import wilson_interval
from fixres.inference.score_arrays import Arrays

_PIECE = 1024


def neighbours(train: Arrays, test: Arrays, count: int) -> dict[str, Any]:
    """Return the accuracy of the vote of the `count` nearest training embeddings by cosine, each with equal weight.

    Equal votes: the lower class wins.

    Raises:
        UserError: the arrays lack embeddings or do not belong together, or there are fewer than `count` rows.
    """
    known, asked = _embeddings(train, test)
    if count > len(known):
        raise UserError(f"--neighbours {count}: {len(known):,} training rows\n  at most {len(known)}")
    try:
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError:
        raise require_extra("scikit-learn", "stats") from None
    # On unit vectors the order by Euclidean distance is that by cosine.
    model = KNeighborsClassifier(count, algorithm="brute").fit(_unit(known), train.labels)
    predicted = [model.predict(_unit(asked[first : first + _PIECE])) for first in range(0, len(asked), _PIECE)]
    return {"neighbours": count, **_accuracy(np.concatenate(predicted), test), "num_train": len(known)}


def linear_probe(train: Arrays, test: Arrays, strength: float = 1.0) -> dict[str, Any]:
    """Return the accuracy of logistic regression on standardised embeddings, L2 penalty 1 / `strength`, by L-BFGS.

    Raises:
        UserError: the arrays lack embeddings or do not belong together, or there is one class only.
    """
    known, asked = _embeddings(train, test)
    if len(np.unique(train.labels)) < 2:
        raise UserError("a linear probe needs at least two classes in --train")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise require_extra("scikit-learn", "stats") from None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    model.fit(np.asarray(known, dtype=np.float64), train.labels)
    steps = int(np.max(model[-1].n_iter_))
    predicted = [model.predict(np.asarray(asked[f : f + _PIECE], np.float64)) for f in range(0, len(asked), _PIECE)]
    return {**_accuracy(np.concatenate(predicted), test), "num_train": len(known), "has_converged": steps < 1000}


def _embeddings(train: Arrays, test: Arrays) -> tuple[np.ndarray, np.ndarray]:
    for arrays, where in ((train, "--train"), (test, "the folder to score")):
        if arrays.embedding is None or len(arrays.embedding) != len(arrays.labels):
            raise UserError(f"{where} has no embedding.npy with a row per label")
    assert train.embedding is not None
    assert test.embedding is not None
    if train.embedding.shape[1:] != test.embedding.shape[1:]:
        raise UserError(
            f"embeddings have {test.embedding.shape[1]} columns, those of --train {train.embedding.shape[1]}\n"
            "  extract both with one network"
        )
    for key, what in (("classes", "classes"), ("network", "network or size")):
        if train.details.get(key) != test.details.get(key):
            raise UserError(
                f"--train was extracted with another {what}\n  extract both with one checkpoint at one size"
            )
    return train.embedding, test.embedding


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _accuracy(predicted: np.ndarray, test: Arrays) -> dict[str, Any]:
    num_correct = int((predicted == test.labels).sum())
    n = len(test.labels)
    return {"top1": 100 * num_correct / n, "top1_ci95": wilson_interval(num_correct, n)}
