"""What is saved of a stage is read again whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.selection import Figures
from fixres.io.safe_load import read_checkpoint
from fixres.runtime.run_folder import read_events
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


@pytest.mark.parametrize("is_few", [False, True])
def test_the_best_so_far_are_kept_by_the_rule_for_as_many_pictures_as_select(is_few: bool) -> None:
    model = torch.nn.Linear(1, 1)
    state = TrainState(model, None)

    def measure(step: int, top1: float, loss: float, *, always: bool = False) -> int:
        state.step = step
        with torch.no_grad():
            model.weight.fill_(step)
        state.keep_if_better(Figures(top1, loss, loss / 2 if is_few else None), always=always)
        assert float(state.best_weights["weight"]) == state.best_step
        return state.best_step

    assert measure(1, 80.0, 0.9) == 1
    assert measure(2, 80.0, 0.5) == 2, "lower loss"
    assert measure(3, 80.0, 0.7) == 2
    assert measure(4, 80.0, 0.5 - 1e-9) == 2, "the same loss, rounded otherwise"
    assert measure(5, 81.0, 2.0) == (2 if is_few else 5), "which comes first"
    assert measure(6, 80.0, 0.1) == (6 if is_few else 5)
    assert measure(7, 0.0, 9.0, always=True) == 7


@pytest.mark.parametrize("missing", [(), ("best_loss",)], ids=["before few pictures had a rule", "0.1.0"])
def test_a_state_of_an_earlier_version_ends_by_the_rule_it_began_with(
    make_recipe: Make, trained_run: Path, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    content = read_checkpoint(path)
    for name in (*missing, "best_calibrated_loss", "may_select_by_loss"):
        del content[name]
    # By loss, what is measured again would be better than this; by accuracy nothing is.
    content |= {"best_top1": 101.0, "best_step": 3, "is_measured": False}
    torch.save(content, path)
    (tmp_path / "r" / "status.json").write_text('{"state": "running", "exit_code": null, "step": 0}')
    run_recipe(make_recipe(), tmp_path / "r", resume=True)
    found = read_checkpoint(path)
    assert (found["best_step"], found["may_select_by_loss"]) == (3, False)
    assert "loss_calibrated" not in [e for e in read_events(tmp_path / "r") if e["event"] == "eval"][-1]["results"][0]
