"""Order, seeds and splits depend on their coordinates and on nothing else."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.sampling import (
    _GAMMA,
    _MASK,
    Indices,
    _hash,
    _keys,
    _mix,
    epoch_indices,
    sample_draws,
    sample_seed,
    stratified_folds,
    stratified_split,
    uniforms,
)

SPLIT = {"train": 0.6, "val": 0.2, "test": 0.2}
coordinate = st.integers(min_value=-(2**31), max_value=2**40)


def epoch_order(num: int, seed: int, stage: int, epoch: int) -> Indices:
    """Return the pictures of an epoch without repeats."""
    return epoch_indices(np.zeros(num, dtype=np.int64), num, "shuffle", 1, seed=seed, stage=stage, epoch=epoch)


def test_values_never_change() -> None:
    """A saved run is resumed with these orders and seeds; another value breaks every one of them."""
    assert epoch_order(10, seed=0, stage=0, epoch=0).tolist() == [1, 9, 0, 8, 4, 6, 7, 2, 3, 5]
    assert sample_seed(0, 0, 0, 0, 0) == 4347993774885956143
    assert stratified_split(list("ababababab"), SPLIT, seed=7)["val"].tolist() == [1, 8]


@given(st.integers(0, 200), coordinate, st.integers(0, 5), st.integers(0, 500))
def test_epoch_order_is_a_permutation(num: int, seed: int, stage: int, epoch: int) -> None:
    order = epoch_order(num, seed, stage, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num))


def test_epoch_order_differs_by_every_coordinate() -> None:
    orders = [epoch_order(50, *c).tolist() for c in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0))]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_epoch_order_visits_every_place_equally_often() -> None:
    num, epochs = 10, 4000
    places = np.stack([epoch_order(num, 3, 0, epoch) for epoch in range(epochs)])
    counts = np.stack([np.bincount(places[:, k], minlength=num) for k in range(num)])
    expected = epochs / num
    # 81 degrees of freedom, 99.9 % point 125.8.
    assert ((counts - expected) ** 2 / expected).sum() < 125.8


@given(st.lists(coordinate, min_size=5, max_size=5), st.permutations(range(5)))
def test_no_two_coordinates_of_a_seed_are_interchangeable(coordinates: list[int], order: list[int]) -> None:
    permuted = [coordinates[k] for k in order]
    seed = sample_seed(*coordinates)
    assert 0 <= seed < 2**63
    assert (sample_seed(*permuted) == seed) == (permuted == coordinates)


def test_seeds_of_neighbours_do_not_collide_in_the_32_bits_the_generator_uses() -> None:
    seeds = [sample_seed(0, 0, epoch, index, 0) & 0xFFFFFFFF for epoch in range(10) for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    bits = np.array([[seed >> k & 1 for k in range(32)] for seed in seeds]).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.03


def test_copies_of_a_picture_get_their_own_seed() -> None:
    assert len({sample_seed(0, 0, 0, 5, copy) for copy in range(100)}) == 100


@given(
    st.lists(st.sampled_from("abcd"), max_size=120),
    st.sampled_from(
        [SPLIT, {"train": 0.9, "val": 0.1}, {"train": 1.0, "val": 0.0}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}]
    ),
    coordinate,
)
def test_split_is_disjoint_covering_and_stratified(strata: list[str], fractions: dict[str, float], seed: int) -> None:
    parts = stratified_split(strata, fractions, seed)
    assert list(parts) == list(fractions)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(strata)))
    for name, indices in parts.items():
        assert indices.tolist() == sorted(indices.tolist())
        counts = Counter(strata[i] for i in indices)
        for stratum, total in Counter(strata).items():
            assert abs(counts[stratum] - total * fractions[name]) < 1


def test_split_counts_are_not_decided_by_rounding_noise() -> None:
    parts = stratified_split(["x"] * 30, {"train": 0.9, "val": 0.1}, seed=0)
    assert (len(parts["train"]), len(parts["val"])) == (27, 3)
    parts = stratified_split(["x"] * 5, {"train": 0.9, "val": 0.1}, seed=0)
    assert (len(parts["train"]), len(parts["val"])) == (5, 0)


def test_split_depends_on_the_index_and_not_on_names_or_order_of_strata() -> None:
    strata = [k % 3 for k in range(60)]
    renamed = [f"class {2 - s}" for s in strata]
    for name, indices in stratified_split(strata, SPLIT, 1).items():
        assert indices.tolist() == stratified_split(renamed, SPLIT, 1)[name].tolist()
    assert stratified_split(strata, SPLIT, 1)["val"].tolist() != stratified_split(strata, SPLIT, 2)["val"].tolist()


@pytest.mark.parametrize("fractions", [{"train": 0.9}, {"train": 0.9, "val": 0.2}, {"train": 1.2, "val": -0.2}])
def test_split_refuses_fractions_that_do_not_make_a_whole(fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        stratified_split(["a", "b"], fractions, 0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(1, 7), st.integers(0, 99))
def test_folds_are_even_in_all_and_within_every_class(labels: list[int], num_folds: int, seed: int) -> None:
    array = np.array(labels, dtype=np.int64)
    folds = stratified_folds(array, num_folds, seed)
    assert np.array_equal(folds, stratified_folds(array, num_folds, seed))
    for own in (folds, *(folds[array == label] for label in set(labels))):
        counts = np.bincount(own, minlength=num_folds)
        assert len(counts) == num_folds
        assert np.ptp(counts) <= 1


def test_folds_of_another_seed_are_others() -> None:
    labels = np.zeros(50, dtype=np.int64)
    assert not np.array_equal(stratified_folds(labels, 5, 0), stratified_folds(labels, 5, 1))


def test_keys_do_not_depend_on_the_pieces_they_are_made_in() -> None:
    num, base = 70_000, _hash(3, 1, 4)
    keys = _keys(num, base)
    for place in (0, 1, 65_535, 65_536, 65_537, num - 1):
        assert int(keys[place]) == _mix((base + (place + 1) * _GAMMA) & _MASK)
    assert len(np.unique(keys)) == num


def test_drawing_an_epoch_takes_little_more_memory_than_the_epoch() -> None:
    num = 1_000_000
    labels = np.zeros(num, dtype=np.int64)
    tracemalloc.start()
    epoch_indices(labels, num, "shuffle", 1, seed=0, stage=0, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The keys and the order, 8 bytes each, and 2 MB for what is made in pieces.
    assert peak < 16 * num + 2_000_000


def test_uniforms_are_uniform_and_belong_to_their_coordinates() -> None:
    drawn = uniforms(20_000, 1, 2)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.bincount((drawn * 20).astype(int), minlength=20)
    # 19 degrees of freedom, 99.9 % point 43.8.
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
    assert uniforms(5, 1, 2).tolist() == drawn[:5].tolist()
    assert uniforms(5, 2, 1).tolist() != drawn[:5].tolist()


@given(st.integers(0, 2**40), st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 9)), min_size=1, max_size=5))
def test_draws_of_a_batch_are_those_of_every_sample_alone(seed: int, samples: list[tuple[int, int]]) -> None:
    indices, copies = (np.array(column, dtype=np.int64) for column in zip(*samples, strict=True))
    drawn = sample_draws(3, seed, 1, 2, indices, copies)
    for row, (index, copy) in zip(drawn, samples, strict=True):
        keys = _keys(3, _hash(seed, 1, 2, index, copy))
        assert row.tolist() == [(int(key) >> 11) * 2.0**-53 for key in keys]
