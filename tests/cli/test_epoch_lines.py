"""The one line of an epoch, on a terminal and in a log."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.cli.console import Console
from fixres.cli.epoch_lines import EpochLines
from fixres.config.recipe import Recipe
from fixres.training.run import run_recipe


def measured(**more: Any) -> dict[str, Any]:
    result = {"size": 32, "top1": 81.25, "loss": 0.5, "balanced_accuracy": 70.0}
    return {"split": "val", "stage": "train", "step": 20, "epoch": 2.0, "weights": "raw", "results": [result], **more}


def stage() -> EpochLines:
    lines = EpochLines({"size": 32, "total_steps": 40, "num_epochs": 4})
    for step, loss in ((8, 1.0), (10, 2.0), (18, 0.5), (20, 1.0)):
        if step == 18:
            lines.trained.clear()
        lines.add({"step": step, "loss": loss})
    lines.ended = {"stage": "train", "step": 20, "epoch": 2.0, "fps": 416.7, "data_wait_ratio": 0.1}
    return lines


def test_a_line_has_both_losses_accuracy_one_speed_and_the_time_left() -> None:
    lines = stage()
    lines.first_step = 0
    lines.begun -= 100
    line = lines.line(measured(), {})
    assert line == "  train epoch 2/4  loss 0.600 train, 0.500 val  val top-1 81.25 %  417 img/s  1 min 40 s left"
    # The next epoch begins anew.
    assert not lines.trained
    assert not lines.ended


def test_what_is_out_of_the_ordinary_is_said() -> None:
    lines = stage()
    lines.ended = {**lines.ended, "data_wait_ratio": 0.4}
    line = lines.line(measured(weights="ema", results=[{**measured()["results"][0], "size": 48}]), {"val": 1.6})
    for words in ("at 48 px", "(average of the weights)", "balanced 70.00 %", "40 % of it waiting for pictures"):
        assert words in line
    assert "balanced" not in stage().line(measured(), {"val": 1.5, "test": 9.0})


def test_a_resumed_stage_counts_its_own_steps_only() -> None:
    lines = EpochLines({"total_steps": 40, "num_epochs": 4})
    lines.begin(31)
    lines.begun -= 50
    lines.ended = {"stage": "train", "step": 35, "epoch": 3.5, "fps": 1.0}
    assert lines.line({}, {}).endswith("50 s left")


def test_every_epoch_has_its_line_where_nothing_is_a_terminal(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, output = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdout", output)
    recipe = make_recipe(train={"epochs": 3}, evaluation={"every_epochs": 2}, output={"log_every_steps": 2})
    run_recipe(recipe, tmp_path / "run", listeners=[Console()])
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("  train epoch")]
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("train" in line.split("loss")[1] and "img/s" in line for line in lines)
    assert ["val top-1" in line for line in lines] == [False, True, True]
    assert ["left" in line for line in lines] == [True, True, False]
    assert output.getvalue() == ""
