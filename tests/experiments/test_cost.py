"""A plan counts without pictures what a run would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fixres.cli.main import main
from fixres.config.loading import load
from fixres.config.recipe import Recipe
from fixres.experiments import cost as planning
from fixres.experiments import measured_speed
from fixres.experiments.cost import Speed, count_pictures, plan_recipe
from fixres.models.build import build_model
from fixres.models.moves import Plan
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


def test_a_plan_says_what_a_run_then_does(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 2, "repeats": 3}, fix={"size": 48, "epochs": 1, "batch_size": 8})
    cost = plan_recipe("mine", recipe, count_pictures(recipe), 1)
    run_recipe(recipe, tmp_path / "run")
    plans = [e for e in read_events(tmp_path / "run") if e["event"] == "plan"]
    assert [s.num_steps for s in cost.stages] == [e["total_steps"] for e in plans] == [6, 6]
    assert [s.size for s in cost.stages] == [e["size"] for e in plans]
    rows = next(e for e in read_events(tmp_path / "run") if e["event"] == "comparison")["rows"]
    assert [s.gmacs for s in cost.stages] == pytest.approx([rows[0]["gmacs"], rows[-1]["gmacs"]])
    train, fix = cost.stages
    assert (train.num_samples, train.num_distinct, fix.num_distinct) == (96, 16, 48)
    # Training goes forward and twice that backward, a frozen trunk only forward.
    assert train.teramacs == pytest.approx(3 * 96 * train.gmacs / 1000)
    assert fix.teramacs == pytest.approx(48 * fix.gmacs / 1000)


def test_memory_is_counted_by_the_stated_formula(make_recipe: Make) -> None:
    recipe = make_recipe(optim={"name": "adamw", "lr": 1e-3}, ema={"enabled": True}, train={"size": 32, "epochs": 2})
    (stage,) = plan_recipe("mine", recipe, count_pictures(recipe), 1).stages
    with torch.device("meta"):
        model = build_model("test_resnet", 3)
    numbers = sum(t.numel() for t in model.state_dict().values())
    trained = sum(p.numel() for p in model.parameters())
    memory = stage.memory
    assert (memory.weights, memory.average) == (4 * numbers, 4 * numbers)
    assert (memory.gradients, memory.optimizer) == (4 * trained, 8 * trained)
    (shared,) = plan_recipe("mine", recipe, count_pictures(recipe), 2).stages
    assert shared.memory.activations == pytest.approx(memory.activations / 2, rel=1e-3)


def test_what_autograd_keeps_is_counted_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = Plan("all", ("0.weight",), (), (), 12, 12)
    kept, largest = planning._activations(model, plan, 8, is_solved=False)
    # The pictures for the convolution's weight, and the output of the ReLU, which the pooling needs no values of.
    assert kept == 4 * 2 * 64 * (3 + 4)
    assert largest == 4 * 2 * 64 * (4 + 4)
    assert planning._activations(model, plan, 8, is_solved=True)[0] == 0


def test_known_data_sets_need_no_pictures() -> None:
    assert count_pictures(load("fixres/resnet50-224")).num_train == 1_281_167
    assert count_pictures(load("simple/cub-resnet18")).num_classes == 200
    # Without holdout: 0, a tenth is carved out of train to select on.
    assert count_pictures(load("simple/cub-resnet18", {"data.holdout": 0.1})).num_train == 5_994 - 599
    assert count_pictures(load("resnext/caltech101-resnext50-32x4d")).num_train == round(0.6 * 8_677)


def test_hours_follow_the_stated_speed_and_the_work(make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 2}, fix={"size": 32, "epochs": 1, "batch_size": 16})
    train, fix = plan_recipe("mine", recipe, count_pictures(recipe), 1, Speed(100.0)).stages
    assert train.hours == pytest.approx(96 / 100 / 3600)
    assert fix.hours == pytest.approx(48 / 300 / 3600)
    monkeypatch.setattr(measured_speed, "MEASURED_STEPS", 4)
    measured = plan_recipe("mine", recipe, count_pictures(recipe), 1, Speed(is_measured=True))
    assert 0 < measured.hours < 0.1


def test_several_recipes_side_by_side_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["simple/cifar10-resnet18", "simple/cub-resnet50-imagenet-224-448"]
    assert main(["plan", *names, "--images-per-second", "500", "--json", str(tmp_path / "plan.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", *names]
    assert next(line for line in lines if line.startswith("steps")).split()[1:] == [
        "156,200", "of", "64", "37,200", "of", "64",
    ]  # fmt: skip
    first, second = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["size"] for stage in second["stages"]] == [224, 448]
    assert "95.62 %" in first["published"]["expect"]
    assert first["hours"] == pytest.approx(156_200 * 64 / 500 / 3600)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RECIPES is missing"),
        (["fixres/resnet5"], "did you mean"),
        (["simple/cifar10-resnet18", "--devices", "5"], "a batch of 64 cannot be shared by 5 devices"),
        (["simple/cifar10-resnet18", "--measure", "--images-per-second", "3"], "contradict each other"),
        (["simple/cifar10-resnet18", "--train-images", "10"], "larger than an epoch of 10 pictures"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert message in capsys.readouterr().err


def test_published_counts_stand_in_for_pictures_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = {"nabirds": 23_929, "birdsnap": 47_386, "inat2017": 579_184, "inat2019": 265_213}
    names = [f"fixres/{name}-senet154" for name in sets]
    assert main(["plan", *names, "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [recipe["pictures"]["num_train"] for recipe in answer] == list(sets.values())
    assert [recipe["pictures"]["num_classes"] for recipe in answer] == [555, 500, 5089, 1010]


def test_one_recipe_without_counts_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("data: {uri: folder:nowhere}\nmodel: {name: resnet18}\noptim: {lr: 0.1}\ntrain: {size: 32}\n")
    assert main(["plan", "simple/cifar10-resnet18", str(mine), "simple/cars-resnet18"]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == ["recipe", "simple/cifar10-resnet18", "simple/cars-resnet18"]
    assert f"{mine}: how many pictures?" in printed.err
    assert "--train-images N" in printed.err


def test_nothing_published_is_cut_off_beside_other_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["fixres/pnasnet5-fix480", "simple/cifar10-resnet18"]
    assert main(["plan", *names]) == 0
    printed = capsys.readouterr().out
    assert "..." not in printed
    assert all(figure in printed for figure in ("83.7", "96.8", "82.7", "95.62"))
