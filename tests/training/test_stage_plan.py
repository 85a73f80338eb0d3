"""What a stage is before it runs: its solver, its steps, and what cannot be trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.config.rules import problems
from fixres.errors import UserError
from fixres.experiments.cost import dry_run
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from fixres.training.stage_plan import describe_stage
from tests.support.solver_problems import DATA

Make = Callable[..., Recipe]


def test_a_batch_larger_than_the_data_names_the_largest_that_works(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--train.batch_size 48 is the largest that works"):
        run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 49}), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_batch_of_one_has_no_statistics(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give at least 2"):
        run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 1}), tmp_path / "r")


def test_a_network_built_for_one_size_trains_at_one(make_recipe: Make, tmp_path: Path) -> None:
    stage = {"size": 160, "sizes": [128, 160], "epochs": 2, "batch_size": 8}
    with pytest.raises(UserError, match="is built for one size: no stage can train it at 160 and 128"):
        run_recipe(make_recipe(model={"name": "test_vit"}, train=stage), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_fix_of_another_head_is_trained_and_says_why(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        data={"uri": "synthetic:classes=3,images=16,size=48"},
        model={"name": "levit_128s", "weights": "none"},
        train={"size": 224, "epochs": 1, "batch_size": 8},
        fix={"size": 224},
        evaluation={"sizes": [224]},
    )
    assert recipe.fix.solver == "auto"
    note = "the cached solver does not suit 'levit_128s': 2 classifiers (head, head_dist); the stage is trained by sgd"
    assert f"note: {note}" in dry_run(recipe)
    recipe = recipe.model_copy(update={"fix": recipe.fix.model_copy(update={"epochs": 1})})
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    assert note in [event.get("text") for event in events]
    fix = next(event for event in events if event["event"] == "fix")
    assert fix["solver"] == "sgd"
    assert fix["plan"]["num_tensors"] > 0
    asked = recipe.model_copy(update={"fix": recipe.fix.model_copy(update={"solver": "cached"})})
    with pytest.raises(UserError, match=r"does not suit 'levit_128s'.*\n  use solver: sgd"):
        run_recipe(asked, tmp_path / "asked")


def test_another_loss_is_trained_not_solved(make_recipe: Make) -> None:
    recipe = make_recipe(fix={"size": 48}, loss={"name": "bce"})
    assert recipe.fix.solver == "auto"
    assert "note: the cached solver has no loss bce; the stage is trained by sgd" in dry_run(recipe)
    asked = make_recipe(fix={"size": 48, "solver": "cached"}, loss={"name": "bce"})
    assert [str(p) for p in problems(asked)] == ["fix.solver: the cached solver has no loss bce; use solver sgd"]


def test_a_network_whose_outputs_are_not_finite_is_refused_as_such(trained_run: Path, make_recipe: Make) -> None:
    product = load(trained_run)
    with torch.no_grad():
        next(product.model.parameters()).fill_(math.nan)
    for solving in ("auto", "cached"):
        with pytest.raises(UserError, match="not finite"):
            describe_stage(make_recipe(fix={"size": 48, "solver": solving}), DATA, product.model, 1, 48)
