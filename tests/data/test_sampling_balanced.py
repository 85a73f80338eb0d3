"""The balanced order: every class equally often, in every beginning of an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.sampling import balanced_order, rank_shard
from tests.support.batches import unequal

FEW = unequal()


@given(
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 3]), min_size=1, max_size=50), st.integers(0, 120), st.integers(0, 5)
)
def test_every_class_comes_equally_often_and_no_picture_twice_before_all(
    labels: list[int], num: int, epoch: int
) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    order = balanced_order(given_labels, num, 0, 0, epoch)
    assert (len(order), order.dtype) == (num, np.int64)
    present = sorted(set(labels))
    # In every beginning of the epoch, so that a cut last batch or a stop takes nothing from any class.
    for end in {num, num // 2, num // 3}:
        counts = Counter(given_labels[order[:end]].tolist())
        assert max(counts.get(label, 0) for label in present) - min(counts.get(label, 0) for label in present) <= 1
    for label in present:
        shown = [index for index in order.tolist() if labels[index] == label]
        size = labels.count(label)
        for start in range(0, len(shown), size):
            cycle = shown[start : start + size]
            assert len(set(cycle)) == len(cycle)


def test_the_balanced_order_belongs_to_seed_stage_and_epoch() -> None:
    orders = [balanced_order(FEW.labels, 30, *c).tolist() for c in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({tuple(order) for order in orders}) == 4
    assert balanced_order(FEW.labels, 30, 0, 0, 0).tolist() == orders[0]


def test_pictures_of_a_class_and_classes_within_a_round_have_equal_chances() -> None:
    labels = np.repeat([0, 1, 2], [10, 2, 4]).astype(np.int64)
    orders = np.stack([balanced_order(labels, 3, 0, 0, epoch) for epoch in range(3000)])
    first_class = np.bincount(labels[orders[:, 0]], minlength=3)
    # 2 degrees of freedom, 99.9 % point 13.8.
    assert ((first_class - 1000) ** 2 / 1000).sum() < 13.8
    of_first = np.bincount(orders[labels[orders] == 0], minlength=10)
    # 9 degrees of freedom, 99.9 % point 27.9.
    assert ((of_first - 300) ** 2 / 300).sum() < 27.9


def test_a_rare_class_of_a_large_set_costs_no_loop_over_its_repeats() -> None:
    labels = np.zeros(200_000, dtype=np.int64)
    labels[:2] = 1
    counts = np.bincount(balanced_order(labels, 200_000, 0, 0, 0))
    assert counts[:2].tolist() == [50_000, 50_000]
    assert set(counts[2:].tolist()) == {0, 1}


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shards_of_a_balanced_epoch_partition_it(world: int) -> None:
    order = balanced_order(FEW.labels, 30, 0, 0, 0)
    shards = np.concatenate([rank_shard(order, rank, world) for rank in range(world)])
    assert sorted(shards.tolist()) == sorted(order.tolist())
