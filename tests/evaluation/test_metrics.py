from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from fixres.evaluation.logit_outcomes import image_outcomes, label_ranks
from fixres.evaluation.metrics import (
    METRICS,
    bootstrap_intervals,
    class_table,
    confusion_matrix,
    imbalance,
    is_uneven,
    paired_difference,
    register_metric,
    wilson_interval,
)
from tests.support.outcomes import outcomes_of, result_of


def draw(seed: int, num_images: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(num_classes, (num_images,), generator=generator)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(2, 12))
def test_every_metric_agrees_with_torchmetrics_and_scikit_learn(seed: int, num_images: int, num_classes: int) -> None:
    logits, labels = draw(seed, num_images, num_classes)
    found = result_of(logits, labels)
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
    whole = image_outcomes(logits, labels)
    parts = [image_outcomes(logits[part], labels[part]) for part in (slice(cut), slice(cut, None))]
    for all_of_them, *cut_ones in zip(whole, *parts, strict=True):
        torch.testing.assert_close(all_of_them, torch.cat(cut_ones), rtol=1e-12, atol=1e-15)


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 8), st.integers(1, 5))
def test_a_leading_axis_of_draws_gives_the_figures_of_each(seed: int, num: int, num_classes: int, draws: int) -> None:
    outcomes = outcomes_of(*draw(seed, num, num_classes))
    places = np.random.default_rng(seed).integers(0, num, (draws, num))
    for metric in METRICS.values():
        found = metric.compute(outcomes.take(places))
        alone = [metric.compute(outcomes.take(row[None]))[0] for row in places]
        assert found.tolist() == pytest.approx(alone, rel=1e-12)


def test_a_metric_has_one_name() -> None:
    with pytest.raises(ValueError, match="already"):
        register_metric("top1", METRICS["top1"])


def test_equal_logits_go_to_the_lower_class() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    assert label_ranks(logits, labels).tolist() == [0, 1, 2]
    outcomes = outcomes_of(logits, labels)
    assert outcomes.predictions.tolist() == [0, 0, 0]
    assert outcomes.hits.sum() == 1
    assert result_of(logits, labels)["num_near_ties"] == 3


def test_near_ties_are_those_that_rounding_may_decide() -> None:
    logits = torch.tensor([[10.0, 10.0 - 1e-4, 0.0], [10.0, 9.0, 0.0]])
    assert result_of(logits, torch.tensor([0, 0]))["num_near_ties"] == 1


def test_top5_is_absent_when_it_would_always_be_100() -> None:
    assert result_of(*draw(0, 4, 5))["top5"] is None


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_interval_holds_the_accuracy_and_stays_in_range(correct: int, total: int) -> None:
    correct = min(correct, total)
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= 100 * correct / total + 1e-9
    assert 100 * correct / total - 1e-9 <= high <= 100


def test_wilson_interval_of_a_known_case() -> None:
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)


def test_the_interval_of_a_paired_difference_stays_within_what_a_difference_can_be() -> None:
    wrong, right = np.zeros(20, dtype=bool), np.ones(20, dtype=bool)
    low, high = paired_difference(wrong, right).ci95
    assert 70 < low < high == 100
    assert paired_difference(right, wrong).ci95 == (-100, -low)


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


DEGENERATE = {
    "one class present": (torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]], torch.zeros(4, dtype=torch.int64)),
    "one class predicted": (torch.tensor([[2.0, 1, 0]] * 5, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])),
    "all wrong": (torch.eye(6, dtype=torch.float64) * 3, torch.tensor([1, 2, 3, 4, 5, 0])),
    "all right": (torch.eye(6, dtype=torch.float64) * 3, torch.arange(6)),
    "one picture": (torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([1])),
    "certain": (torch.eye(2, dtype=torch.float64)[[0, 1, 1]] * 1000, torch.tensor([0, 1, 0])),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_inputs_agree_with_torchmetrics_and_scikit_learn(case: str) -> None:
    logits, labels = DEGENERATE[case]
    predicted = outcomes_of(logits, labels).predictions
    found = result_of(logits, labels)
    kind = {"num_classes": logits.shape[1]}
    assert found["top1"] == pytest.approx(100 * sk.accuracy_score(labels, predicted), abs=1e-6)
    if found["top5"] is not None:
        # Both oracles break ties among the first five in their own way, so they are given a nudge towards ours.
        nudged = logits - 1e-9 * torch.arange(logits.shape[1])
        top5 = multiclass_accuracy(nudged, labels, average="micro", top_k=5, **kind).item()
        assert found["top5"] == pytest.approx(100 * top5, abs=1e-5)
        scores, classes = nudged.numpy(), range(logits.shape[1])
        assert found["top5"] == pytest.approx(100 * sk.top_k_accuracy_score(labels, scores, k=5, labels=classes))
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-9)
    ece = multiclass_calibration_error(logits.softmax(1), labels, n_bins=15, **kind).item()
    assert found["ece"] == pytest.approx(ece, abs=1e-6)
    assert found["macro_f1"] == pytest.approx(
        100 * sk.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-6
    )
    recalls = sk.recall_score(labels, predicted, average=None, labels=labels.unique(), zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(100 * recalls.mean(), abs=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_ties_are_counted_as_the_lowest_class_would_win(seed: int, num_images: int) -> None:
    # Logits of three values only: nearly every picture is tied somewhere.
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(3, (num_images, 8), generator=generator).double()
    labels = torch.randint(8, (num_images,), generator=generator)
    predicted, found = outcomes_of(logits, labels).predictions, result_of(logits, labels)
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    assert predicted.tolist() == order[:, 0].tolist()
    assert found["top1"] == pytest.approx(100 * sk.accuracy_score(labels, order[:, 0]), abs=1e-9)
    in_five = [label in row[:5] for label, row in zip(labels.tolist(), order.tolist(), strict=True)]
    assert found["top5"] == pytest.approx(100 * np.mean(in_five), abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(2, 12))
def test_the_class_table_is_that_of_scikit_learn(seed: int, num_images: int, num_classes: int) -> None:
    chance = np.random.default_rng(seed)
    labels, predictions = chance.integers(0, num_classes, (2, num_images))
    table = class_table(labels, predictions, [f"class {i}" for i in range(num_classes)])
    expected = sk.precision_recall_fscore_support(labels, predictions, labels=range(num_classes), zero_division=np.nan)
    for row, precision, recall, f1, support in zip(table, *expected, strict=True):
        assert row["num_images"] == support
        for name, value in (("precision", precision), ("recall", recall)):
            assert row[name] is None if np.isnan(value) else row[name] == pytest.approx(100 * value, abs=1e-6)
        if row["f1"] is not None:
            assert row["f1"] == pytest.approx(100 * f1, abs=1e-6)
    matrix = confusion_matrix(labels, predictions, num_classes)
    assert matrix.tolist() == sk.confusion_matrix(labels, predictions, labels=range(num_classes)).tolist()


@given(st.integers(0, 10**6), st.integers(1, 200))
def test_mcnemars_test_is_the_binomial_one(seed: int, num_images: int) -> None:
    before, after = np.random.default_rng(seed).random((2, num_images)) < 0.7
    found = paired_difference(before, after)
    changed = found.num_better + found.num_worse
    expected = stats.binomtest(found.num_better, changed).pvalue if changed else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert found.difference == pytest.approx(100 * (after.mean() - before.mean()))


def outcomes(seed: int, num: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num,), generator=generator)
    logits = torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(num), labels] += 1.5
    return logits, labels


def intervals(logits: torch.Tensor, labels: torch.Tensor, **kwargs: int) -> dict[str, tuple[float, float]]:
    return bootstrap_intervals(outcomes_of(logits, labels), **kwargs)


def test_every_resample_is_measured_as_the_metrics_measure() -> None:
    logits, labels = outcomes(0, 60, 7)
    found = intervals(logits, labels, num_resamples=200, seed=3)
    chance = np.random.default_rng(3)
    drawn = chance.integers(0, 60, (200, 60))
    results = [result_of(logits[chosen], labels[chosen]) for chosen in drawn]
    assert set(found) == {"top1", "top5", "loss", "ece", "balanced_accuracy", "macro_f1"}
    for name, interval in found.items():
        expected = np.percentile([result[name] for result in results], [2.5, 97.5])
        assert interval == pytest.approx(expected, rel=1e-7), name


def test_the_same_seed_gives_the_same_interval_near_wilsons() -> None:
    logits, labels = outcomes(1, 2000, 4)
    first, second = (intervals(logits, labels) for _ in range(2))
    assert first == second != intervals(logits, labels, seed=1)
    assert "top5" not in first
    assert first["top1"] == pytest.approx(result_of(logits, labels)["top1_ci95"], abs=0.3)


def test_all_wrong_and_one_class_have_intervals() -> None:
    logits = torch.zeros(8, 3, dtype=torch.float64)
    logits[:, 0] = 1
    wrong = intervals(logits, torch.ones(8, dtype=torch.int64))
    assert wrong["top1"] == wrong["balanced_accuracy"] == wrong["macro_f1"] == (0, 0)
    right = intervals(logits, torch.zeros(8, dtype=torch.int64))
    assert right["top1"] == right["balanced_accuracy"] == right["macro_f1"] == (100, 100)


def test_classes_without_a_picture_do_not_make_the_others_uneven() -> None:
    assert imbalance([4, 0, 6]) == 1.5
    assert imbalance([]) == imbalance([0, 7]) == 1.0
    assert [is_uneven(ratio) for ratio in (None, 1.5, 1.6)] == [False, False, True]
