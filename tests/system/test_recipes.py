"""Shipped rows train two steps and fix two on generated pictures, on two processes where they name several.

Networks of more than 100 M parameters are replaced by the smallest of their family. Rows that differ only in numbers or
in a network's width run the same code: the first of each kind runs here, every one where `FIXRES_EVERY_RECIPE` is set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from pathlib import Path

import pytest

from fixres.config.lab_record import read_record
from fixres.config.loading import list_recipes, load
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.miniature import STEPS, miniature, save_weights
from tests.support.several import run_processes

RECIPES = {name: path for name, path in list_recipes().items() if "/" in name}
CLASSES, BATCH = 4, 8


def kind(name: str) -> Hashable:
    """Return what makes a recipe run other code than another one."""
    recipe = load(name)
    words = [
        {key: value if isinstance(value, str | bool) else bool(value) for key, value in stage.model_dump().items()}
        for stage in recipe.run_stages
    ]
    return str((recipe.optim.name, recipe.ema.enabled, recipe.data.exif, recipe.evaluation.resize, words)), (
        read_record(RECIPES[name]).devices > 1
    )


def chosen() -> list[str]:
    """Return the first recipe of every kind, or all of them."""
    if os.environ.get("FIXRES_EVERY_RECIPE"):
        return list(RECIPES)
    return list({kind(name): name for name in reversed(RECIPES)}.values())


def ran(name: str, folder: Path) -> None:
    changes = miniature(name, BATCH) | {"data.uri": f"synthetic:classes={CLASSES},images=24,size=48"}
    if load(name).model.weights != "none":
        changes["model.weights"] = str(folder.parent / "weights.pth")
    run_recipe(load(name, changes), folder)


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", chosen())
def test_a_recipe_trains_two_steps_and_fixes_two(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save_weights(name, CLASSES, tmp_path / "weights.pth")
    if read_record(RECIPES[name]).devices > 1:
        assert run_processes(2, ran, name, folder, seconds=500.0) == [None, None]
    else:
        ran(name, folder)
    events = read_events(folder)
    num_stages = len(load(name).run_stages)
    assert [e["total_steps"] for e in events if e["event"] == "plan"] == [STEPS] * num_stages
    last = {e["stage_index"]: e["step"] for e in events if e["event"] == "train"}
    assert last == dict.fromkeys(range(num_stages), STEPS)
    assert all(math.isfinite(e["loss"]) for e in events if e["event"] == "train")
    (comparison,) = [e for e in events if e["event"] == "comparison"]
    assert comparison["num_images"] == 8
    assert events[-1]["event"] == "done"
