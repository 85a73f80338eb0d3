"""What a stage is before it runs: its solver, its steps, and what cannot be trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.config.rules import problems
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.experiments.cost import count_pictures, dry_run, plan_recipe
from fixres.models.build import build_model
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from fixres.training.stage_plan import StagePlan, describe_stage, is_fix
from tests.support.run_contexts import make_context
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


def test_a_run_says_where_an_epoch_is_not_as_long_as_published(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 1, "batch_size": 16, "epoch_samples": "2562560/1281167"})
    run_recipe(recipe, tmp_path / "r")
    events = read_events(tmp_path / "r")
    assert next(event for event in events if event["event"] == "plan")["total_steps"] == 6
    said = (
        "an epoch of stage train is 2 x the 48 pictures here, 96 samples: the 2,562,560 of train.epoch_samples belong"
    )
    assert [e["event"] for e in events if e.get("text", "").startswith(said)] == ["note"]
    # The saved recipe is that of the published collection still.
    assert "epoch_samples: 2562560/1281167\n" in (tmp_path / "r" / "recipe.yaml").read_text()
    counted = plan_recipe("mine", recipe, count_pictures(recipe, 100, 3), 1).stages[0]
    assert (counted.num_samples, "2 x the 100 pictures here" in counted.note) == (192, True)


def test_an_average_that_keeps_its_start_is_warned_of(make_recipe: Make, tmp_path: Path) -> None:
    slow = {"enabled": True, "decay": 0.99, "rule": "constant"}
    recipe = make_recipe(ema=slow)
    kept = "after 6 steps of train the weight average (EMA), which is what is kept, still is 94 % its starting weights"
    assert any(line.startswith(f"warning: {kept}") for line in dry_run(recipe))
    assert kept in plan_recipe("mine", recipe, count_pictures(recipe), 1).stages[0].note
    run_recipe(recipe, tmp_path / "slow")
    (warned,) = (event["text"] for event in read_events(tmp_path / "slow") if event["event"] == "warning")
    assert warned.startswith(kept)
    # Six steps are too few for any average; more are forgotten by timm's rule.
    assert warned.endswith("--train.ema false keeps no average")
    longer = make_recipe(ema=slow, train={"size": 32, "epochs": 10, "batch_size": 16})
    assert planned(longer).warning.endswith("--ema.rule timm forgets its start")
    for ema in ({"enabled": True}, {"enabled": True, "rule": "timm"}, {**slow, "decay": 0.8}):
        assert not planned(make_recipe(ema=ema, train={"size": 32, "epochs": 10, "batch_size": 16})).warning
    assert not planned(make_recipe(ema={**slow, "enabled": False})).warning


def test_an_early_best_that_is_mostly_its_start_is_warned_of(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        train={"size": 32, "epochs": 30, "batch_size": 16, "lr": 1e-9, "patience": 1},
        ema={"enabled": True, "decay": 0.9, "rule": "constant"},
    )
    run_recipe(recipe, tmp_path / "r")
    (text,) = (event["text"] for event in read_events(tmp_path / "r") if event["event"] == "warning")
    (step,) = (event["step"] for event in read_events(tmp_path / "r") if event["event"] == "kept")
    assert step < 20
    start = f"{100 * 0.9**step:.2g}"
    assert text.startswith(
        f"after {step} steps of train the weight average (EMA), which is what is kept, still is {start} %"
    )


def test_another_loss_is_trained_not_solved(make_recipe: Make) -> None:
    recipe = make_recipe(fix={"size": 48}, loss={"name": "bce"})
    assert recipe.fix.solver == "auto"
    assert "note: the cached solver has no loss bce; the stage is trained by sgd" in dry_run(recipe)
    asked = make_recipe(fix={"size": 48, "solver": "cached"}, loss={"name": "bce"})
    assert problems(asked) == [("fix.solver", "the cached solver has no loss bce; use solver sgd")]


def test_a_network_whose_outputs_are_not_finite_is_refused_as_such(trained_run: Path, make_recipe: Make) -> None:
    product = load(trained_run)
    with torch.no_grad():
        next(product.model.parameters()).fill_(math.nan)
    for solving in ("auto", "cached"):
        with pytest.raises(UserError, match="not finite"):
            describe_stage(make_recipe(fix={"size": 48, "solver": solving}), DATA, product.model, 1, 48)


# --- what a stage is called and holds


def planned(recipe: Recipe, index: int = 0, size: int = 32, world: int = 1, name: str = "test_resnet") -> StagePlan:
    return describe_stage(recipe, open_collection(recipe.data), build_model(name, 3), index, size, world)


def listed(make_recipe: Make, *stages: dict[str, Any]) -> Recipe:
    """Return a recipe with a list of stages."""
    settings = make_recipe().model_dump(mode="json", exclude={"train", "fix", "stages"})
    return validate({**settings, "stages": [{"size": 32, "epochs": 1, "batch_size": 16, **stage} for stage in stages]})


def test_stages_are_named_by_what_they_do_and_by_their_place_in_the_recipe(make_recipe: Make) -> None:
    recipe = make_recipe(fix={"size": 48, "epochs": 1, "batch_size": 16, "solver": "sgd"})
    assert [(run.name, run.key) for run in (planned(recipe, 0), planned(recipe, 1))] == [
        ("train", "train"),
        ("fix", "fix"),
    ]
    recipe = listed(make_recipe, {}, {}, {"moves": "head", "solver": "sgd"})
    runs = [planned(recipe, index) for index in range(3)]
    assert [(run.name, run.key) for run in runs] == [
        ("train", "stages.0"),
        ("train2", "stages.1"),
        ("fix", "stages.2"),
    ]
    assert [is_fix(recipe, index) for index in range(3)] == [False, False, True]
    # A first stage trains, however little it moves.
    assert not is_fix(listed(make_recipe, {"moves": "head"}), 0)


def test_a_solved_stage_has_no_steps_and_weighs_what_balancing_would_show(make_recipe: Make) -> None:
    data = {"uri": "synthetic:classes=3,images=50,size=48"}
    plain = planned(make_recipe(data=data, fix={"size": 48}), 1, 48)
    assert (plain.stage.solver, plain.total_steps, plain.class_weights, plain.notes) == ("cached", 0, None, ())
    # 17, 17 and 16 pictures.
    balanced = planned(make_recipe(data=data, fix={"size": 48, "sampler": "balanced", "solver": "cached"}), 1, 48)
    assert balanced.class_weights is not None
    assert balanced.class_weights[0] == balanced.class_weights[1] < 1 < balanced.class_weights[2]


@pytest.mark.parametrize(
    ("batch_size", "world", "augment", "said"),
    [
        (16, 3, {}, r"train.batch_size 16 cannot be shared by 3 processes\n  use 15 or 18"),
        (2, 3, {}, r"cannot be shared by 3 processes\n  use 3 or 6"),
        (18, 2, {"mixup": 0.2}, r"by 2 processes in pairs, as mixup and cutmix need\n  use 16 or 20"),
        (2, 2, {}, r"batch_size 2 on 2 processes leaves conv1.1 without statistics\n  give at least 4, or moves: head"),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused_with_the_nearest(
    make_recipe: Make, batch_size: int, world: int, augment: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        planned(make_recipe(train={"batch_size": batch_size}, augment=augment), world=world)


def test_shares_are_those_of_one_process_and_memory_is_that_of_the_dearest_steps(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"size": 64, "sizes": [32, 64], "batch_rule": "area", "batch_size": 8})
    run = planned(recipe, size=64, world=2)
    runtime = make_context(recipe, tmp_path).runtime
    assert [run.share(runtime, step) for step in (0, 1)] == [32, 8]
    # 32 pictures at 32 px are as dear as 8 at 64; a constant batch is dearest at the larger size.
    assert run.largest_share(runtime)[0] * run.largest_share(runtime)[1] ** 2 == 8 * 64**2
    constant = planned(make_recipe(train={"size": 64, "sizes": [32, 64], "batch_size": 8}), size=64)
    assert constant.largest_share(runtime) == (8, 64)


def test_a_stage_is_over_when_done_or_no_better_for_as_long_as_patience_says(make_recipe: Make) -> None:
    # Three steps an epoch.
    run = planned(make_recipe(train={"epochs": 8, "patience": 2}))

    def over(best_step: int, every_epochs: int) -> list[int]:
        return [step for step in range(run.total_steps + 1) if run.is_over(step, best_step, every_epochs)]

    assert over(best_step=3, every_epochs=1) == [9, 12, 15, 18, 21, 24]
    assert over(best_step=6, every_epochs=2) == [18, 24]
    assert over(best_step=24, every_epochs=1) == [24]
    endless = planned(make_recipe(train={"epochs": 8}))
    assert [step for step in range(26) if endless.is_over(step, best_step=0, every_epochs=1)] == [24, 25]
