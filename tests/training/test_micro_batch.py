"""Micro-batches change nothing but memory, and the largest that fits is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training import micro_batch as microbatch
from fixres.training.micro_batch import chunk_count, largest_that_fits
from fixres.training.run import run_recipe
from tests.support.same_run import assert_same_run

Make = Callable[..., Recipe]


def test_micro_batches_of_a_network_without_batch_norm_change_nothing_but_rounding(
    make_recipe: Make, tmp_path: Path
) -> None:
    def run(micro_batch: Any, name: str) -> list[float]:
        stage = {"size": 32, "epochs": 2, "batch_size": 16, "lr": 0.01}
        recipe = make_recipe(
            model={"name": "test_convnext"},
            train=stage,
            runtime={"micro_batch": micro_batch},
            output={"log_every_steps": 1},
        )
        run_recipe(recipe, tmp_path / name)
        return [e["loss"] for e in read_events(tmp_path / name) if e["event"] == "train"]

    whole = run("auto", "a")
    assert run(3, "b") == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("num_images", "share", "micro_batch", "chunks"),
    [(16, 16, 16, 1), (16, 16, 5, 4), (15, 16, 8, 2), (3, 16, 2, 1), (9, 16, 2, 4)],
)
def test_no_micro_batch_is_left_with_one_picture(num_images: int, share: int, micro_batch: int, chunks: int) -> None:
    assert chunk_count(num_images, share, 1, 1) == num_images
    mixed = chunk_count(share, share, micro_batch, 2, is_even=True)
    assert {len(range(share)[number::mixed]) % 2 for number in range(mixed)} == {0}
    found = chunk_count(num_images, share, micro_batch, 2)
    assert found == chunks
    sizes = [len(range(num_images)[number::found]) for number in range(found)]
    assert sum(sizes) == num_images
    assert min(sizes) >= min(2, num_images)


@pytest.mark.parametrize(
    ("limit", "found", "tried"), [(99, 48, [48]), (20, 12, [48, 24, 12]), (2, 2, [48, 24, 12, 6, 3, 2])]
)
def test_the_largest_micro_batch_that_fits_is_found(limit: int, found: int, tried: list[int]) -> None:
    seen: list[int] = []

    def attempt(count: int) -> None:
        seen.append(count)
        if count > limit:
            raise torch.OutOfMemoryError

    assert largest_that_fits(48, 2, attempt, lambda fits: fits) == found
    assert seen == tried


def test_memory_that_holds_no_batch_at_all_is_said() -> None:
    def attempt(count: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="not even 2 pictures fit"):
        largest_that_fits(8, 2, attempt, lambda fits: fits)


def test_trying_a_micro_batch_leaves_no_trace(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}})
    run_recipe(recipe, tmp_path / "a")
    tried: list[int] = []

    def fit(shop: Any, run: Any, state: Any) -> int:
        monkeypatch.setattr(torch, "get_device_module", lambda device: torch.cuda)
        microbatch._try_step(shop, run, state, 32, 16)
        tried.append(16)
        return 16

    monkeypatch.setattr("fixres.training.loop.fit_micro_batch", fit)
    run_recipe(recipe, tmp_path / "b")
    assert tried == [16]
    assert_same_run(tmp_path / "a", tmp_path / "b")
