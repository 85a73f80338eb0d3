"""Temperature scaling and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fixres.evaluation.metrics import Tally, bootstrap_intervals, label_ranks
from fixres.evaluation.temperature_scaling import fit_temperature


def sharpened(seed: int, factor: float, num: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits `factor` times those the labels were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_factor_logits_were_sharpened_by_is_found(factor: float) -> None:
    logits, labels = sharpened(0, factor)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(factor, rel=0.08)
    before, after = Tally(5), Tally(5)
    before.add(logits, labels)
    after.add(logits / temperature, labels)
    assert after.result()["loss"] <= before.result()["loss"]
    assert after.result()["top1"] == before.result()["top1"]
    if factor != 1.0:
        assert after.result()["ece"] < 0.3 * before.result()["ece"]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_the_temperature_is_the_minimum_scipy_finds(seed: int, factor: float) -> None:
    logits, labels = sharpened(seed, factor, 200)

    def loss(log_t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_t), labels))

    expected = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    assert loss(float(np.log(fit_temperature(logits, labels)))) <= expected.fun + 1e-9


def test_where_there_is_no_best_temperature_it_is_the_end_of_its_range() -> None:
    logits = torch.eye(4)
    assert fit_temperature(logits, torch.arange(4)) == 0.05
    assert fit_temperature(logits, torch.tensor([1, 2, 3, 0])) == 20
    assert fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == 20


def outcomes(seed: int, num: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num,), generator=generator)
    logits = torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(num), labels] += 1.5
    return logits, labels


def intervals(logits: torch.Tensor, labels: torch.Tensor, **kwargs: int) -> dict[str, tuple[float, float]]:
    predictions, confidence, losses = Tally(logits.shape[1]).add(logits, labels)
    arrays = (labels, predictions, label_ranks(logits, labels), confidence, losses)
    return bootstrap_intervals(*(a.numpy() for a in arrays), num_classes=logits.shape[1], **kwargs)


def test_every_resample_is_measured_as_the_metrics_measure() -> None:
    logits, labels = outcomes(0, 60, 7)
    found = intervals(logits, labels, num_resamples=200, seed=3)
    chance = np.random.default_rng(3)
    drawn = chance.integers(0, 60, (200, 60))
    results = []
    for chosen in drawn:
        tally = Tally(7)
        tally.add(logits[chosen], labels[chosen])
        results.append(tally.result())
    assert set(found) == {"top1", "top5", "loss", "ece", "balanced_accuracy", "macro_f1"}
    for name, interval in found.items():
        expected = np.percentile([result[name] for result in results], [2.5, 97.5])
        assert interval == pytest.approx(expected, rel=1e-7), name


def test_the_same_seed_gives_the_same_interval_near_wilsons() -> None:
    logits, labels = outcomes(1, 2000, 4)
    first, second = (intervals(logits, labels) for _ in range(2))
    assert first == second != intervals(logits, labels, seed=1)
    assert "top5" not in first
    tally = Tally(4)
    tally.add(logits, labels)
    assert first["top1"] == pytest.approx(tally.result()["top1_ci95"], abs=0.3)


def test_all_wrong_and_one_class_have_intervals() -> None:
    logits = torch.zeros(8, 3, dtype=torch.float64)
    logits[:, 0] = 1
    wrong = intervals(logits, torch.ones(8, dtype=torch.int64))
    assert wrong["top1"] == wrong["balanced_accuracy"] == wrong["macro_f1"] == (0, 0)
    right = intervals(logits, torch.zeros(8, dtype=torch.int64))
    assert right["top1"] == right["balanced_accuracy"] == right["macro_f1"] == (100, 100)
