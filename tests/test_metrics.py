from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from fixres.metrics import Tally, label_ranks, paired_difference, wilson_interval


def draw(seed: int, num_images: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(num_classes, (num_images,), generator=generator)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(2, 12))
def test_every_metric_agrees_with_torchmetrics_and_scikit_learn(seed: int, num_images: int, num_classes: int) -> None:
    logits, labels = draw(seed, num_images, num_classes)
    tally = Tally(num_classes)
    tally.add(logits, labels)
    found = tally.result()
    predicted = logits.argmax(1)
    kind = {"num_classes": num_classes}
    assert found["top1"] == pytest.approx(
        100 * multiclass_accuracy(logits, labels, average="micro", **kind).item(), abs=1e-5
    )
    if num_classes > 5:
        top5 = multiclass_accuracy(logits, labels, average="micro", top_k=5, **kind).item()
        assert found["top5"] == pytest.approx(100 * top5, abs=1e-5)
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-9)
    ece = multiclass_calibration_error(logits.softmax(1), labels, n_bins=15, **kind).item()
    assert found["ece"] == pytest.approx(ece, abs=1e-6)
    assert found["macro_f1"] == pytest.approx(
        100 * sk.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-6
    )
    macro = multiclass_f1_score(logits, labels, average="macro", **kind).item()
    assert found["macro_f1"] == pytest.approx(100 * macro, abs=1e-4)
    recalls = sk.recall_score(labels, predicted, average=None, labels=labels.unique(), zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(100 * recalls.mean(), abs=1e-6)
    expected = sk.confusion_matrix(labels, predicted, labels=range(num_classes))
    assert found["confusion"] == expected.tolist()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.data())
def test_how_images_are_cut_into_batches_changes_nothing(seed: int, num_images: int, data: st.DataObject) -> None:
    logits, labels = draw(seed, num_images, 6)
    cut = data.draw(st.integers(1, num_images - 1))
    whole, parts = Tally(6), Tally(6)
    whole.add(logits, labels)
    parts.add(logits[:cut], labels[:cut])
    parts.add(logits[cut:], labels[cut:])
    one, two = whole.result(), parts.result()
    assert one.pop("loss") == pytest.approx(two.pop("loss"), rel=1e-12)
    assert one.pop("ece") == pytest.approx(two.pop("ece"), rel=1e-9, abs=1e-12)
    assert one == two


def test_equal_logits_go_to_the_lower_class() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    assert label_ranks(logits, labels).tolist() == [0, 1, 2]
    tally = Tally(3)
    predictions, _, _ = tally.add(logits, labels)
    assert predictions.tolist() == [0, 0, 0]
    assert tally.num_correct == 1
    assert tally.num_near_ties == 3


def test_near_ties_are_those_that_rounding_may_decide() -> None:
    logits = torch.tensor([[10.0, 10.0 - 1e-4, 0.0], [10.0, 9.0, 0.0]])
    tally = Tally(3)
    tally.add(logits, torch.tensor([0, 0]))
    assert tally.num_near_ties == 1


def test_top5_is_absent_when_it_would_always_be_100() -> None:
    tally = Tally(5)
    tally.add(*draw(0, 4, 5))
    assert tally.result()["top5"] is None


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_interval_holds_the_accuracy_and_stays_in_range(correct: int, total: int) -> None:
    correct = min(correct, total)
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= 100 * correct / total + 1e-9
    assert 100 * correct / total - 1e-9 <= high <= 100


def test_wilson_interval_of_a_known_case() -> None:
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)


def test_the_paired_difference_counts_what_changed() -> None:
    before = np.array([True] * 70 + [False] * 30)
    after = before.copy()
    after[:4] = False
    after[70:85] = True
    found = paired_difference(before, after)
    assert (found.num_better, found.num_worse, found.difference) == (15, 4, 11.0)
    assert found.p_value == pytest.approx(0.0192, abs=1e-4)
    assert found.is_distinguishable
    assert found.ci95[0] < found.difference < found.ci95[1]


def test_no_change_is_not_distinguishable() -> None:
    same = np.array([True, False] * 20)
    found = paired_difference(same, same)
    assert found.difference == 0
    assert found.p_value == 1
    assert not found.is_distinguishable
