"""Exactly what the plan names moves, and the proof of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.io.tensors import copy_state
from fixres.models.anatomy import last_norms
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.runtime.run_folder import read_events
from fixres.training.freeze import set_train_mode, verify_plan
from fixres.training.run import run_recipe
from tests.support.same_run import weights

Make = Callable[..., Recipe]


def test_a_stray_change_is_caught() -> None:
    model = build_model("test_resnet", 3)
    plan = make_plan(model, "head", 64)
    before = copy_state(model)
    with torch.no_grad():
        model.get_submodule("layer1.0.bn1").running_mean += 1
    with pytest.raises(AssertionError, match=r"layer1\.0\.bn1\.running_mean"):
        verify_plan(before, model.state_dict(), plan)


def test_frozen_parts_do_not_drop_out() -> None:
    model = build_model("test_resnet", 3, {"drop_path_rate": 0.5, "drop_rate": 0.5})
    set_train_mode(model, make_plan(model, "head+stats", 64))
    training = {name for name, module in model.named_modules() if module.training and not list(module.children())}
    live = set(last_norms(model, 64))
    assert training
    assert {name for name in training if any(name == n or name.startswith(n + ".") for n in live)} == training


def test_a_frozen_stem_stays_and_the_rest_moves(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "freeze": ["conv1", "layer1"]}
    run_recipe(make_recipe(model={"weights": str(trained_run / "model")}, train=stage), tmp_path / "r")
    before, after = weights(trained_run), weights(tmp_path / "r")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(("conv1.", "layer1."))]
    assert {"layer2.0.conv1.weight", "bn1.running_mean", "fc.weight"} <= moved


def test_a_stage_with_frozen_statistics_leaves_those_of_the_weights_it_starts_from(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "norm_statistics": "frozen"}
    recipe = make_recipe(model={"weights": str(trained_run / "model")}, train=stage, ema={"enabled": True})
    run_recipe(recipe, tmp_path / "r")
    before, after = weights(trained_run), weights(tmp_path / "r")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"bn1.weight", "layer4.0.bn2.bias", "fc.weight"} <= moved
    assert not {name for name in moved if "running" in name or "num_batches" in name}
    plan = next(event for event in read_events(tmp_path / "r") if event["event"] == "plan")
    assert plan["text"].endswith("; norm statistics frozen")


def test_a_batch_of_one_trains_with_frozen_statistics(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 1, "epoch_samples": 3, "norm_statistics": "frozen"}
    run_recipe(make_recipe(model={"weights": str(trained_run / "model")}, train=stage), tmp_path / "r")
    assert [event["step"] for event in read_events(tmp_path / "r") if event["event"] == "eval"] == [3]
