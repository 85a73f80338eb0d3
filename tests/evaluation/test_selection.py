"""One rule says which of two candidates is better, by more than rounding; how sure one is does not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.selection import (
    MANY_IMAGES,
    Figures,
    best_first,
    epoch_figures,
    figures_of,
    is_as_good,
    is_better,
    is_few,
)
from tests.support.outcomes import outcomes_of, result_of

numbers = st.floats(1e-6, 10)
many = st.builds(Figures, st.sampled_from([80.0, 81.0]), numbers)
few = st.builds(Figures, st.sampled_from([80.0, 81.0]), numbers, numbers)


def test_few_are_fewer_than_a_thousand() -> None:
    assert MANY_IMAGES == 1_000
    assert (is_few(999), is_few(1_000)) == (True, False)


def test_many_pictures_decide_by_accuracy_then_loss_and_few_by_the_loss_after_temperature() -> None:
    assert is_better(Figures(81.0, 2.0), Figures(80.0, 0.5))
    assert is_better(Figures(80.0, 0.4), Figures(80.0, 0.5))
    assert not is_better(Figures(81.0, 2.0, 0.5), Figures(80.0, 0.5, 0.4))
    assert is_better(Figures(80.0, 2.0, 0.3), Figures(81.0, 0.5, 0.4))
    # Where every picture is right nothing is left to tell apart.
    assert not is_better(Figures(100.0, 0.1, 1e-15), Figures(100.0, 0.1, 1e-9))


@pytest.mark.parametrize("num", [999, 1_000])
def test_of_an_epoch_the_losses_are_kept_where_pictures_are_few(num: int) -> None:
    logits, labels = torch.randn(num, 3), torch.zeros(num, dtype=torch.int64)
    found = Evaluation([result_of(logits, labels)], (outcomes_of(logits, labels),), np.arange(num))
    figures = epoch_figures(found)
    assert (figures.losses is None) == (num == 1_000)
    assert figures.losses is None or figures.losses.mean() == pytest.approx(figures.loss)


def test_a_later_epoch_is_as_good_within_one_standard_error_of_the_difference() -> None:
    generator = np.random.default_rng(0)
    lowest = generator.uniform(0, 1, 400)
    noise = generator.normal(0, 1, 400)
    noise -= noise.mean()
    error = noise.std() / 20

    def after(shift: float) -> bool:
        later = lowest + noise + shift
        pair = (Figures(80.0, float(losses.mean()), losses=losses) for losses in (later, lowest))
        return is_as_good(*pair)

    assert after(-1.0)
    assert after(0.9 * error)
    assert not after(1.1 * error)
    assert not is_as_good(Figures(90.0, 0.1), Figures(80.0, 0.5)), "many pictures have a rule of their own"


@given(st.one_of(st.tuples(many, many), st.tuples(few, few)))
def test_none_is_better_than_what_is_better_than_it_or_than_itself(pair: tuple[Figures, Figures]) -> None:
    one, other = pair
    assert not (is_better(one, other) and is_better(other, one))
    assert not is_better(one, one)


@given(st.lists(few, min_size=1, max_size=6))
def test_nothing_is_better_than_the_first(found: list[Figures]) -> None:
    candidates = {str(place): figures for place, figures in enumerate(found)}
    first = candidates[best_first(candidates)[0]]
    # Chains of differences that are rounding each may add up to a little.
    assert first.calibrated_loss is not None
    assert first.calibrated_loss <= min(f.calibrated_loss or 0 for f in found) + 1e-4


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_how_sure_a_network_is_of_everything_does_not_decide(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits = torch.randn(200, 4, generator=generator) + torch.nn.functional.one_hot(labels, 4)

    def figures(factor: float) -> Figures:
        own = factor * logits
        found = Evaluation([result_of(own, labels)], (outcomes_of(own, labels),), np.arange(200))
        found = Evaluation(found.results, found.outcomes, found.indices, logits=own[None].numpy())
        return figures_of(found)

    plain, sharpened = figures(1.0), figures(factor)
    assert sharpened.calibrated_loss == pytest.approx(plain.calibrated_loss, rel=1e-6)
    assert sharpened.temperature == pytest.approx(factor * (plain.temperature or 0), rel=1e-4)
    assert not is_better(sharpened, plain)
    assert not is_better(plain, sharpened)
