"""When a run is saved, and what stays when that fails."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.tensors import read_checkpoint
from fixres.training import checkpointing
from fixres.training.run import run_recipe
from tests.support.several import run_processes

Make = Callable[..., Recipe]


def test_the_newest_checkpoints_are_kept_and_each_can_be_used(make_recipe: Make, tmp_path: Path) -> None:
    output = {"save_every_steps": 1, "keep_newest": 2}
    run_recipe(make_recipe(output=output), tmp_path / "r")
    folder = tmp_path / "r" / "checkpoints"
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-1-5.pt", "step-1-6.pt"]
    assert (folder / "step-1-6.pt").read_bytes() == (folder / "last.pt").read_bytes()
    weights = f"{folder / 'step-1-5.pt'}#raw"
    run_recipe(make_recipe(model={"weights": weights}, train={"epochs": 1}), tmp_path / "s")


def test_a_disk_that_fills_up_while_saving_is_said_and_the_checkpoint_before_stays(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 3, "batch_size": 16})
    found = run_processes(1, _filling, recipe, tmp_path / "r")
    assert isinstance(found[0], UserError), found
    assert "last.pt: the disk is full" in str(found[0])
    assert read_checkpoint(tmp_path / "r" / "checkpoints" / "last.pt")["step"] == 3
    assert json.loads((tmp_path / "r" / "status.json").read_text())["exit_code"] == 2
    run_recipe(recipe, tmp_path / "r", resume=True)


def _filling(recipe: Recipe, folder: Path) -> None:
    """Train, and let no file grow beyond 1 MB after the first checkpoint."""
    save = checkpointing.save_state

    def limited(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    checkpointing.save_state = limited
    run_recipe(recipe, folder)
