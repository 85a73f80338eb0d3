from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.resolution import (
    Preprocess,
    apparent_ratio,
    candidate_sizes,
    choose_size,
    exact_matching_size,
    matching_size,
    mean_crop_side,
    one_error_rule,
    pareto_front,
    seen_share,
    simulated_crop_sides,
    simulated_ratio,
)


@given(st.integers(16, 1024))
def test_resize_size_is_the_reference_rule(size: int) -> None:
    assert Preprocess(size, 0.875).resize_size == int(256 / 224 * size)


@given(st.integers(16, 1024))
def test_a_crop_ratio_of_one_throws_nothing_away(size: int) -> None:
    assert Preprocess(size, 1.0).resize_size == size


@pytest.mark.parametrize(
    ("area", "side", "correction"),
    [(0.08, 0.7082, 1.235), (0.05, 0.694, 1.261), (0.2, 0.759, 1.153), (0.25, 0.778, 1.125), (0.5, 0.862, 1.015)],
)
def test_mean_crop_side_and_correction_of_the_paper(area: float, side: float, correction: float) -> None:
    assert mean_crop_side((area, 1.0)) == pytest.approx(side, abs=1e-3)
    assert 1 / (mean_crop_side((area, 1.0)) * 8 / 7) == pytest.approx(correction, abs=2e-3)


@given(st.floats(0.01, 0.98), st.floats(0.005, 0.5))
def test_mean_crop_side_is_the_mean_of_the_law(low: float, width: float) -> None:
    high = min(1.0, low + width)
    area = np.linspace(low, high, 200_001)
    assert mean_crop_side((low, high)) == pytest.approx(np.sqrt(area).mean(), rel=1e-4)


def test_the_paper_resnet_peaks_where_objects_look_as_in_training() -> None:
    assert matching_size(Preprocess(224), "random", (0.08, 1.0)) == 288
    assert matching_size(Preprocess(128), "random", (0.08, 1.0)) == 160


@pytest.mark.parametrize(
    ("size", "crop_ratio", "exact", "matching"),
    [
        (32, 0.875, 40.2, 64),
        (64, 0.875, 79.2, 96),
        (64, 1.0, 90.4, 96),
        (224, 0.875, 276.7, 288),
        (160, 0.875, 198.6, 192),
    ],
)
def test_the_matching_size_is_not_the_train_size_where_objects_look_smaller(
    size: int, crop_ratio: float, exact: float, matching: int
) -> None:
    train = Preprocess(size, crop_ratio)
    assert exact_matching_size(train, "random", (0.08, 1.0)) == pytest.approx(exact, abs=0.1)
    assert matching_size(train, "random", (0.08, 1.0)) == matching


def test_the_matching_size_is_one_that_the_network_takes() -> None:
    train = Preprocess(224)
    assert matching_size(train, "random", (0.08, 1.0), is_legal=lambda size: size % 64 == 0) == 256
    assert matching_size(train, "random", (0.08, 1.0), 14) == 280
    assert matching_size(train, "random", (0.08, 1.0), is_legal=lambda size: size == 224) == 224
    assert matching_size(train, "center", (0.08, 1.0)) == 224
    assert matching_size(Preprocess(50), "center", (0.08, 1.0)) == 50


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_without_a_centre_crop_the_ratio_is_that_of_the_random_crop(resize: Literal["squash", "pad"]) -> None:
    train = Preprocess(224, resize=resize)
    ratio = apparent_ratio(train, "random", (0.08, 1.0), train)
    assert ratio == pytest.approx(0.708, abs=1e-3)
    # Crops whose shape hardly varies all fit, so that the two differ by what is drawn alone.
    simulated = simulated_ratio(train, (0.08, 0.9), (0.99, 1.01), train, [1.0])
    assert simulated == pytest.approx(apparent_ratio(train, "random", (0.08, 0.9), train), abs=5e-3)
    assert apparent_ratio(train, "center", (0.08, 1.0), train.at(448)) == 2


def test_a_padded_picture_shows_objects_smaller_the_longer_it_is() -> None:
    squash, pad = Preprocess(224, resize="squash"), Preprocess(224, resize="pad")
    scale, shape = (0.08, 0.5), (0.99, 1.01)
    long = [simulated_ratio(p, scale, shape, p, [1.5]) for p in (squash, pad)]
    # The longer side is sqrt(1.5) of the root of the area.
    assert long[1] == pytest.approx(long[0] / math.sqrt(1.5), rel=1e-2)


def test_apparent_ratio_by_crop() -> None:
    train, test = Preprocess(224), Preprocess(448)
    assert apparent_ratio(train, "random", (0.08, 1.0), train) == pytest.approx(0.8094, abs=1e-3)
    assert apparent_ratio(train, "center", (0.08, 1.0), train) == 1
    assert apparent_ratio(train, "pad", (0.08, 1.0), train) == pytest.approx(256 / 224)
    assert apparent_ratio(train, "center", (0.08, 1.0), test) == 2


@given(st.integers(16, 600))
def test_candidate_sizes_start_at_the_train_size_and_end_below_its_double(train_size: int) -> None:
    sizes = candidate_sizes(train_size)
    assert sizes[0] == train_size
    assert list(sizes) == sorted(set(sizes))
    assert all(size % 32 == 0 for size in sizes[1:])
    assert sizes[-1] <= max(train_size, 2 * train_size)
    assert len(sizes) <= 8


def test_choose_size_takes_the_cheaper_of_two_that_cannot_be_told_apart() -> None:
    better = np.ones((2, 1000), dtype=bool)
    better[0, :2] = False
    better[1, 2] = False
    size, why = choose_size([128, 160], better, [1.0, 2.0])
    assert size == 128
    assert "within one standard error of the best" in why


def test_choose_size_takes_the_larger_when_it_is_clearly_better() -> None:
    better = np.ones((2, 1000), dtype=bool)
    better[0, :100] = False
    assert choose_size([128, 160], better, [1.0, 2.0])[0] == 160


def test_before_a_fix_smaller_sizes_than_those_of_training_are_left_out() -> None:
    correct = np.ones((3, 1000), dtype=bool)
    correct[1:, :100] = False
    assert choose_size([128, 160, 192], correct, [1.0, 2.0, 3.0])[0] == 128
    size, why = choose_size([128, 160, 192], correct, [1.0, 2.0, 3.0], at_least=160)
    assert size == 160
    assert "from 160 px on objects look as large as in training" in why
    assert choose_size([128, 160, 192], correct, [1.0, 2.0, 3.0], at_least=256)[0] == 128
    correct[1, :200] = False
    assert choose_size([128, 160, 192], correct, [1.0, 2.0, 3.0], at_least=160)[0] == 192


def test_it_is_said_which_sizes_were_compared_and_which_were_left_out() -> None:
    correct = np.ones((5, 100), dtype=bool)
    correct[:4, :50] = False
    sizes, cost = [64, 80, 96, 112, 128], [1.0, 2.0, 3.0, 4.0, 5.0]
    _, why = choose_size(sizes, correct, cost, at_least=96)
    assert why == (
        "100.0 % before the fix, the best of 3 sizes (96, 112, 128 px); from 96 px on objects look as large as in "
        "training, which leaves out 64, 80 px"
    )
    assert choose_size(sizes, correct, cost)[1] == "100.0 %, the best of 5 sizes"


def test_the_one_error_rule_goes_by_the_paired_difference_of_any_loss() -> None:
    generator = np.random.default_rng(0)
    base = generator.exponential(size=200)
    # Each picture's own difficulty, far larger than the difference, cancels out.
    noise = 0.2 * generator.standard_normal(200)
    losses = np.stack([base + 0.01, base, base + noise - noise.mean() + 0.002])
    assert one_error_rule(losses, [1.0, 2.0, 0.5]) == (1, 2)
    assert one_error_rule(losses[:2], [1.0, 2.0]) == (1, 1)


@given(st.integers(0, 2**32 - 1))
def test_choose_size_never_takes_a_size_that_is_dearer_and_worse(seed: int) -> None:
    generator = np.random.default_rng(seed)
    correct = generator.random((4, 50)) < generator.random((4, 1))
    sizes, cost = [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]
    chosen = sizes.index(choose_size(sizes, correct, cost)[0])
    accuracy = correct.mean(axis=1)
    assert not any(accuracy[i] >= accuracy[chosen] and cost[i] < cost[chosen] for i in range(4))


def test_preprocess_keeps_the_field_of_view_at_another_size() -> None:
    small = Preprocess(128, crop_ratio=0.8)
    large = small.at(256)
    assert large.resize_size == 320
    assert math.isclose(small.size / small.resize_size, large.size / large.resize_size, rel_tol=0.01)


ALL = (0.08, 1.0)


def test_the_formula_gives_the_figures_of_the_paper() -> None:
    ratio = apparent_ratio(Preprocess(224), "random", ALL, Preprocess(224))
    assert mean_crop_side(ALL) == pytest.approx(0.7082, abs=5e-5)
    assert ratio == pytest.approx(0.8094, abs=5e-5)
    assert 1 / ratio == pytest.approx(1.235, abs=5e-4)
    assert matching_size(Preprocess(224), "random", ALL) == 288


@pytest.mark.parametrize(
    ("aspect", "side", "ratio"), [(1.0, 0.668, 0.763), (4 / 3, 0.635, 0.838), (3 / 2, 0.603, 0.844)]
)
def test_the_crop_that_is_drawn_is_smaller_than_the_formula(aspect: float, side: float, ratio: float) -> None:
    assert simulated_crop_sides(aspect, ALL, num=100_000).mean() == pytest.approx(side, abs=2e-3)
    p = Preprocess(224)
    assert simulated_ratio(p, ALL, (3 / 4, 4 / 3), p, [aspect]) == pytest.approx(ratio, abs=5e-3)


def test_the_height_resize_of_a_portrait_shows_objects_smaller() -> None:
    p = Preprocess(224, resize="height")
    assert simulated_ratio(p, ALL, (3 / 4, 4 / 3), p, [3 / 4]) == pytest.approx(0.628, abs=5e-3)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten_and_everything_else_is(points: list[tuple[int, int]]) -> None:
    cost, accuracy = [c for c, _ in points], [a for _, a in points]
    front = pareto_front(cost, accuracy)
    for i in range(len(points)):
        beaten = any(
            cost[j] <= cost[i] and accuracy[j] >= accuracy[i] and (cost[j], accuracy[j]) != (cost[i], accuracy[i])
            for j in range(len(points))
        )
        assert not (i in front and beaten)
        twin = any((cost[j], accuracy[j]) == (cost[i], accuracy[i]) for j in front)
        assert i in front or beaten or twin


@given(st.integers(32, 300), st.floats(0.4, 2.5), st.sampled_from(["shorter", "height", "squash", "pad"]))
def test_the_share_seen_is_that_of_the_crop(size: int, aspect: float, resize: str) -> None:
    p = Preprocess(size, resize=resize)  # type: ignore[arg-type]
    share = seen_share(p, aspect)
    assert 0 < share <= 1
    if resize in ("squash", "pad"):
        assert share == 1
        return
    # A picture of height 1,000 and that aspect, resized and cropped: the pixels of it that are left.
    side = 1000 * (min(1.0, aspect) if resize == "shorter" else 1.0)
    crop = side * p.size / p.resize_size
    assert share == pytest.approx(min(crop, 1000 * aspect) * min(crop, 1000) / (1000 * 1000 * aspect))


def test_random_crops_show_the_mean_of_their_scale_where_every_shape_fits() -> None:
    sides = [simulated_crop_sides(1.0, scale, num=100_000) for scale in ((0.1, 0.5), (0.08, 1.0))]
    assert np.square(sides[0]).mean() == pytest.approx(0.3, abs=2e-3)
    assert np.square(sides[1]).mean() < 0.54
