"""Promises: what they state holds at least as often as stated, and never by too few pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.evaluation.promises import (
    COVERAGES,
    ERROR_RATES,
    abstention,
    binomial_cdf,
    certify,
    conformal_quantile,
    events_allowed,
    fixed_sequence,
    halves,
    images_needed,
    kept_rule,
    reached,
    set_rule,
)

RATES = st.sampled_from([0.001, 0.01, 0.02, 0.05, 0.1, 0.3])
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.001, 0.999))
def test_a_binomial_tail_is_the_sum_of_its_terms(count: int, num: int, rate: float) -> None:
    exact = sum(math.comb(num, k) * rate**k * (1 - rate) ** (num - k) for k in range(min(count, num) + 1))
    assert binomial_cdf(count, num, rate) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("num", "rate", "allowed"),
    [(263, 0.01, 0), (263, 0.02, 1), (263, 0.03, 3), (526, 0.01, 1), (526, 0.02, 6), (2000, 0.01, 13)],
)
def test_so_many_harms_are_allowed_at_90_percent(num: int, rate: float, allowed: int) -> None:
    assert events_allowed(num, rate, 0.9) == allowed


@given(RATES, CONFIDENCES)
def test_fewer_pictures_than_needed_show_nothing(rate: float, confidence: float) -> None:
    fewest = images_needed(rate, confidence)
    assert events_allowed(fewest, rate, confidence) == 0
    assert fewest == 1 or events_allowed(fewest - 1, rate, confidence) is None


@given(RATES, CONFIDENCES, st.lists(st.integers(0, 40), max_size=8))
def test_a_sequence_ends_at_the_first_place_that_is_not_shown(
    rate: float, confidence: float, counts: list[int]
) -> None:
    place = fixed_sequence(counts, [400] * len(counts), rate, confidence)
    shown = [
        events_allowed(400, rate, confidence) is not None and c <= (events_allowed(400, rate, confidence) or 0)
        for c in counts
    ]
    assert place == (None if not shown or not shown[0] else (shown.index(False) if False in shown else len(shown)) - 1)


@given(st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 2**32 - 1))
def test_the_quantile_covers_its_share_of_the_scores_and_one_more(num: int, coverage: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random(num)
    found = conformal_quantile(scores, coverage)
    covered = int((scores <= found).sum())
    assert covered >= min(num, math.ceil(round((num + 1) * coverage, 9)))
    assert math.isinf(found) == (math.ceil(round((num + 1) * coverage, 9)) > num)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_halves_share_every_class_and_no_picture(labels: list[int]) -> None:
    array = np.array(labels)
    choosing, certifying = halves(array)
    assert sorted([*choosing, *certifying]) == list(range(len(labels)))
    for label in set(labels):
        assert abs(int((array[choosing] == label).sum()) - int((array[certifying] == label).sum())) <= 1


# --- what is promised, over many draws from a large table of scores

NUM_DRAWS = 1_000


def table(num: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities `[N, 4]` and labels of a network that is over-confident, on classes of unequal size."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, num, p=[0.55, 0.3, 0.13, 0.02])
    logits = rng.normal(size=(num, 4)) + 2.2 * np.eye(4)[labels] * rng.gamma(2, 0.6, size=(num, 1))
    probabilities = np.exp(2 * logits)
    return probabilities / probabilities.sum(1, keepdims=True), labels


PROBABILITIES, LABELS = table()


def drawn(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    places = rng.integers(0, len(LABELS), num)
    return PROBABILITIES[places], LABELS[places]


def lower_bound(share: float, num: int) -> float:
    """Return what a share that is truly reached falls below in one of a thousand test runs."""
    return share - 3.1 * math.sqrt(share * (1 - share) / num)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_right_class_as_often_as_promised_in_every_group(coverage: float) -> None:
    rng, held, rare = np.random.default_rng(1), [], []
    for _ in range(NUM_DRAWS):
        probabilities, labels = drawn(rng, 300)
        rule = set_rule(probabilities, labels, *halves(labels), coverage)
        fresh, right = drawn(rng, 200)
        inside = rule.sets(fresh)[np.arange(len(fresh)), right]
        held.append(inside.mean())
        rare += inside[right == 0].tolist()
    # Of the draws as a whole, and of the largest class, which has a quantile of its own.
    assert np.mean(held) >= lower_bound(coverage, NUM_DRAWS * 150)
    assert np.mean(rare) >= lower_bound(coverage, NUM_DRAWS * 100)
    # Not by having everything in the set.
    assert np.mean(held) < coverage + 0.04


def test_a_group_too_small_to_promise_anything_has_every_class_in_its_sets() -> None:
    probabilities, labels = drawn(np.random.default_rng(2), 10)
    rule = set_rule(probabilities, labels, *halves(labels), 0.99)
    assert rule.sets(probabilities).all()
    assert not any(rule.has_own)


def test_a_set_is_never_empty() -> None:
    probabilities = np.full((3, 4), 0.25)
    rule = set_rule(np.eye(4)[np.arange(40) % 4] * 0.999 + 0.00025, np.arange(40) % 4, *halves(np.arange(40) % 4), 0.5)
    assert (rule.sets(probabilities).sum(1) == 1).all()


@pytest.mark.parametrize(("error_rate", "confidence"), [(0.1, 0.9), (0.05, 0.8)])
def test_answers_are_wrong_no_more_often_than_promised(error_rate: float, confidence: float) -> None:
    rng, best = np.random.default_rng(3), PROBABILITIES.max(1)
    is_right = PROBABILITIES.argmax(1) == LABELS
    given_rates = []
    for _ in range(NUM_DRAWS):
        places = rng.integers(0, len(LABELS), 400)
        found = abstention(best[places], is_right[places], *halves(LABELS[places]), error_rate, confidence)
        # Promising nothing breaks no promise.
        given_rates.append(0.0 if found is None else float((~is_right[best >= found.threshold]).mean()))
    kept = np.mean(np.array(given_rates) <= error_rate)
    assert kept >= lower_bound(confidence, NUM_DRAWS)
    # Nor does it promise nothing throughout.
    assert np.mean(np.array(given_rates) > 0) > 0.5


def test_nothing_is_promised_of_answers_by_too_few_pictures() -> None:
    sure, right = np.linspace(0.5, 1, 100), np.ones(100, dtype=bool)
    assert abstention(sure, right, np.arange(50), np.arange(50, 100), 0.02, 0.9) is None
    assert images_needed(0.02, 0.9) == 114


def test_all_answers_are_given_where_all_are_shown_to_be_right_enough() -> None:
    labels = np.zeros(600, dtype=int)
    found = abstention(np.linspace(0.5, 1, 600), np.ones(600, dtype=bool), *halves(labels), 0.02, 0.9)
    assert found is not None
    assert (found.threshold, found.num_answered, found.num_wrong) == (0.0, 300, 0)


# --- what a product keeps


def test_what_a_product_keeps_gives_the_same_sets_after_json() -> None:
    names = ["a", "b", "c", "d"]
    probabilities, labels = drawn(np.random.default_rng(4), 400)
    kept = json.loads(json.dumps(certify(probabilities, labels, names)))
    fresh, _ = drawn(np.random.default_rng(5), 100)
    for coverage in COVERAGES:
        made = set_rule(probabilities, labels, *halves(labels), coverage)
        assert kept_rule(kept, names, coverage) == made
        assert np.array_equal(kept_rule(kept, names, coverage).sets(fresh), made.sets(fresh))
    # Two hundred pictures certify, of which four are of the rare class: it has no quantile of its own.
    assert sorted(kept["coverage"]["0.9"]["own"]) == ["a", "b", "c"]
    assert kept["coverage"]["0.99"]["own"] == {"a": kept["coverage"]["0.99"]["own"]["a"]}
    assert kept["abstain"]["0.01"] is None


def test_promises_are_told_by_what_they_come_to_on_other_pictures() -> None:
    names = ["a", "b", "c", "d"]
    kept = certify(*drawn(np.random.default_rng(6), 4_000), names)
    fresh, right = drawn(np.random.default_rng(7), 20_000)
    found = reached(kept, fresh, right, names)
    for coverage in COVERAGES:
        told = found["coverage"][str(coverage)]
        inside = kept_rule(kept, names, coverage).sets(fresh)
        assert told["covered"] == pytest.approx(100 * inside[np.arange(len(right)), right].mean())
        assert told["covered_ci95"][0] < told["covered"] < told["covered_ci95"][1]
        assert abs(told["covered"] - 100 * coverage) < 2
        assert 1 <= told["mean_size"] <= 4
    sizes = [found["coverage"][str(coverage)]["mean_size"] for coverage in COVERAGES]
    assert sizes == sorted(sizes)
    told = found["abstain"]["0.1"]
    answered = fresh.max(1) >= kept["abstain"]["0.1"]["threshold"]
    assert told["answered"] == pytest.approx(100 * answered.mean())
    assert told["wrong"] == pytest.approx(100 * (fresh.argmax(1) != right)[answered].mean())
    shares = [found["abstain"][str(rate)]["answered"] for rate in ERROR_RATES]
    assert shares == sorted(shares)


def test_of_no_answers_no_share_is_wrong() -> None:
    probabilities, labels = drawn(np.random.default_rng(8), 60)
    found = reached(certify(probabilities, labels, list("abcd")), probabilities, labels, list("abcd"))
    assert found["abstain"]["0.01"] == {"answered": 0.0, "wrong": None, "wrong_ci95": None}
