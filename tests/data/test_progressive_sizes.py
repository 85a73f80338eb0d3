"""Sizes and batches inside a stage: every step has its place, whatever the rule."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.config.loading import validate
from fixres.data.progressive_sizes import Timeline, area_batch, make_timeline, window_weights
from fixres.errors import UserError


def timeline(num_samples: int = 100, seed: int = 0, stage_index: int = 0, **stage: Any) -> Timeline:
    values = {"size": 64, "epochs": 6, "batch_size": 8, "warmup_epochs": 0, **stage}
    complete = validate({"train": values}).train
    return make_timeline(complete, values["size"], num_samples, seed=seed, stage_index=stage_index)


def sizes(found: Timeline) -> list[int]:
    """Return the size of the first step of every epoch."""
    return [found.at(first).size for first in found.first_steps[:-1]]


def test_without_sizes_a_stage_is_what_it_was() -> None:
    found = timeline(num_samples=27, epochs=3)
    assert found.total_steps == 9
    assert [tuple(found.at(step)) for step in (0, 2, 3, 8)] == [
        (0, 0, 64, 8),
        (0, 16, 64, 8),
        (1, 0, 64, 8),
        (2, 16, 64, 8),
    ]
    assert [found.is_epoch_end(step) for step in (0, 2, 3, 9)] == [False, False, True, True]
    assert [found.epochs_done(step) for step in (0, 3, 9)] == [0.0, 1.0, 3.0]
    assert found.epochs_done(1) == pytest.approx(1 / 3)


def test_sizes_come_one_after_the_other() -> None:
    assert sizes(timeline(sizes=[32, 48, 64])) == [32, 32, 48, 48, 64, 64]
    assert sizes(timeline(sizes=[32, 48, 64], size_epochs=[0, 1, 5])) == [32, 48, 48, 48, 48, 64]
    assert sizes(timeline(sizes=[64, 32], epochs=3)) == [64, 32, 32]


def test_progressive_goes_from_first_to_last_in_multiples() -> None:
    stage = {"sizes": [160, 224], "size_schedule": "progressive", "epochs": 16, "size_epochs": [2, 14]}
    found = sizes(timeline(**stage))
    assert found == [160] * 5 + [192] * 6 + [224] * 5
    assert sizes(timeline(sizes=[40, 100], size_schedule="progressive", size_multiple=20)) == [40, 60, 60, 80, 80, 100]
    assert sizes(timeline(sizes=[40, 100], size_schedule="progressive", epochs=1)) == [100]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(1, 64))
def test_progressive_never_turns_back_nor_leaves_its_ends(first: int, last: int, epochs: int, multiple: int) -> None:
    stage = {"sizes": [first, last], "size_schedule": "progressive", "epochs": epochs, "size_multiple": multiple}
    found = sizes(timeline(**stage))
    assert found == sorted(found, reverse=first > last)
    assert min(first, last) <= min(found)
    assert max(found) <= max(first, last)
    assert found[-1] == last


@given(st.integers(2, 512), st.integers(16, 400), st.integers(16, 400))
def test_the_area_rule_keeps_the_pixels(batch: int, size: int, other: int) -> None:
    found = area_batch(batch, size, other)
    exact = batch * (size / other) ** 2
    assert found >= 2
    if other == size:
        assert found == batch
    elif exact >= 8:
        assert found % 8 == 0
        assert exact - 8 < found <= exact + 1e-6
    else:
        assert found % 2 == 0


def test_batches_follow_the_rule_or_the_list() -> None:
    found = timeline(sizes=[32, 64], epochs=2, batch_rule="area")
    assert [(found.at(s).size, found.at(s).batch_size) for s in (0, found.first_steps[1])] == [(32, 32), (64, 8)]
    assert [found.steps_in(epoch) for epoch in (0, 1)] == [3, 12]
    found = timeline(sizes=[32, 64], epochs=2, batch_sizes=[20, 10])
    assert [found.steps_in(epoch) for epoch in (0, 1)] == [5, 10]


RULES = st.sampled_from(["step", "random", "window"])


@settings(max_examples=60, deadline=None)
@given(RULES, st.integers(1, 9), st.integers(64, 400), st.integers(0, 10**6), st.booleans(), st.data())
def test_every_step_has_one_place_and_batches_do_not_overlap(
    rule: str, epochs: int, num_samples: int, seed: int, area: bool, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(24, 96), min_size=1, max_size=min(4, epochs)))
    stage = {"sizes": chosen, "size_schedule": rule, "epochs": epochs, "batch_rule": "area" if area else "constant"}
    found = timeline(num_samples, seed, **stage)
    assert set(found.sizes) <= set(chosen)
    places = [found.at(step) for step in range(found.total_steps)]
    for epoch in range(epochs):
        own = [place for place in places if place.epoch == epoch]
        assert len(own) == found.steps_in(epoch)
        ends = np.cumsum([place.batch_size for place in own])
        assert [place.start for place in own] == [0, *ends[:-1].tolist()]
        assert ends[-1] <= num_samples
        largest = max(choice.batch_size for choice in found.choices[epoch])
        assert num_samples - ends[-1] < largest


def test_random_sizes_are_drawn_per_batch_in_proportion_and_repeat() -> None:
    stage = {"sizes": [32, 64], "size_schedule": "random", "size_weights": [3, 1], "epochs": 5}
    found = timeline(8 * 800, **stage)
    places = [found.at(step) for step in range(found.total_steps)]
    share = np.mean([place.size == 32 for place in places])
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(places)) ** 0.5
    assert len({place.size for place in places[:20]}) == 2
    again = pickle.loads(pickle.dumps(found))
    assert [again.at(step) for step in range(2000, 2100)] == places[2000:2100]
    other = timeline(8 * 800, seed=1, **stage)
    assert [other.at(step).size for step in range(50)] != [place.size for place in places[:50]]
    later = timeline(8 * 800, stage_index=1, **stage)
    assert [later.at(step).size for step in range(50)] != [place.size for place in places[:50]]


def test_a_weight_of_zero_is_never_drawn() -> None:
    found = timeline(800, sizes=[32, 48, 64], size_schedule="random", size_weights=[1, 0, 1])
    assert {found.at(step).size for step in range(found.total_steps)} == {32, 64}


def test_the_window_moves_from_the_first_size_to_the_last() -> None:
    found = timeline(8 * 400, sizes=[32, 48, 64], size_schedule="window", epochs=5)
    means = [
        np.mean([found.at(step).size for step in range(found.first_steps[epoch], found.first_steps[epoch + 1])])
        for epoch in range(5)
    ]
    assert means == sorted(means)
    assert means[0] < 40
    assert means[-1] > 56


@given(st.integers(1, 8), st.floats(0, 1))
def test_the_weights_of_a_window_leave_no_size_out(num: int, progress: float) -> None:
    weights = window_weights(num, progress)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0.1 / num - 1e-12
    assert abs(int(np.argmax(weights)) - progress * (num - 1)) <= 0.5 + 1e-9


@given(st.floats(0, 6))
def test_epochs_turn_into_steps_and_back(epochs: float) -> None:
    found = timeline(sizes=[32, 64], batch_rule="area")
    step = found.steps_after(epochs)
    assert 0 <= step <= found.total_steps
    assert abs(found.epochs_done(step) - epochs) <= 0.5 / min(found.steps_in(e) for e in range(6)) + 1e-9


def test_a_batch_that_does_not_fit_is_refused_with_its_size() -> None:
    with pytest.raises(UserError, match="a batch of 32 at 32 px is larger than an epoch of 20 pictures"):
        timeline(20, sizes=[32, 64], batch_rule="area")
