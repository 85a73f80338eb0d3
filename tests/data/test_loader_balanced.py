"""Balanced batches: every class equally often in each, the same for any workers and any start."""

from __future__ import annotations

from typing import Any

import torch

from fixres.config.recipe import Stage
from fixres.data.loader import Batch
from tests.support.batches import same, training_batches, unequal

FEW = unequal()


def trained(first_step: int = 0, workers: int = 0, **values: Any) -> list[Batch]:
    """Return all batches of a stage on the unequal split."""
    fields: dict[str, Any] = {
        "size": 16, "epochs": 3, "batch_size": 6, "crop": "random", "crop_scale": (0.2, 1.0), "augment": "flip",
    }  # fmt: skip
    stage = Stage.model_construct(**(fields | values))
    return training_batches(FEW, stage, first_step=first_step, workers=workers)


def test_balanced_batches_hold_every_class_equally_often_and_copies_differ() -> None:
    for batch in trained(sampler="balanced"):
        assert torch.bincount(batch.labels, minlength=3).tolist() == [2, 2, 2]
        only = batch.images[batch.labels == 2]
        assert not torch.equal(only[0], only[1])
    plain = torch.cat([batch.labels for batch in trained()])
    assert torch.bincount(plain, minlength=3).tolist() == [24, 9, 3]


def test_balanced_batches_do_not_depend_on_workers_and_go_on_at_any_step() -> None:
    whole = trained(sampler="balanced")
    for workers in (1, 4):
        assert same(trained(sampler="balanced", workers=workers), whole)
    for step in range(1, len(whole)):
        assert same(trained(sampler="balanced", first_step=step), whole[step:])
