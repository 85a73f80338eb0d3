"""Each rule takes the epoch it says, and what it loses is counted on other pictures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.own_pictures.selection_rules import (
    FLOOR,
    RULES,
    Selection,
    cross_entropy,
    draws,
    interval,
    last_unless,
    regrets,
    select,
)

HITS = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=float)
"""Accuracies 3, 3, 2, 3, 2 of 4."""
LOSSES = np.array([[5.0], [3.0], [1.0], [2.0], [4.0]]) + np.zeros((5, 4))
CALIBRATED = np.array([[0.6, 0.4, 0.5, 0.5], [0.1] * 4, [0.2, 0.1, 0.05, 0.1], [0.5, 0.4, 0.3, 0.4], [0.3, 0, 0, 0.3]])


@pytest.mark.parametrize(
    ("rule", "epoch"),
    [
        ("last epoch", 4),
        ("accuracy, the first of equals", 0),
        ("accuracy, the last of equals", 3),
        ("accuracy, then loss", 3),
        ("accuracy over 3 epochs", 0),
        ("accuracy, earliest within 1 SE", 0),
        ("accuracy, latest within 1 SE", 4),
        ("loss", 2),
        ("loss over 3 epochs", 2),
        ("loss after temperature", 1),
        ("loss after temperature, earliest within 1 SE", 1),
        ("loss after temperature, latest within 1 SE", 4),
        ("last, unless loss after temperature is lower by 1 SE", 4),
    ],
)
def test_a_rule_takes_the_epoch_it_says(rule: str, epoch: int) -> None:
    assert RULES[rule](Selection(HITS, LOSSES, CALIBRATED, CALIBRATED)) == epoch


def test_the_last_epoch_goes_where_another_is_lower_beyond_doubt() -> None:
    assert last_unless(CALIBRATED[:4]) == 1


def test_what_is_lost_is_counted_on_the_pictures_that_were_not_read() -> None:
    """Epoch 0 is right on the selecting pictures and epoch 1 on the others."""
    labels = np.array([0, 1] * 20)
    chosen = np.arange(8)
    sure = np.where(labels[:, None] == np.arange(2), 3.0, 0.0)
    logits = np.stack([sure, sure])
    logits[0, 8:20] *= -1
    logits[1, :4] *= -1
    lost = regrets(logits, labels, chosen)
    assert lost["accuracy, the first of equals"][0] == pytest.approx(100 * 12 / 32)
    assert lost["last epoch"][0] == 0
    assert lost["loss"][1] == pytest.approx(3 * 12 / 32)
    assert lost[FLOOR].tolist() == [0, 0, 0]


def test_temperatures_are_own_or_common() -> None:
    """Two epochs that say the same, the second ten times as surely."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    plain = rng.normal(size=(200, 2)) + np.eye(2)[labels]
    read, own = select(np.stack([plain, 10 * plain]), labels)
    assert own[1] == pytest.approx(10 * own[0])
    assert read.calibrated[0] == pytest.approx(read.calibrated[1])
    assert read.common[0].mean() > read.calibrated[0].mean()
    assert read.losses[1].mean() > read.common[1].mean()


def test_draws_are_stratified_and_differ() -> None:
    labels = np.repeat([0, 1], [300, 100])
    first, second = draws(labels, 40, 2)
    assert np.bincount(labels[first]).tolist() == [30, 10]
    assert not np.array_equal(first, second)


def test_cross_entropy_of_every_epoch_and_picture() -> None:
    logits = np.array([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 1000.0], [0.0, 2.0]]])
    found = cross_entropy(logits, np.array([0, 1]))
    assert found == pytest.approx(np.array([[np.log1p(np.exp(-2)), np.log(2)], [1000, np.log1p(np.exp(-2))]]))


def test_intervals_are_students_over_trainings() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == pytest.approx((2.0, 4.302653 / 3**0.5), abs=1e-5)
