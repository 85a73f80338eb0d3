"""Which pictures go on: by confidence or expected gain, at the cheapest level that loses nothing, or with a promise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.inference.deferral import (
    EVERY,
    Deferral,
    TwoAnswers,
    choose_deferral,
    choose_level,
    choose_small_weight,
    correct,
    curve,
    expected_gain,
    guaranteed_level,
    held_out_urgency,
    inputs_of,
    kept_deferral,
    levels_of,
    point,
)

TABLES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(8, 20)), min_size=1, max_size=40
)


def one_hot(answers: list[int], confidence: np.ndarray) -> np.ndarray:
    """Return probabilities `[N, 3]` whose best class is the answer, as sure as asked for."""
    found = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    found[np.arange(len(answers)), answers] = confidence
    return found


def two_answers(rows: list[tuple[int, int, int, int]]) -> TwoAnswers:
    small, large, labels, sure = (list(column) for column in zip(*rows, strict=True))
    confidence = np.array(sure) / 20
    return TwoAnswers(one_hot(small, confidence), one_hot(large, confidence), np.array(labels), 1.0, 3.0)


CONFIDENCE = Deferral()


@given(TABLES)
def test_cost_grows_as_the_level_falls_and_the_ends_are_the_two_sizes(rows: list[tuple[int, int, int, int]]) -> None:
    two = two_answers(rows)
    urgency = CONFIDENCE.urgency(two.small)
    levels = levels_of(urgency)
    costs = [point(two, CONFIDENCE, urgency, float(level))["gmacs"] for level in levels]
    assert costs == sorted(costs)
    assert (costs[0], costs[-1]) == (1.0, 4.0)
    assert np.array_equal(correct(two, CONFIDENCE, urgency, float(levels[0])), two.right(two.small))
    assert np.array_equal(correct(two, CONFIDENCE, urgency, -EVERY), two.right(two.large))


@given(TABLES)
def test_the_level_is_the_cheapest_that_loses_nothing(rows: list[tuple[int, int, int, int]]) -> None:
    two = two_answers(rows)
    urgency = CONFIDENCE.urgency(two.small)
    chosen = choose_level(two, CONFIDENCE, urgency)
    enough = two.right(two.large).sum()
    assert correct(two, CONFIDENCE, urgency, chosen).sum() >= enough
    for cheaper in levels_of(urgency):
        if cheaper > chosen:
            assert correct(two, CONFIDENCE, urgency, float(cheaper)).sum() < enough


@given(TABLES, st.integers(2, 9))
def test_the_curve_goes_from_one_size_to_the_other(rows: list[tuple[int, int, int, int]], num: int) -> None:
    two = two_answers(rows)
    points = curve(two, CONFIDENCE, CONFIDENCE.urgency(two.small), num)
    assert 2 <= len(points) <= num
    assert (points[0]["share"], points[-1]["share"]) == (0, 1)
    assert points[-1]["top1"] == pytest.approx(100 * two.right(two.large).mean())


@given(TABLES)
def test_the_joint_answer_that_is_chosen_is_no_worse(rows: list[tuple[int, int, int, int]]) -> None:
    two = two_answers(rows)
    weight = choose_small_weight(two)
    joined = Deferral(small_weight=weight).joined(two.small, two.large)
    assert two.right(joined).sum() >= two.right(two.large).sum()
    assert np.allclose(joined.sum(1), 1)


def test_inputs_are_the_best_probability_its_lead_and_the_entropy() -> None:
    found = inputs_of(np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]]))
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)) / math.log(3)
    assert found == pytest.approx(np.array([[0.7, 0.5, entropy], [1 / 3, 0, 1], [1, 1, 0]]))


# --- a table of two sizes, with pictures that nobody can tell


def noisy(num: int, seed: int) -> TwoAnswers:
    """Return answers to pictures of three kinds: easy, hard, and of no use: there both sizes guess."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, num)
    kind = rng.choice(3, num, p=[0.6, 0.25, 0.15])
    own = np.eye(4)[labels]
    small = rng.normal(size=(num, 4)) + np.choose(kind, [4.0, 0.7, 0.0])[:, None] * own
    # Where both guess, the smaller size knows that it does: all four are alike to it.
    small[kind == 2] *= 0.2
    large = rng.normal(size=(num, 4)) + np.choose(kind, [4.2, 3.5, 0.0])[:, None] * own

    def shares(logits: np.ndarray) -> np.ndarray:
        made = np.exp(logits)
        return np.asarray(made / made.sum(1, keepdims=True))

    return TwoAnswers(shares(small), shares(large), labels, 1.0, 3.0)


def test_expected_gain_adds_more_right_answers_than_doubt_where_nobody_can_tell_some() -> None:
    two, fresh = noisy(4_000, 0), noisy(4_000, 1)
    by_confidence, by_gain = CONFIDENCE.urgency(fresh.small), expected_gain(two).urgency(fresh.small)
    gained = fresh.right(fresh.large).astype(int) - fresh.right(fresh.small)
    # As many go on either way.
    for share in (0.1, 0.2):
        doubted = by_confidence > np.quantile(by_confidence, 1 - share)
        expected = by_gain > np.quantile(by_gain, 1 - share)
        assert gained[expected].sum() > 1.1 * gained[doubted].sum()


def test_the_gain_that_is_expected_is_that_which_comes() -> None:
    two, fresh = noisy(8_000, 2), noisy(8_000, 3)
    urgency = expected_gain(two).urgency(fresh.small)
    comes = fresh.right(fresh.large).astype(int) - fresh.right(fresh.small)
    assert comes.mean() == pytest.approx(urgency.mean(), abs=0.02)
    # About as large: three numbers of the answer do not say everything.
    groups = [comes[group].mean() for group in np.array_split(np.argsort(urgency), 4)]
    assert groups[0] < 0.05 < 0.2 < groups[-1]
    for came, group in zip(groups, np.array_split(np.argsort(urgency), 4), strict=True):
        assert came == pytest.approx(urgency[group].mean(), abs=0.12)


def test_what_is_chosen_loses_nothing_on_the_pictures_it_was_chosen_on() -> None:
    two = noisy(600, 4)
    deferral, urgency, level = choose_deferral(two)
    assert correct(two, deferral, urgency, level).sum() >= two.right(two.large).sum()
    assert np.array_equal(urgency, held_out_urgency(two, deferral.by))


def test_what_a_product_keeps_defers_the_same_pictures() -> None:
    two, fresh = noisy(500, 5), noisy(200, 6)
    for deferral in (Deferral("confidence", 0.3), expected_gain(two, 0.2)):
        kept = kept_deferral(json.loads(json.dumps(deferral.as_dict())))
        assert np.array_equal(kept.urgency(fresh.small), deferral.urgency(fresh.small))
        assert np.array_equal(kept.joined(fresh.small, fresh.large), deferral.joined(fresh.small, fresh.large))
    old = kept_deferral({"sizes": [32, 48], "threshold": 0.5, "chosen_on": "val"})
    assert (old.by, old.small_weight) == ("confidence", 0.0)
    # Below the threshold a picture goes on, at it not.
    assert (old.urgency(np.array([[0.5, 0.5], [0.51, 0.49]])) > old.level(0.505)).tolist() == [True, False]
    assert not (old.urgency(np.array([[0.5, 0.5]])) > old.level(0.5)).any()


# --- with a promise

NUM_DRAWS = 1_000


@pytest.mark.parametrize(("harm", "confidence"), [(0.05, 0.9), (0.1, 0.8)])
def test_no_more_pictures_are_lost_than_promised(harm: float, confidence: float) -> None:
    population, rng = noisy(40_000, 7), np.random.default_rng(8)
    all_urgency = CONFIDENCE.urgency(population.small)
    lost = population.right(population.large) & ~population.right(population.small)
    harms, costs = [], []
    for _ in range(NUM_DRAWS):
        drawn = population.take(rng.integers(0, 40_000, 400))
        first, second = drawn.take(np.arange(200)), drawn.take(np.arange(200, 400))
        found = guaranteed_level(CONFIDENCE, first, second, harm, confidence)
        level = -EVERY if found.level is None else found.level
        harms.append(float((lost & ~(all_urgency > level)).mean()))
        costs.append(float((all_urgency > level).mean()))
    kept = np.mean(np.array(harms) <= harm)
    assert kept >= confidence - 3.1 * math.sqrt(confidence * (1 - confidence) / NUM_DRAWS)
    # It saves something all the same.
    assert np.mean(costs) < 0.9


def test_too_few_pictures_promise_nothing() -> None:
    two = noisy(263, 9)
    found = guaranteed_level(CONFIDENCE, two, two.take(np.arange(200)), 0.01, 0.9)
    assert found.level is None
    assert found.harms_allowed is None
    enough = guaranteed_level(CONFIDENCE, two, two, 0.01, 0.9)
    assert (enough.harms_allowed, enough.num_certifying) == (0, 263)
    assert enough.level is not None
    assert guaranteed_level(CONFIDENCE, two, two, 0.03, 0.9).harms_allowed == 3


def test_a_guarantee_is_about_the_larger_size_alone() -> None:
    two = noisy(50, 10)
    with pytest.raises(ValueError, match="alone"):
        guaranteed_level(Deferral(small_weight=0.5), two, two, 0.05, 0.9)
