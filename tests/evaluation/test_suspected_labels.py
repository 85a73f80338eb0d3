"""Labels in doubt: those that were changed are found, a hard class is not blamed, and few are named without reason."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fixres.evaluation.suspected_labels import suspected_labels


def table(num: int, sure: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities `[N, 4]` and the labels they were made for."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, num)
    logits = rng.normal(size=(num, 4)) + sure * np.eye(4)[labels]
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True), labels


def test_changed_labels_come_first() -> None:
    probabilities, labels = table(2_000, 9.0)
    changed = np.arange(0, 2_000, 100)
    given_labels = labels.copy()
    given_labels[changed] = (labels[changed] + 1) % 4
    found = suspected_labels(probabilities, given_labels)
    assert set(found.places[:20].tolist()) == set(changed.tolist())
    assert (found.others[:20] == labels[found.places[:20]]).all()


def test_a_class_that_is_hard_is_not_blamed_for_it() -> None:
    # Of class 1 the network is never surer than 0.4, for its own pictures; class 0 takes the rest.
    labels = np.repeat([0, 1], 500)
    own = np.random.default_rng(0).uniform([[0.9]] * 500 + [[0.3]] * 500, [[0.99]] * 500 + [[0.4]] * 500)[:, 0]
    probabilities = np.stack([np.where(labels == 0, own, 1 - own), np.where(labels == 1, own, 1 - own)], 1)
    assert len(suspected_labels(probabilities, labels).places) == 0


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_label_is_never_in_doubt_for_itself_or_for_a_class_without_pictures(num: int, seed: int) -> None:
    probabilities, labels = table(num, 1.0, seed)
    labels = np.where(labels == 3, 0, labels)
    found = suspected_labels(probabilities, labels)
    assert (found.others != labels[found.places]).all()
    assert (found.others != 3).all()
    assert len(set(found.places.tolist())) == len(found.places)
    rows = np.arange(len(found.places))
    margins = probabilities[found.places, labels[found.places]] - probabilities[found.places][rows, found.others]
    assert (np.diff(margins) >= 0).all()
