"""What training the time left allows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.experiments.speeds import fix_size, sizes_for
from fixres.experiments.time_plan import (
    ENOUGH_OF_WHOLE,
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    Clock,
    Pace,
    fewest_epochs,
    plan_training,
    shortest_training,
)

PACES = (Pace(64, 400, 100), Pace(96, 200, 50), Pace(128, 100, 25))
SIZES = st.sampled_from([32, 64, 96, 128, 160, 224])
RATES = st.floats(0.1, 1e5)
PLANS = st.builds(Pace, SIZES, RATES, RATES)


def test_what_is_measured_for_the_training_takes_nothing_of_the_probes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(3, started=1000.0, earlier=20.0)
    for now, aside, share in ((1000.0, 0.0, 40.0), (1030.0, 0.0, 10.0), (1030.0, 12.0, 22.0), (1100.0, 12.0, 0.0)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert clock.share(1 / 3, aside) == pytest.approx(share)


def test_the_largest_size_with_room_for_enough_epochs_is_taken() -> None:
    # An epoch of 1,000 pictures takes 10.25 s at 64 px, 20.5 s at 96 px, 41 s at 128 px.
    assert plan_training(95, PACES, 1000, 100).size == 96
    assert plan_training(190, PACES, 1000, 100).size == 128
    assert plan_training(60, PACES, 1000, 100).size == 64


def test_nothing_is_trained_where_too_few_epochs_fit() -> None:
    assert plan_training(25, PACES, 1000, 100) is None
    assert plan_training(100, (), 1000, 100) is None


def test_of_many_pictures_fewer_epochs_are_enough() -> None:
    assert [fewest_epochs(num) for num in (1, 400, 2_000, 3_000, 8_000, 10**6)] == [4, 4, 4, 3, 1, 1]
    planned = plan_training(150, PACES, 10_000, 100)
    assert (planned.size, planned.epochs) == (64, 1)


@given(st.floats(0, 1e5), st.lists(PLANS, max_size=6), st.integers(1, 10**6), st.integers(0, 10**5))
def test_a_plan_keeps_to_the_time_and_is_one_of_those_offered(
    seconds: float, paces: list[Pace], num_train: int, num_select: int
) -> None:
    planned = plan_training(seconds, paces, num_train, num_select)
    if planned is not None:
        assert planned.seconds <= seconds
        assert 1 <= planned.epochs <= MOST_EPOCHS
        assert planned.size in {pace.size for pace in paces}


@given(st.lists(PLANS, min_size=1, max_size=6), st.integers(1, 1000))
def test_more_time_never_means_a_smaller_size_or_none(paces: list[Pace], num_train: int) -> None:
    sizes = []
    for seconds in (1.0, 10.0, 100.0, 1000.0, 1e7):
        planned = plan_training(seconds, paces, num_train, 0)
        sizes.append(planned.size if planned and planned else 0)
    assert sizes == sorted(sizes)


def test_a_control_is_left_out_where_training_needs_its_time() -> None:
    paces = [Pace(64, 400, 100, 30 if control else 10, control) for control in (True, False)]
    assert plan_training(100, paces, 1000, 100).has_control
    tight = plan_training(60, paces, 1000, 100)
    assert (tight.epochs, tight.has_control) == (FEWEST_EPOCHS, False)


def test_a_fix_is_never_smaller_than_the_training() -> None:
    assert [fix_size(size, "test_resnet") for size in (96, 192, 224, 300)] == [128, 224, 224, 300]


def test_a_network_is_trained_and_fixed_at_sizes_it_can_take() -> None:
    # Its patches are 14 px.
    name = "eva02_tiny_patch14_224"
    assert sizes_for(name, 96, 128) == [98, 126]
    assert fix_size(98, name) == 126


def test_the_last_part_alone_is_trained_where_the_whole_has_too_little_time() -> None:
    # An epoch of 1,000 pictures takes 10 s, and 5 s of the last part alone.
    paces = [Pace(64, 1e9, 100), Pace(64, 1e9, 200, is_whole=False)]
    short, long = plan_training(40, paces, 1000, 100), plan_training(120, paces, 1000, 100)
    assert (short.is_whole, short.epochs) == (False, 7)
    assert (long.is_whole, long.epochs) == (True, ENOUGH_OF_WHOLE)


@given(st.lists(PLANS, min_size=1), st.integers(1, 10_000), st.integers(0, 1_000))
def test_the_shortest_training_fits_into_what_it_asks_for(paces: list[Pace], num_train: int, num_select: int) -> None:
    needed = shortest_training(paces, num_train, num_select)
    planned = plan_training(needed * (1 + 1e-9), paces, num_train, num_select)
    assert planned is not None
    assert planned.epochs >= fewest_epochs(num_train)
    less = plan_training(0.5 * needed, paces, num_train, num_select)
    assert less is None
