"""The head a stage starts with: new, or solved before the first step, which is then a candidate like every epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.experiments.cost import count_pictures, dry_run, plan_recipe
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors
from fixres.runtime.run_folder import read_events
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from tests.support.same_run import untimed, weights

pytestmark = pytest.mark.usefixtures("few_decays")

Make = Callable[..., Recipe]

OTHER = "synthetic:classes=4,images=48,size=48"
"""Other classes than those of the shared runs: their head is replaced by a random one."""


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["event"] == kind]


@pytest.fixture
def warm(make_recipe: Make, trained_run: Path) -> Make:
    """Return what makes a recipe that trains the shared run's network on other classes from a solved head."""

    def make(stage: dict[str, Any] | None = None, **sections: Any) -> Recipe:
        train = {"size": 32, "epochs": 2, "batch_size": 16, "lr": 1e-4, "norm_statistics": "frozen", "head": "solved"}
        base = {"model": {"weights": str(trained_run / "model")}, "data": {"uri": OTHER, "workers": 0}}
        return make_recipe(**{**base, "train": {**train, **(stage or {})}, **sections})

    return make


def test_a_solved_head_is_step_0_of_its_stage_and_nothing_else_has_moved(
    warm: Make, trained_run: Path, tmp_path: Path
) -> None:
    # So high a rate loses what was solved: the start is what ships.
    run_recipe(warm({"lr": 0.5, "warmup_epochs": 0, "norm_statistics": "batch"}), tmp_path / "r")
    (solved,) = events(tmp_path / "r", "solved")
    assert None not in [candidate["decay"] for candidate in solved["candidates"]]
    found = events(tmp_path / "r", "eval")
    assert [(event["step"], event["epoch"]) for event in found] == [(0, 0), (3, 1), (6, 2)]
    chosen = next(c for c in solved["candidates"] if c["decay"] == solved["decay"])
    assert found[0]["results"][0]["loss"] == pytest.approx(chosen["loss"], rel=1e-4)
    (kept,) = events(tmp_path / "r", "kept")
    assert (kept["step"], kept["epoch"]) == (0, 0)
    moved = changed_tensors(weights(trained_run), weights(tmp_path / "r"))
    assert moved == {"fc.weight", "fc.bias"}
    assert not [event for event in events(tmp_path / "r", "note") if "did not change" in event["text"]]


@pytest.mark.parametrize("stop_at", [0, 1, 4])
def test_stopped_at_any_step_it_goes_on_to_the_same_end(
    warm: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    recipe = warm({"freeze": ["fc"]} if stop_at == 4 else {}, ema={"enabled": True, "decay": 0.5})
    run_recipe(recipe, tmp_path / "whole")
    original, done = StageTrainer.step, 0

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return original(*args)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "cut")
    monkeypatch.setattr(StageTrainer, "step", original)
    monkeypatch.setattr("fixres.training.run.set_head", pytest.fail)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert not changed_tensors(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    evals = [[untimed(event) for event in events(tmp_path / name, "eval")] for name in ("whole", "cut")]
    assert evals[0] == evals[1]
    assert len(events(tmp_path / "cut", "solved")) == 1


def test_a_kill_while_it_is_measured_first_finds_the_features_again(
    warm: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: StageTrainer) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "evaluate", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run_recipe(warm(), tmp_path / "cut")
    # Features and head are on disk: no trunk runs again.
    monkeypatch.setattr("fixres.training.cached_solver.solve._search", pytest.fail)
    run_recipe(warm(), tmp_path / "cut", resume=True)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "cache").exists()
    assert [event["step"] for event in events(tmp_path / "cut", "eval")] == [0, 3, 6]


def test_a_new_head_is_pulled_towards_zero_by_a_fix_too(warm: Make, tmp_path: Path) -> None:
    heads = []
    for seed in (0, 1):
        recipe = warm({"enabled": False, "head": "keep"}, fix={"size": 32}, seed=seed)
        run_recipe(recipe, tmp_path / str(seed))
        (solved,) = events(tmp_path / str(seed), "solved")
        assert None not in [candidate["decay"] for candidate in solved["candidates"]]
        heads.append(weights(tmp_path / str(seed))["fc.weight"])
    # What random head there was does not matter.
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-3, atol=1e-4)


def test_a_trained_head_is_pulled_to_and_a_candidate_unless_a_new_one_is_asked_for(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    for head, is_candidate in (("keep", True), ("new", False)):
        fix = {"size": 48, "moves": "head", "head": head}
        settings = {"model": {"weights": str(trained_run / "model")}, "train": {"enabled": False, "size": 32}}
        run_recipe(make_recipe(**settings, fix=fix), tmp_path / head)
        (solved,) = events(tmp_path / head, "solved")
        assert (None in [candidate["decay"] for candidate in solved["candidates"]]) == is_candidate


def test_a_head_that_a_stage_has_trained_is_no_new_one_for_the_next(warm: Make, tmp_path: Path) -> None:
    run_recipe(warm({"head": "keep"}, fix={"size": 48}), tmp_path / "r")
    (solved,) = events(tmp_path / "r", "solved")
    assert solved["candidates"][0]["decay"] is None
    assert read_checkpoint(tmp_path / "r" / "checkpoints" / "start-1.pt")["is_new_head"] is False


def test_a_new_head_in_place_of_a_trained_one_is_drawn_from_the_seed(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "lr": 1e-12, "head": "new"}
    for name in ("a", "b"):
        run_recipe(make_recipe(model={"weights": str(trained_run / "model")}, train=stage), tmp_path / name)
    one, two, old = weights(tmp_path / "a"), weights(tmp_path / "b"), weights(trained_run)
    assert torch.equal(one["fc.weight"], two["fc.weight"])
    assert not torch.allclose(one["fc.weight"], old["fc.weight"], atol=1e-3)
    assert torch.allclose(one["layer1.0.conv1.weight"], old["layer1.0.conv1.weight"])


def test_labels_are_not_smoothed_and_the_mirror_image_is_seen_where_training_mirrors(
    warm: Make, tmp_path: Path
) -> None:
    for smoothing in (0.0, 0.2):
        run_recipe(warm({"epochs": 1}, augment={"label_smoothing": smoothing}), tmp_path / str(smoothing))
    first, second = (events(tmp_path / str(smoothing), "solved")[0] for smoothing in (0.0, 0.2))
    assert first["candidates"] == second["candidates"]
    assert first["num_views"] == 2
    assert (warm(augment={"policy": "none"}).train.views, warm().train.views) == (1, 2)


def test_what_cannot_be_solved_is_refused_before_anything_runs(make_recipe: Make, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "head": "solved"}
    recipe = make_recipe(model={"name": "deit_tiny_distilled_patch16_224", "kwargs": {"img_size": 32}}, train=stage)
    with pytest.raises(UserError, match=r"train.head solved: the cached solver does not suit .*\n  leave it out"):
        run_recipe(recipe, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_fix_by_sgd_may_start_from_a_solved_head_and_the_plan_counts_it(warm: Make) -> None:
    recipe = warm({"enabled": False, "head": "keep"}, fix={"size": 32, "head": "solved", "epochs": 1})
    assert recipe.fix.solver == "sgd"
    pictures = count_pictures(recipe)
    (cost,), (plain,) = (
        plan_recipe("mine", one, pictures, 1).stages
        for one in (recipe, warm({"enabled": False, "head": "keep"}, fix={"size": 32, "epochs": 1}))
    )
    assert cost.teramacs == pytest.approx(plain.teramacs + 2 * 48 * cost.gmacs / 1000)
    assert "the head is solved first, on features of 2 views" in cost.note
    assert any("before the first step the head is solved" in line for line in dry_run(recipe))
