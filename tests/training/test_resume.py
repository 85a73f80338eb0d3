"""A run goes on where it stopped, and only with the recipe and the pictures it began with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from tests.support.same_run import assert_same_run, weights
from tests.support.shared_runs import shared_run

Make = Callable[..., Recipe]


# Before there is a checkpoint, behind that of an epoch, in the last epoch, before the fix and within it.
@pytest.mark.parametrize("stop_at", [1, 3, 5, 6, 8])
def test_stopped_at_any_step_and_resumed_equals_uninterrupted(
    make_recipe: Make, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    recipe = make_recipe(
        ema={"enabled": True, "decay": 0.9},
        augment={"mixup": 0.2, "policy": "jitter"},
        model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}},
        fix={"size": 64, "epochs": 1, "batch_size": 16, "solver": "sgd"},
    )
    whole = shared_run(shared_folder, "uninterrupted", lambda folder: run_recipe(recipe, folder))
    done = 0
    original = StageTrainer.step

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return original(*args)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "status.json").read_text())["state"] == "stopped"
    monkeypatch.setattr(StageTrainer, "step", original)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_a_folder_with_a_run_is_refused_and_another_recipe_shows_the_difference(
    make_recipe: Make, trained_run: Path
) -> None:
    before = (trained_run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run_recipe(make_recipe(), trained_run)
    with pytest.raises(UserError, match=r"another recipe\n  fix.lr: 0.001 -> 0.0005\n  optim.lr: 0.02 -> 0.01"):
        run_recipe(make_recipe(optim={"lr": 0.01}), trained_run, resume=True)
    assert (trained_run / "metrics.jsonl").read_bytes() == before


def test_resuming_without_a_checkpoint_says_so_and_starts(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "r", resume=True)
    assert "holds no checkpoint" in read_events(tmp_path / "r")[0]["text"]


def test_more_epochs_need_extend_and_go_on_from_the_end(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, **more: Any) -> Recipe:
        schedule = {"name": "constant", "warmup_epochs": 0}
        stage = {"size": 32, "epochs": epochs, "batch_size": 16, **more}
        return make_recipe(train=stage, schedule=schedule, evaluation={"keep": "last"})

    run_recipe(recipe(3), tmp_path / "whole")
    run_recipe(recipe(2), tmp_path / "r")
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 3"):
        run_recipe(recipe(3), tmp_path / "r", resume=True)
    with pytest.raises(UserError, match=r"train.lr"):
        run_recipe(recipe(3, lr=0.5), tmp_path / "r", resume=True, extend=True)
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 1"):
        run_recipe(recipe(1), tmp_path / "r", resume=True, extend=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert json.loads((tmp_path / "r" / "status.json").read_text()) == {"state": "done", "exit_code": 0, "step": 9}
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "r")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_stage_of_a_list_can_be_extended(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, lr: float = 0.01) -> Recipe:
        first = {"size": 32, "epochs": 1, "batch_size": 16}
        settings = make_recipe().model_dump(mode="json", exclude={"train", "fix", "stages"})
        return validate({**settings, "stages": [first, {**first, "epochs": epochs, "lr": lr}]})

    run_recipe(recipe(1), tmp_path / "r")
    with pytest.raises(UserError, match=r"another recipe\n  stages.1.lr: 0.01 -> 0.5\n  go on"):
        run_recipe(recipe(1, lr=0.5), tmp_path / "r", resume=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert [e["epoch"] for e in read_events(tmp_path / "r") if e["event"] == "eval"] == [1, 1, 2, 3]


def test_a_run_does_not_go_on_with_other_pictures(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        data={"uri": f"folder:{photos}", "holdout": 0}, train={"size": 32, "epochs": 2, "batch_size": 8}
    )
    run_recipe(recipe, tmp_path / "r")
    (tmp_path / "r" / "status.json").unlink()
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    picture = photos / "train" / "red" / "00.jpg"
    picture.rename(picture.with_name("99.jpg"))
    with pytest.raises(
        UserError, match=r"'train' .* is not the one the run began with: 24 pictures then, 24 now, under"
    ):
        run_recipe(recipe, tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == before
