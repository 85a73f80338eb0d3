"""What is saved of a stage is read again whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


def test_a_truncated_checkpoint_is_an_error_not_a_fresh_start(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated"):
        run_recipe(make_recipe(), tmp_path / "r", resume=True)
