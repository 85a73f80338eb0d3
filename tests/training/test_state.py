"""What is saved of a stage is read again whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.selection import Figures
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


def _measurer(is_few: bool) -> Callable[..., TrainState]:
    """Return what measures weights that are the number of the step, on 100 pictures of one loss each."""
    model = torch.nn.Linear(1, 1)
    state = TrainState(model, None)
    spread = np.where(np.arange(100) % 2, 0.1, -0.1)

    def measure(step: int, top1: float, loss: float, *, always: bool = False) -> TrainState:
        state.step = step
        with torch.no_grad():
            model.weight.fill_(step)
        # Half of the pictures lose what the others gain, the other way round at every step: an error of 0.02.
        losses = loss + spread * (-1) ** step if is_few else None
        state.keep_if_better(Figures(top1, loss, losses=losses), always=always)
        assert float(state.best_weights["weight"]) == state.best_step
        return state

    return measure


def test_many_pictures_keep_the_best_by_accuracy_and_then_by_loss() -> None:
    measure = _measurer(is_few=False)
    assert measure(1, 80.0, 0.9).best_step == 1
    assert measure(2, 80.0, 0.5).best_step == 2, "lower loss"
    assert measure(3, 80.0, 0.7).best_step == 2
    assert measure(4, 80.0, 0.5 - 1e-9).best_step == 2, "the same loss, rounded otherwise"
    assert measure(5, 81.0, 2.0).best_step == 5
    assert measure(6, 80.0, 0.1).best_step == 5
    assert measure(7, 0.0, 9.0, always=True).best_step == 7


def test_few_pictures_keep_the_latest_that_is_not_clearly_worse_than_the_lowest_loss() -> None:
    measure = _measurer(is_few=True)
    assert measure(1, 80.0, 0.9).best_step == 1
    assert measure(2, 80.0, 0.5).best_step == 2
    assert measure(3, 70.0, 0.51).best_step == 3, "within the error, whatever the accuracy"
    assert measure(4, 99.0, 0.7).best_step == 3, "clearly worse"
    assert measure(5, 80.0, 0.519).best_step == 5, "compared with the lowest, not with what is kept"
    assert measure(6, 80.0, 0.1).best_step == 6
    state = measure(7, 80.0, 0.101)
    assert (state.best_step, state.progress_step) == (7, 6), "as good is no progress"
    assert measure(8, 0.0, 9.0, always=True).best_step == 8


@pytest.mark.parametrize("missing", [(), ("best_loss",)], ids=["before few pictures had a rule", "0.1.0"])
def test_a_state_of_an_earlier_version_ends_by_the_rule_it_began_with(
    make_recipe: Make, trained_run: Path, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    content = read_checkpoint(path)
    for name in (*missing, "may_select_by_loss", "lowest_loss", "lowest_losses", "progress_step"):
        del content[name]
    # By loss, what is measured again would be better than this; by accuracy nothing is.
    content |= {"best_top1": 101.0, "best_step": 3, "is_measured": False}
    torch.save(content, path)
    (tmp_path / "r" / "status.json").write_text('{"state": "running", "exit_code": null, "step": 0}')
    run_recipe(make_recipe(), tmp_path / "r", resume=True)
    found = read_checkpoint(path)
    assert (found["best_step"], found["may_select_by_loss"]) == (3, False)
