from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.tensors import changed_tensors, copy_state, read_checkpoint
from fixres.models.anatomy import last_norms
from fixres.models.build import build_model
from fixres.models.moves import make_plan
from fixres.runtime.run_folder import read_events
from fixres.training import loop
from fixres.training.freeze import set_train_mode, verify_plan
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def untimed(event: Mapping[str, Any]) -> dict[str, Any]:
    times = ("seconds", "images_per_second", "solver_seconds", "data_wait_ratio", "fps")
    cut = {key: value for key, value in event.items() if key not in times}
    for name in ("results", "raw_results", "rows"):
        if name in cut:
            cut[name] = [untimed(result) for result in cut[name]]
    return cut


def assert_same_run(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert not changed_tensors(first, second)
    told = ("begin", "start", "plan")
    events = [[untimed(e) for e in read_events(folder) if e["event"] not in told] for folder in (one, two)]
    assert events[0] == events[1]


def test_six_steps_with_one_seed_give_equal_bits_and_another_seed_does_not(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 2, "batch_size": 16}, ema={"enabled": True})
    for name in ("a", "b"):
        run_recipe(recipe, tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    configs = [json.loads((tmp_path / name / "model" / "config.json").read_text()) for name in ("a", "b")]
    assert all(config.pop("created") for config in configs)
    assert configs[0] == configs[1]
    steps = [e["step"] for e in read_events(tmp_path / "a") if e["event"] == "train"]
    assert steps[-1] == 6
    run_recipe(make_recipe(seed=1, ema={"enabled": True}), tmp_path / "c")
    assert changed_tensors(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_count_does_not_change_a_bit(make_recipe: Make, tmp_path: Path, workers: int) -> None:
    run_recipe(make_recipe(), tmp_path / "a")
    run_recipe(make_recipe(data={"workers": workers}), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("stop_at", range(1, 10))
def test_stopped_at_any_step_and_resumed_equals_uninterrupted(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    recipe = make_recipe(
        ema={"enabled": True, "decay": 0.9},
        augment={"mixup": 0.2, "policy": "jitter"},
        model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}},
        fix={"size": 64, "epochs": 1},
    )
    run_recipe(recipe, tmp_path / "whole")
    done = 0
    original = StageTrainer.step

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return original(*args)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    try:
        run_recipe(recipe, tmp_path / "cut")
    except KeyboardInterrupt:
        assert json.loads((tmp_path / "cut" / "status.json").read_text())["state"] == "stopped"
    monkeypatch.setattr(StageTrainer, "step", original)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_folder_with_a_run_is_refused_and_another_recipe_shows_the_difference(
    make_recipe: Make, tmp_path: Path
) -> None:
    run_recipe(make_recipe(), tmp_path / "r")
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run_recipe(make_recipe(), tmp_path / "r")
    with pytest.raises(UserError, match=r"another recipe\n  fix.lr: 0.001 -> 0.0005\n  optim.lr: 0.02 -> 0.01"):
        run_recipe(make_recipe(optim={"lr": 0.01}), tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == before


def test_resuming_without_a_checkpoint_says_so_and_starts(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(), tmp_path / "r", resume=True)
    assert "holds no checkpoint" in read_events(tmp_path / "r")[0]["text"]


def test_a_truncated_checkpoint_is_an_error_not_a_fresh_start(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(), tmp_path / "r")
    path = tmp_path / "r" / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated"):
        run_recipe(make_recipe(), tmp_path / "r", resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    update, training_loss = StageTrainer.step, loop.training_loss

    def watched(shop: Any, run: Any, state: Any, *rest: Any) -> float:
        states.append(copy_state(state.model))
        try:
            return update(shop, run, state, *rest)
        finally:
            states.append(copy_state(state.model))

    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        return training_loss(*args, **kwargs) * (float("nan") if len(states) == 3 else 1)

    monkeypatch.setattr(StageTrainer, "step", watched)
    monkeypatch.setattr("fixres.training.loop.training_loss", poisoned)
    with pytest.raises(
        UserError, match=r"loss is nan at step 1 .*\n  start again .* lower learning rate: --train.lr 0.005 "
    ):
        run_recipe(make_recipe(), tmp_path / "r")
    parameters = {name for name, _ in build_model("test_resnet", 3).named_parameters()}
    assert changed_tensors(states[0], states[1]) & parameters
    assert not changed_tensors(states[2], states[3]) & parameters
    assert json.loads((tmp_path / "r" / "status.json").read_text()) == {"state": "failed", "exit_code": 2, "step": 0}


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


def test_a_fix_moves_only_the_plan_and_keeps_what_was_before(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(fix={"size": 64, "epochs": 1, "lr": 0.1}), tmp_path / "r")
    before = read_checkpoint(tmp_path / "r" / "checkpoints" / "start-1.pt")["weights"]
    after = weights(tmp_path / "r")
    moved = load_file(tmp_path / "r" / "model" / "before_fix.safetensors")
    plan = next(e for e in read_events(tmp_path / "r") if e["event"] == "fix")["plan"]
    assert changed_tensors(before, after) == set(plan["tensors"]) == set(moved)
    assert all(torch.equal(before[name], tensor) for name, tensor in moved.items())


def test_the_average_follows_its_rule_statistics_included(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        train={"size": 32, "epochs": 1, "batch_size": 48},
        ema={"enabled": True, "decay": 0.5, "rule": "constant"},
    )
    run_recipe(recipe, tmp_path / "ema")
    saved = read_checkpoint(tmp_path / "ema" / "checkpoints" / "last.pt")
    run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 48}), tmp_path / "raw")
    raw = weights(tmp_path / "raw")
    torch.manual_seed(0)
    start = build_model("test_resnet", 3).state_dict()
    for name in ("fc.weight", "layer4.0.bn2.running_mean"):
        expected = 0.5 * start[name] + 0.5 * raw[name]
        torch.testing.assert_close(saved["average"][name], expected)
    torch.testing.assert_close(weights(tmp_path / "ema")["fc.weight"], saved["average"]["fc.weight"])


def test_a_batch_larger_than_the_data_names_the_largest_that_works(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--train.batch_size 48 is the largest that works"):
        run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 49}), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_batch_of_one_has_no_statistics(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give at least 2"):
        run_recipe(make_recipe(train={"size": 32, "epochs": 1, "batch_size": 1}), tmp_path / "r")


def test_stages_run_in_order_each_from_what_the_last_would_ship(tmp_path: Path) -> None:
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=3,images=48,size=48", "workers": 0},
            "model": {"name": "test_resnet"},
            "output": {"tracker": "none"},
            "stages": [
                {"size": 32, "epochs": 1, "batch_size": 24},
                {"size": 48, "epochs": 1, "batch_size": 24},
                {"size": 64, "epochs": 1, "batch_size": 24, "moves": "head"},
            ],
        }
    )
    run_recipe(recipe, tmp_path / "r")
    done = [(e["stage"], e["size"]) for e in read_events(tmp_path / "r") if e["event"] == "stage_done"]
    assert done == [("train", 32), ("train2", 48), ("fix", 64)]
    before = read_checkpoint(tmp_path / "r" / "checkpoints" / "start-2.pt")
    assert before["train_size"] == 48
    assert changed_tensors(before["weights"], weights(tmp_path / "r")) == {"fc.weight", "fc.bias"}
