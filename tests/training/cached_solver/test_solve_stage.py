from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe

pytestmark = pytest.mark.usefixtures("few_decays")

Make = Callable[..., Recipe]


def test_the_model_scores_in_eval_what_it_scored_in_the_solver(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(fix={"size": 48})
    assert (recipe.fix.solver, recipe.fix.views) == ("auto", 2)
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    solved = next(e for e in events if e["event"] == "solved")
    chosen = next(c for c in solved["candidates"] if c["decay"] == solved["decay"])
    answer, *_ = measure_product(load(str(tmp_path / "r")), EvalRequest(split="val", workers=0))
    assert answer["results"][0]["top1"] == chosen["top1"]
    assert answer["results"][0]["loss"] == pytest.approx(chosen["loss"], rel=1e-4)
    fix = next(e for e in events if e["event"] == "fix")
    assert fix["solver"] == "cached"
    assert 0 < fix["solver_seconds"] < 60
    assert not (tmp_path / "r" / "cache").exists()


def test_a_pull_that_the_recipe_states_is_solved_alone(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    settings = {"model": {"weights": str(trained_run / "model")}, "train": {"enabled": False, "size": 32}}
    recipe = make_recipe(**settings, fix={"size": 48, "decay": 0.03}, evaluation={"keep": "last"})
    assert (recipe.fix.solver, recipe.chooses) == ("auto", False)
    assert make_recipe(**settings, fix={"size": 48}, evaluation={"keep": "last"}).chooses
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    assert [c["decay"] for e in events if e["event"] == "solved" for c in e["candidates"]] == [0.03]
    assert any("(L2 penalty 0.03)" in e["text"] for e in events if e["event"] == "note")
