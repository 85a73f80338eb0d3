"""Batches of repeated augmentation: copies that differ, the same for any workers and any start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fixres.config.recipe import Data, Stage
from fixres.data.collections import open_collection
from fixres.data.loader import Batch
from fixres.data.progressive_sizes import steps_per_epoch
from fixres.data.sampling import (
    sample_seed,
)
from fixres.data.transforms import train_crop
from fixres.errors import UserError
from fixres.resolution import Preprocess
from tests.support.batches import same, training_batches
from tests.support.reference_sampler import described

SPLIT = open_collection(Data(uri="synthetic:classes=3,images=24,size=24")).split("train")


def stage(**values: Any) -> Stage:
    """Return a stage of 16 px, batches of 6 and repeated augmentation, with the given fields."""
    defaults: dict[str, Any] = {
        "size": 16, "epochs": 2, "batch_size": 6, "crop": "random", "crop_scale": (0.2, 1.0), "augment": "trivial",
        "rotation": (0.0, 270.0), "vertical_flip": 0.5, "erasing": 0.3, "repeats": 3,
    }  # fmt: skip
    return Stage.model_construct(**(defaults | values))


def trained(first_step: int = 0, workers: int = 0, seed: int = 0, **values: Any) -> list[Batch]:
    """Return all batches of a stage."""
    return training_batches(SPLIT, stage(**values), seed=seed, workers=workers, first_step=first_step)


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
