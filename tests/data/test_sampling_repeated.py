"""Repeated augmentation: the published order to the index, and equal shards by default."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.config.loading import load, to_yaml
from fixres.data.sampling import (
    Indices,
    compat_list,
    copy_numbers,
    describe_length,
    epoch_indices,
    num_epoch_samples,
    rank_shard,
)
from fixres.errors import UserError
from tests.support.reference_sampler import described

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
    listed = compat_list(num_images, 2 * num_images, 3, seed, 0)
    for rank, recorded in enumerate(PUBLISHED[case]):
        # The reference goes on with entries that fill up every process, which its training loop stops before.
        shard = rank_shard(listed, rank, world).tolist()
        assert shard == recorded[: len(shard)]
        assert len(shard) in (2 * num_images // world, -(-2 * num_images // world))


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_compat_follows_the_description_for_any_seed_size_and_epoch(
    num: int, seed: int, repeats: int, factor: float
) -> None:
    factor = min(factor, repeats)
    num_listed = int(factor * num)
    for epoch, listed in enumerate(described(num, seed, 3, repeats, factor, 1)):
        assert compat_list(num, num_listed, repeats, seed, epoch).tolist() == listed[:num_listed]


def drawn(num_images: int, num_samples: int, repeats: int, epoch: int = 0, **changes: Any) -> Indices:
    """Return the default order of an epoch."""
    coordinates = {"seed": 0, "stage": 0, "epoch": epoch} | changes
    return epoch_indices(np.zeros(num_images, dtype=np.int64), num_samples, "shuffle", repeats, **coordinates)


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


@pytest.mark.parametrize(
    ("num_images", "expected"), [(1_281_167, 2_562_560), (144, 288), (1_281_166, 2_562_557), (1, 2)]
)
def test_a_published_length_is_followed_there_and_a_multiple_elsewhere(num_images: int, expected: int) -> None:
    assert num_epoch_samples(num_images, "2562560/1281167") == expected
    said = describe_length(num_images, "2562560/1281167", "train")
    assert bool(said) == (num_images != 1_281_167)


def test_a_length_far_from_the_split_s_is_pointed_out() -> None:
    assert describe_length(144, "2562560/1281167", "train") == (
        "an epoch of stage train is 2 x the 144 pictures here, 288 samples: the 2,562,560 of train.epoch_samples "
        "belong to the 1,281,167 pictures it was published for"
    )
    assert "17,796 x the 144 pictures here" in describe_length(144, 2_562_560, "train")
    assert not describe_length(1_281_167, 2_562_560, "train")
    assert not describe_length(144, 2.0, "train")


def test_a_published_length_is_a_setting_like_the_others(tmp_path: Path) -> None:
    recipe = load(None, {"data.uri": "x", "train.epoch_samples": "5000/2500"})
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert load(tmp_path / "r.yaml") == recipe
    for wrong in ("5000/0", "5000/", "5000 of 2500", "x"):
        with pytest.raises(UserError, match=r"expected an integer >= 1 or a number > 0 or SAMPLES/PICTURES"):
            load(None, {"data.uri": "x", "train.epoch_samples": wrong})


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
