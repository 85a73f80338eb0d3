"""What a run reports and leaves behind: the product, and what a fix changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from fixres.config.recipe import Recipe
from fixres.io.tensors import changed_tensors, read_checkpoint
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.same_run import weights


def test_a_fix_moves_only_the_plan_and_keeps_what_was_before(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run_recipe(make_recipe(fix={"size": 64, "epochs": 1, "lr": 0.1}), tmp_path / "r")
    before = read_checkpoint(tmp_path / "r" / "checkpoints" / "start-1.pt")["weights"]
    after = weights(tmp_path / "r")
    moved = load_file(tmp_path / "r" / "model" / "before_fix.safetensors")
    plan = next(e for e in read_events(tmp_path / "r") if e["event"] == "fix")["plan"]
    assert changed_tensors(before, after) == set(plan["tensors"]) == set(moved)
    assert all(torch.equal(before[name], tensor) for name, tensor in moved.items())
