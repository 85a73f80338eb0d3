"""Temperature scaling: the factor logits were sharpened by is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fixres.evaluation.temperature_scaling import cross_fitted_losses, fit_temperature
from tests.support.outcomes import result_of


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
    before, after = result_of(logits, labels), result_of(logits / temperature, labels)
    assert after["loss"] <= before["loss"]
    assert after["top1"] == before["top1"]
    if factor != 1.0:
        assert after["ece"] < 0.3 * before["ece"]


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


def test_no_picture_decides_its_own_temperature() -> None:
    """Of six pictures that are all right, the loss at the coldest temperature would be nothing."""
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    logits = 2 * torch.nn.functional.one_hot(labels, 2).double()
    logits[0] = -logits[0]
    losses = cross_fitted_losses(logits, labels, np.arange(6))
    assert losses[0] == pytest.approx(2 / 0.05)
    # The others know of the one that is wrong.
    assert (losses[1:] > 0.05).all()
    whole = cross_fitted_losses(logits, labels, np.zeros(6, dtype=np.int64))
    own = torch.nn.functional.cross_entropy(logits / fit_temperature(logits, labels), labels, reduction="none")
    assert whole == pytest.approx(own.numpy())
