"""Repeated augmentation: the published order to the index, equal shards by default, copies that differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.config.loading import load, to_yaml
from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.loader import Batch, Draw, ReadPolicy, steps_per_epoch, train_batches
from fixres.data.sampling import (
    Indices,
    compat_list,
    compat_order,
    copy_numbers,
    epoch_indices,
    epoch_order,
    num_epoch_samples,
    rank_shard,
    sample_seed,
)
from fixres.data.transforms import train_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess

SPLIT = open_collection(Data(uri="synthetic:classes=3,images=24,size=24")).split("train")

# Recorded from the reference sampler: 3 repetitions, length factor 2.0, numpy seeded with `seed` on every rank.
PUBLISHED = {
    (0, 10): [
        [2, 2, 2, 8, 8, 8, 4, 4, 4, 9, 9, 9, 1, 1, 1, 6, 6, 6, 7, 7, 2, 2, 2, 8, 8, 8, 4, 4, 4, 9],
    ],
    (0, 10, 2): [
        [2, 2, 8, 4, 4, 9, 1, 1, 6, 7, 2, 2, 8, 4, 4],
        [2, 8, 8, 4, 9, 9, 1, 6, 6, 7, 2, 8, 8, 4, 9],
    ],
    (3, 17, 4): [
        [16, 6, 4, 14, 1, 11, 13, 5, 0, 16, 4, 7, 14],
        [16, 6, 7, 14, 1, 2, 13, 5, 12, 6, 4, 7, 1],
        [16, 4, 7, 14, 11, 2, 13, 0, 16, 6, 4, 14, 1],
        [6, 4, 7, 1, 11, 2, 5, 0, 16, 6, 7, 14, 1],
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_compat_gives_the_recorded_lists(case: tuple[int, ...]) -> None:
    seed, num_images, world = (*case, 1)[:3]
    order = compat_order(num_images, seed, world=world)
    assert [rank_shard(order, rank, world).tolist() for rank in range(world)] == PUBLISHED[case]


def described(num: int, seed: int, epochs: int, repeats: int, factor: float, world: int) -> list[list[int]]:
    """Return what the description of the reference says of `epochs` epochs in one process, step by step."""
    generator = np.random.RandomState(seed)
    found = []
    for _ in range(epochs):
        left = generator.permutation(num).tolist()
        listed: list[int] = []
        while len(listed) < int(factor * num):
            if not left:
                left = generator.permutation(num).tolist()
            listed += [left.pop(0)] * repeats
        listed = listed[: int(factor * num)]
        total = -(-num * repeats // world) * world
        while len(listed) < total:
            listed += listed[: total - len(listed)]
        found.append(listed)
    return found


@given(
    st.integers(2, 40), st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    st.integers(1, 9),
)  # fmt: skip
def test_compat_follows_the_description_for_any_seed_size_and_epoch(
    num: int, seed: int, repeats: int, factor: float, world: int
) -> None:
    factor = min(factor, repeats)
    for epoch, listed in enumerate(described(num, seed, 3, repeats, factor, world)):
        order = compat_order(num, seed, epoch, repeats=repeats, len_factor=factor, world=world)
        assert order.tolist() == listed
        shards = [rank_shard(order, rank, world) for rank in range(world)]
        assert {len(shard) for shard in shards} == {-(-num * repeats // world)}


@given(
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 64),
)
def test_compat_pads_with_the_head_of_the_list_as_far_as_there_is_one(
    num: int, seed: int, repeats: int, factor: float, world: int
) -> None:
    factor = min(factor, repeats)
    num_listed = int(factor * num)
    if not num_listed:
        return
    listed = compat_list(num, num_listed, repeats, seed, 0).tolist()
    total = -(-num * repeats // world) * world
    # What the description says, word for word: one head, cut where the list ends.
    padded = listed + listed[: total - num_listed]
    order = compat_order(num, seed, repeats=repeats, len_factor=factor, world=world).tolist()
    assert order[: len(padded)] == padded
    # Where one head is too short (few pictures, many processes), the list goes round again and shards stay equal.
    assert order == [listed[place % num_listed] for place in range(total)]
    if total <= 2 * num_listed:
        assert order == padded


def test_compat_refuses_a_list_longer_than_what_is_taken() -> None:
    with pytest.raises(ValueError, match="at most the repeats, 1, got 2"):
        compat_order(10, 0, repeats=1, len_factor=2.0)


# --- the default


def drawn(num_images: int, num_samples: int, repeats: int, epoch: int = 0, **changes: Any) -> Indices:
    """Return the default order of an epoch."""
    coordinates = {"seed": 0, "stage": 0, "epoch": epoch} | changes
    return epoch_indices(np.zeros(num_images, dtype=np.int64), num_samples, "shuffle", repeats, **coordinates)


def test_without_repeats_the_order_is_the_one_it_always_was() -> None:
    assert drawn(50, 50, 1, epoch=3, seed=7, stage=1).tolist() == epoch_order(50, 7, 1, 3).tolist()


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 200), st.integers(0, 9))
def test_an_epoch_repeats_each_draw_in_a_row_and_shows_all_before_any_again(
    num: int, repeats: int, num_samples: int, epoch: int
) -> None:
    order = drawn(num, num_samples, repeats, epoch)
    assert (len(order), order.dtype) == (num_samples, np.int64)
    whole = order[: num_samples // repeats * repeats].reshape(-1, repeats)
    assert (whole == whole[:, :1]).all()
    draws = order[::repeats]
    for start in range(0, len(draws), num):
        cycle = draws[start : start + num].tolist()
        assert len(set(cycle)) == len(cycle)


def test_seed_stage_and_epoch_change_the_order() -> None:
    changes: list[dict[str, int]] = [{}, {"seed": 1}, {"stage": 1}, {"epoch": 1}]
    assert len({tuple(drawn(40, 80, 3, **change).tolist()) for change in changes}) == 4


@given(st.integers(0, 300), st.integers(1, 17))
def test_shards_partition_the_epoch_for_any_number_of_processes(num_samples: int, world: int) -> None:
    order = drawn(90, num_samples, 3)
    shards = [rank_shard(order, rank, world) for rank in range(world)]
    assert Counter(np.concatenate(shards).tolist()) == Counter(order.tolist())
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world", [3, 4, 8])
def test_copies_go_to_neighbouring_processes_in_the_same_step(world: int) -> None:
    order, per_process = drawn(960, 960, 3), 15
    shards = np.stack([rank_shard(order, rank, world) for rank in range(world)])
    for start in range(0, shards.shape[1] - per_process + 1, per_process):
        batches = shards[:, start : start + per_process]
        assert all(len(set(batch.tolist())) == per_process for batch in batches)
        # A batch of all processes is a run of the epoch, so it is the same for any number of them.
        run = order[start * world : (start + per_process) * world]
        assert sorted(batches.ravel().tolist()) == sorted(run.tolist())


@given(st.lists(st.integers(0, 6), max_size=60))
def test_the_copy_number_counts_earlier_occurrences(indices: list[int]) -> None:
    copies = copy_numbers(np.array(indices, dtype=np.int64))
    assert copies.tolist() == [indices[:place].count(index) for place, index in enumerate(indices)]


@pytest.mark.parametrize(("given_as", "expected"), [(1.0, 24), (2.0, 48), (0.5, 12), (7, 7), (1, 1), (0.29, 6)])
def test_the_length_of_an_epoch_is_a_multiple_or_a_number(given_as: float, expected: int) -> None:
    assert num_epoch_samples(24, given_as) == expected


def test_a_multiple_loses_no_picture_to_rounding() -> None:
    assert num_epoch_samples(100, 0.29) == 29


# --- through the loader


def stage(**values: Any) -> Stage:
    """Return a stage of 16 px, batches of 6 and repeated augmentation, with the given fields."""
    defaults: dict[str, Any] = {
        "size": 16, "epochs": 2, "batch_size": 6, "crop": "random", "crop_scale": (0.2, 1.0), "augment": "trivial",
        "rotation": (0.0, 270.0), "vertical_flip": 0.5, "erasing": 0.3, "repeats": 3,
    }  # fmt: skip
    return Stage.model_construct(**(defaults | values))


def trained(first_step: int = 0, workers: int = 0, seed: int = 0, **values: Any) -> list[Batch]:
    """Return all batches of a stage."""
    batches = train_batches(
        SPLIT, stage(**values), Preprocess(16), Draw(seed, 0, first_step=first_step), ReadPolicy(workers)
    )
    return list(batches)


def same(first: list[Batch], second: list[Batch]) -> bool:
    """Return whether two lists of batches are bit-equal."""
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(first, second, strict=True)
    )


SAMPLING: list[dict[str, Any]] = [
    {},
    {"sampler": "compat", "epoch_samples": 2.0},
    {"sampler": "balanced", "epoch_samples": 1.5},
    {"repeats": 1, "epoch_samples": 13},
    {"repeats": 2, "crop": "resize", "augment": "randaugment"},
    {"crop": "pad", "augment": "flip", "rotation": (0.0, 0.0), "vertical_flip": 0.0, "erasing": 0.0},
]


@pytest.mark.parametrize("values", SAMPLING, ids=str)
def test_workers_and_resuming_at_any_step_do_not_change_a_bit(values: dict[str, Any]) -> None:
    whole = trained(**values)
    assert same(trained(workers=1, **values), whole)
    assert same(trained(workers=4, **values), whole)
    for step in range(1, len(whole)):
        assert same(trained(first_step=step, **values), whole[step:])
    assert same(trained(first_step=len(whole) // 2, workers=2, **values), whole[len(whole) // 2 :])


def test_the_copies_of_a_picture_are_augmented_differently_and_by_their_own_seeds() -> None:
    batch = trained()[0]
    first, second, third = batch.images[:3]
    assert len(set(batch.indices[:3].tolist())) == 1
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    index = int(batch.indices[0])
    for copy, image in enumerate(batch.images[:3]):
        torch.default_generator.manual_seed(sample_seed(0, 0, 0, index, copy))
        assert torch.equal(image, train_crop(SPLIT.read(index), stage(), Preprocess(16)))


@pytest.mark.parametrize("crop", ["random", "pad"])
def test_no_two_views_of_an_epoch_are_equal_however_far_apart_the_copies_are(crop: str) -> None:
    # Pad and flip alone have 50 views: a few of 4 copies of a picture may be equal, not all.
    values: dict[str, Any] = {"repeats": 1, "epoch_samples": 4.0, "epochs": 1, "crop": crop}
    if crop == "pad":
        values |= {"augment": "flip", "rotation": (0.0, 0.0), "vertical_flip": 0.0, "erasing": 0.0, "epochs": 2}
    batches = trained(**values)[:16]
    views: dict[int, list[bytes]] = {}
    for batch in batches:
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            views.setdefault(index, []).append(image.numpy().tobytes())
    assert {len(seen) for seen in views.values()} == {4}
    distinct = [len(set(seen)) for seen in views.values()]
    assert min(distinct) >= (4 if crop == "random" else 2)
    assert np.mean(distinct) > 3.5


def test_compat_through_the_loader_is_the_published_list_until_its_loop_stops() -> None:
    batches = trained(seed=5, sampler="compat", epoch_samples=2.0)
    assert len(batches) == 2 * (48 // 6)
    seen = torch.cat([batch.indices for batch in batches]).tolist()
    first, second = described(24, 5, 2, 3, 2.0, 1)
    assert seen == first[:48] + second[:48]


def test_an_epoch_has_the_steps_its_samples_fill() -> None:
    for samples, steps in ((1.0, 4), (2.0, 8), (1.5, 6), (13, 2), (6, 1)):
        assert steps_per_epoch(SPLIT, stage(epoch_samples=samples)) == steps
        assert len(trained(epoch_samples=samples)) == 2 * steps
    with pytest.raises(UserError, match=r"larger than an epoch of 4 samples \(train.epoch_samples 0.2\)"):
        steps_per_epoch(SPLIT, stage(epoch_samples=0.2))


# --- recipes


def test_a_recipe_states_repeats_and_the_length_of_an_epoch() -> None:
    recipe = load(
        None,
        {"data.uri": "x", "train.repeats": 3, "train.epoch_samples": 2.0, "data.sampler": "compat", "fix.epochs": 1},
    )
    assert (recipe.train.repeats, recipe.train.epoch_samples, recipe.train.sampler) == (3, 2.0, "compat")
    assert (recipe.fix.repeats, recipe.fix.epoch_samples, recipe.fix.sampler) == (1, 1.0, "compat")
    # A number of pictures stays one when it is written down, and a multiple a multiple.
    assert "epoch_samples: 2.0\n" in to_yaml(recipe)
    assert "epoch_samples: 5000\n" in to_yaml(load(None, {"data.uri": "x", "train.epoch_samples": 5000}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch_samples": 2}, r"2 pictures do not fill one batch of 64; a multiple .* has a point: 2.0"),
        ({"train.epoch_samples": 40}, r"40 pictures do not fill one batch of 64$"),
        ({"train.epoch_samples": 0}, r"expected an integer >= 1 or a number > 0"),
        ({"train.repeats": 0}, r"expected an integer >= 1"),
        ({"data.sampler": "compat", "seed": -1}, r"seed: sampler compat needs a seed that numpy takes"),
        ({"data.sampler": "balance"}, r"did you mean 'balanced'"),
    ],
)
def test_settings_that_cannot_work_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(None, {"data.uri": "x", **overrides})


def test_the_published_list_of_one_process_needs_no_padding_to_be_cut() -> None:
    assert compat_list(10, 20, 3, 0, 0).tolist() == PUBLISHED[0, 10][0][:20]
