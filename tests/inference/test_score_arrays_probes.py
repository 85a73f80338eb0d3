"""Nearest neighbours and a linear classifier on embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from fixres.errors import UserError
from fixres.inference.score_arrays import Arrays, linear_probe, neighbours


def arrays(softmax: np.ndarray, labels: np.ndarray, embedding: np.ndarray | None = None) -> Arrays:
    return Arrays("", "", softmax.astype(np.float32), labels.astype(np.int64), None, embedding)


GOOD = np.full((4, 3), 1 / 3, dtype=np.float32)


def clusters(num: int, seed: int, spread: float) -> Arrays:
    generator = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(9).normal(size=(3, 8))
    labels = generator.integers(0, 3, num)
    embedding = (centres[labels] + spread * generator.normal(size=(num, 8))).astype(np.float32)
    return arrays(np.full((num, 3), 1 / 3), labels, embedding)


def test_neighbours_and_linear_probe() -> None:
    train, test = clusters(90, 0, 0.5), clusters(60, 1, 0.5)
    assert neighbours(train, test, 5)["top1"] == 100
    assert linear_probe(train, test)["top1"] == 100
    train, test = clusters(90, 0, 6), clusters(60, 1, 6)
    known, asked = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (train.embedding, test.embedding))
    nearest = np.argsort(-(asked @ known.T), axis=1)[:, :5]
    votes = np.array([np.bincount(train.labels[row], minlength=3).argmax() for row in nearest])
    assert neighbours(train, test, 5)["top1"] == pytest.approx(100 * (votes == test.labels).mean())
    with pytest.raises(UserError, match="at most 90"):
        neighbours(train, test, 91)
    with pytest.raises(UserError, match="no embedding"):
        neighbours(arrays(GOOD, np.zeros(4)), test, 1)
    with pytest.raises(UserError, match="at least two classes"):
        linear_probe(arrays(GOOD, np.zeros(4), np.zeros((4, 8), np.float32)), test)
    with pytest.raises(UserError, match="columns"):
        neighbours(arrays(GOOD, np.zeros(4), np.zeros((4, 5), np.float32)), test, 1)
