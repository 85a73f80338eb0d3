from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.runtime.run_folder import read_events
from fixres.training.initial_weights import fix_recipe
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


def test_a_stage_with_fewer_samples_is_solved_on_a_stratified_part_that_repeats(
    make_recipe: Make, tmp_path: Path
) -> None:
    weights = []
    for name in ("a", "b"):
        run_recipe(
            make_recipe(fix={"size": 48, "epoch_samples": 30, "moves": "head", "solver": "cached"}), tmp_path / name
        )
        weights.append(load(str(tmp_path / name)).model.state_dict())
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())
    start = next(event for event in read_events(tmp_path / "a") if event["event"] == "start")
    said = [event["text"] for event in read_events(tmp_path / "a") if event["event"] == "note"]
    assert f"solved on 30 of the {start['num_images']['train']} training pictures: fix.epoch_samples" in said
    run_recipe(make_recipe(fix={"size": 48, "moves": "head"}), tmp_path / "all")
    assert not any("epoch_samples" in e["text"] for e in read_events(tmp_path / "all") if e["event"] == "note")
    whole = load(str(tmp_path / "all")).model.state_dict()
    assert any(not torch.equal(tensor, whole[key]) for key, tensor in weights[0].items())


def test_fewer_samples_than_classes_are_refused(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(fix={"size": 48, "epoch_samples": 0.001, "moves": "head", "solver": "cached"})
    with pytest.raises(UserError, match="0 pictures for 3 classes"):
        run_recipe(recipe, tmp_path / "r")


def test_a_fix_of_a_run_takes_all_pictures_whatever_part_the_run_had_time_for(
    make_recipe: Make, tmp_path: Path
) -> None:
    own = {"size": 48, "epoch_samples": 30, "moves": "head", "solver": "cached"}
    run_recipe(make_recipe(fix=own, evaluation={"corrupt": "blur=2"}), tmp_path / "r")
    again = fix_recipe(load(str(tmp_path / "r"), "before_fix"), None, {"size": 48}, 0)
    assert (again.fix.epoch_samples, again.evaluation.corrupt) == (1.0, "")
