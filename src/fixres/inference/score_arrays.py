"""Accuracy, loss and calibration from arrays alone, without PyTorch: what `extract` wrote, or somebody else's files.

A folder holds `labels.npy` int64 [N] and `softmax.npy` float32 [N, C], or files named as FixRes published them:
`NAME_softmax.npy`, `NAME_softmax_v2.npy`, with `NAME_embedding.npy` and `NAME_embedding_v2.npy` beside them.

The definitions are those of an evaluation: the table of `evaluation/metrics.py`. Where `extract` left
`outcomes.npy`, its float64 losses and ranks are counted, and the result is that of `eval`; else both are taken from
the float32 probabilities.

What embeddings know by themselves, nearest neighbours and a linear classifier, comes from scikit-learn.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fixres.errors import UserError, counted, require_extra
from fixres.evaluation.metrics import Outcomes, imbalance, result_fields, wilson_interval, without_confusion
from fixres.io.array_store import load_array

_PIECE = 4096
_PROBED = 1024
"""Rows counted, and rows a probe answers, at a time."""
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
_SOFTMAX = re.compile(r"(?:(?P<name>.+)_)?softmax(?P<variant>_v\d+)?\.npy")
_NAMES = "softmax.npy, NAME_softmax.npy or NAME_softmax_v2.npy"

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Arrays:
    """The arrays of one network on one list of pictures, mapped into memory."""

    name: str
    """What stands before _softmax, the architecture of a published file; empty for softmax.npy."""
    variant: str
    """v1 or v2 of a published file."""
    softmax: np.ndarray | None
    """float32 `[N, C]`; None for features alone."""
    labels: Integers
    """int64 `[N]`."""
    outcomes: np.ndarray | None
    """What `extract` noted of every picture, None without."""
    embedding: np.ndarray | None
    """float32 `[N, D]`, None without."""
    details: dict[str, Any] = field(default_factory=dict)
    """extract.json."""

    def title(self) -> str:
        """Return the name for people."""
        return f"{self.name} {self.variant}".strip() or str(self.details.get("model", "softmax"))

    def probabilities(self) -> np.ndarray:
        """Return float32 `[N, C]`.

        Raises:
            UserError: there are features alone, which answer no question by themselves.
        """
        if self.softmax is None:
            raise UserError(
                f"there is no softmax.npy, so no top-1: {self.details['why_no_softmax']}\n"
                "  --train FOLDER_OF_TRAIN with --linear-probe or --neighbours 5 measures what the embeddings know"
            )
        return self.softmax


def open_arrays(folder: Path, name: str | None = None, variant: str | None = None) -> list[Arrays]:
    """Return the arrays of a folder, one entry per softmax file.

    Args:
        folder: where `extract` wrote to, or where published files lie.
        name: only this one of several, `ResNet50` of `ResNet50_softmax.npy`.
        variant: only v1 or v2 of published files.

    Raises:
        UserError: there are none, they do not fit together, or `extract` has not finished.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder\n  fixres extract CKPT --data URI --out {folder}")
    details = _record(folder)
    found = [
        (match["name"] or "", (match["variant"] or "_v1")[1:] if match["name"] else "", path)
        for path in sorted(folder.glob("*.npy"))
        if (match := _SOFTMAX.fullmatch(path.name))
    ]
    if details.get("why_no_softmax") and not name and not variant:
        labels, embedding = _labels(folder, "embedding.npy"), _load(folder / "embedding.npy")
        return [Arrays("", "", None, labels, None, embedding, details)]
    wanted = [entry for entry in found if name in (None, entry[0]) and variant in (None, entry[1])]
    if not wanted:
        there = ", ".join(path.name for *_, path in found) or "none"
        asked = " ".join(word for word in (name, variant) if word)
        raise UserError(
            f"no softmax file{' of ' + asked if asked else ''} in {folder}\n  read are {_NAMES}; there: {there}"
        )
    labels = _labels(folder, wanted[0][2].name)
    return [_arrays(path, own, version, labels, details) for own, version, path in wanted]


def _labels(folder: Path, of: str) -> Integers:
    file = folder / "labels.npy"
    if not file.exists():
        raise UserError(f"{folder} has no labels.npy\n  int64 [N], one label per row of {of}")
    labels = _load(file)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{file} is {labels.dtype} {list(labels.shape)}\n  allowed: integers [N]")
    return labels.astype(np.int64)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "extract.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} cannot be read\n  extract again into another folder") from None
    if record.get("state") != "done":
        raise UserError(
            f"{folder} is not finished\n  the command that began it goes on: fixres extract ... --out {folder}"
        )
    return dict(record)


def _arrays(path: Path, name: str, variant: str, labels: Integers, details: dict[str, Any]) -> Arrays:
    softmax = _load(path)
    if softmax.ndim != 2 or softmax.dtype.kind != "f" or softmax.shape[1] < 2:
        raise UserError(f"{path} is {softmax.dtype} {list(softmax.shape)}\n  allowed: float32 [N, C]")
    if len(softmax) != len(labels) or not len(labels):
        raise UserError(
            f"{path} has {counted(len(softmax), 'row')}, labels.npy {len(labels):,}\n  they must be as many"
        )
    if labels.min() < 0 or labels.max() >= softmax.shape[1]:
        raise UserError(
            f"{path.parent / 'labels.npy'} holds labels {labels.min()} to {labels.max()}, {path.name} "
            f"{softmax.shape[1]} columns\n  a label is the number of a column"
        )
    outcomes = path.parent / "outcomes.npy"
    embedding = path.with_name(path.name.replace("softmax", "embedding"))
    return Arrays(
        name,
        variant,
        softmax,
        labels,
        _load(outcomes) if outcomes.exists() and not name else None,
        _load(embedding) if embedding.exists() else None,
        details,
    )


def _load(path: Path) -> np.ndarray:
    try:
        return load_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a NumPy array ({str(error).splitlines()[0]})") from None


def score(arrays: Arrays) -> dict[str, Any]:
    """Return the fields of a result of `eval --json`; accuracies in percent, loss in nats, ECE in [0, 1].

    `source` says what was counted: `outcomes` repeats the evaluation, `softmax` has float32's seven digits.

    Raises:
        UserError: rows that are no probabilities, or none at all.
    """
    n, num_classes = arrays.probabilities().shape
    noted = arrays.outcomes if arrays.outcomes is not None and _fits(arrays, arrays.outcomes) else None
    if noted is not None:
        parts = [np.array(noted[name]) for name in ("prediction", "rank", "confidence", "loss")]
    else:
        pieces = [_from_softmax(arrays, first) for first in range(0, n, _PIECE)]
        parts = [np.concatenate(columns) for columns in zip(*pieces, strict=True)]
    predictions, ranks, confidences, losses = parts
    outcomes = Outcomes(arrays.labels, predictions, ranks, confidences, losses, num_classes)
    return {
        "name": arrays.title(),
        "num_images": n,
        "num_classes": num_classes,
        "imbalance": round(imbalance(np.bincount(arrays.labels)), 3),
        "size": arrays.details.get("preprocess", {}).get("size"),
        **without_confusion(result_fields(outcomes, None if noted is None else int(noted["near_tie"].sum()))),
        "source": "softmax" if noted is None else "outcomes",
    }


def _fits(arrays: Arrays, outcomes: np.ndarray) -> bool:
    """Return whether the outcomes are of these probabilities: somebody may have averaged several networks since."""
    softmax = arrays.probabilities()
    if len(outcomes) != len(softmax) or outcomes.dtype.names is None:
        return False
    for first in range(0, len(outcomes), _PIECE):
        rows, probability = outcomes[first : first + _PIECE], softmax[first : first + _PIECE]
        of_prediction = probability[np.arange(len(rows)), rows["prediction"]]
        if not np.allclose(of_prediction, rows["confidence"], rtol=1e-6, atol=0):
            return False
        of_label = probability[np.arange(len(rows)), arrays.labels[first : first + _PIECE]]
        if not np.allclose(of_label, np.exp(-rows["loss"]), rtol=1e-6, atol=1e-37):
            return False
    return True


def _from_softmax(arrays: Arrays, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions, ranks, confidences and losses of some rows."""
    probability = np.asarray(arrays.probabilities()[first : first + _PIECE], dtype=np.float64)
    total = probability.sum(1)
    wrong = ~((probability >= 0).all(1) & (np.abs(total - 1) < 1e-2))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"row {first + row} of the softmax of {arrays.title()} is no list of probabilities: it adds up to "
            f"{total[row]:.4g}\n  give probabilities, not logits"
        )
    labels = arrays.labels[first : first + _PIECE]
    of_label = probability[np.arange(len(labels)), labels][:, None]
    # Equal probabilities: the lower class wins, as in an evaluation.
    before = (probability > of_label) | (
        (probability == of_label) & (np.arange(probability.shape[1]) < labels[:, None])
    )
    # Normalised, since float32 rows do not add up to 1 exactly; a probability of 0 counts as the least float32.
    losses = np.log(total) - np.log(of_label[:, 0].clip(_SMALLEST))
    return probability.argmax(1), before.sum(1), probability.max(1) / total, losses


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
    predicted = [model.predict(_unit(asked[first : first + _PROBED])) for first in range(0, len(asked), _PROBED)]
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
    predicted = [model.predict(np.asarray(asked[f : f + _PROBED], np.float64)) for f in range(0, len(asked), _PROBED)]
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
