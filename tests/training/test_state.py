"""What is saved of a stage is read again whole, or not at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
from fixres.training.run import run_recipe
from fixres.training.state import TrainState

Make = Callable[..., Recipe]


def test_a_truncated_checkpoint_is_an_error_not_a_fresh_start(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated"):
        run_recipe(make_recipe(), tmp_path / "r", resume=True)


def test_of_equal_accuracies_the_lower_loss_is_kept_and_counts_as_progress() -> None:
    model = torch.nn.Linear(1, 1)
    state = TrainState(model, None)

    def measure(step: int, top1: float, loss: float, *, always: bool = False) -> int:
        state.step = step
        with torch.no_grad():
            model.weight.fill_(step)
        state.keep_if_better(top1, loss, always=always)
        assert float(state.best_weights["weight"]) == state.best_step
        return state.best_step

    assert measure(1, 80.0, 0.9) == 1
    assert measure(2, 80.0, 0.5) == 2, "lower loss"
    assert measure(3, 80.0, 0.7) == 2
    assert measure(4, 80.0, 0.5 - 1e-9) == 2, "the same loss, rounded otherwise"
    assert measure(5, 81.0, 2.0) == 5, "accuracy comes first"
    assert measure(6, 80.0, 0.1) == 5
    assert measure(7, 0.0, 9.0, always=True) == 7


def test_a_state_of_before_the_loss_was_kept_is_resumed(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    content = read_checkpoint(path)
    assert content.pop("best_loss") < math.inf
    torch.save(content, path)
    (tmp_path / "r" / "status.json").write_text('{"state": "running", "exit_code": null, "step": 0}')
    run_recipe(make_recipe(), tmp_path / "r", resume=True)
    assert read_checkpoint(path)["best_step"] == content["best_step"]
