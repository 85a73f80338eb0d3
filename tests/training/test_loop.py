"""What a recipe asks of the loop happens in it: seeds, sizes, rates, averages, early ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.build import build_model
from fixres.runtime.run_folder import read_events
from fixres.training import loop
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from tests.support.same_run import assert_same_run, untimed, weights

Make = Callable[..., Recipe]


def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that fills with the shape of every training batch."""
    seen: list[tuple[int, ...]] = []
    update = StageTrainer.step

    def spied(trainer: StageTrainer, batch: Any, lr: float) -> float:
        seen.append((*batch[0].shape, round(lr, 6)))
        return update(trainer, batch, lr)

    monkeypatch.setattr(StageTrainer, "step", spied)
    return seen


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
def test_worker_count_does_not_change_a_bit(make_recipe: Make, trained_run: Path, tmp_path: Path, workers: int) -> None:
    run_recipe(make_recipe(data={"workers": workers}), tmp_path / "r")
    assert_same_run(trained_run, tmp_path / "r")


def test_a_stage_trains_at_its_sizes_with_their_batches_and_rates(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = shapes(monkeypatch)
    stage = {"size": 64, "sizes": [32, 64], "epochs": 2, "batch_size": 8, "batch_rule": "area", "lr": 0.02}
    schedule = {"name": "constant", "warmup_epochs": 0}
    run_recipe(make_recipe(train=stage, schedule=schedule), tmp_path / "r")
    # 48 pictures: one batch of 32 at half the side, six of 8 at the stage's own.
    assert seen[0] == (32, 3, 32, 32, 0.08)
    assert seen[1:] == [(8, 3, 64, 64, 0.02)] * 6
    events = read_events(tmp_path / "r")
    assert [e["results"][0]["size"] for e in events if e["event"] == "eval"] == [64, 64]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2]


def test_a_loss_that_is_not_finite_stops_before_the_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    update, training_loss = StageTrainer.step, loop.training_loss

    def watched(trainer: StageTrainer, *rest: Any) -> float:
        states.append(copy_state(trainer.state.model))
        try:
            return update(trainer, *rest)
        finally:
            states.append(copy_state(trainer.state.model))

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


def test_raw_weights_are_measured_beside_their_average(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(ema={"enabled": True, "decay": 0.9, "rule": "constant"}), tmp_path / "r")
    event = [e for e in read_events(tmp_path / "r") if e["event"] == "eval"][-1]
    assert event["weights"] == "ema"
    assert event["raw_results"][0]["loss"] != event["results"][0]["loss"]


def test_a_stage_without_progress_ends_early_and_resumes_to_the_same_end(make_recipe: Make, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 9, "batch_size": 16, "lr": 1e-9, "patience": 2}
    recipe = make_recipe(train=stage)
    run_recipe(recipe, tmp_path / "a")
    events = read_events(tmp_path / "a")
    assert [e["epoch"] for e in events if e["event"] == "eval"][-1] < 9
    kept = next(e for e in events if e["event"] == "kept")
    last = max(e["epoch"] for e in events if e["event"] == "eval")
    assert last == kept["epoch"] + 2
    assert "no better for 2 evaluations" in kept["why"]
    (tmp_path / "a" / "status.json").write_text(json.dumps({"state": "running", "exit_code": None, "step": 0}))
    before = weights(tmp_path / "a")
    run_recipe(recipe, tmp_path / "a", resume=True)
    assert [e["epoch"] for e in read_events(tmp_path / "a") if e["event"] == "eval"][-1] == last
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "a").items())


def test_a_stage_that_stops_at_a_step_has_the_schedule_and_the_bits_of_the_whole_one(
    make_recipe: Make, tmp_path: Path
) -> None:
    def stage(**more: Any) -> dict[str, Any]:
        return {"size": 32, "epochs": 3, "batch_size": 16, **more}

    run_recipe(make_recipe(train=stage(), output={"save_every_steps": 1, "keep_newest": 9}), tmp_path / "whole")
    last = {"evaluation": {"keep": "last"}}
    run_recipe(make_recipe(train=stage(stop_step=4), **last), tmp_path / "stopped")
    events = read_events(tmp_path / "stopped")
    assert [(e["step"], e["epoch"]) for e in events if e["event"] == "eval"] == [(3, 1), (4, 1.3333)]
    kept = next(e for e in events if e["event"] == "kept")
    assert (kept["step"], kept["why"]) == (4, "last; the stage ended after 4 of 9 steps, as stop_step says")
    whole = [e["lr"] for e in read_events(tmp_path / "whole") if e["event"] == "train" and e["step"] == 3]
    assert next(e["lr"] for e in events if e["event"] == "train") == whole[0]
    # Step 4 of the whole run is in its checkpoints.
    there = read_checkpoint(tmp_path / "whole" / "checkpoints" / "step-1-4.pt")["model"]
    assert not changed_tensors(there, weights(tmp_path / "stopped"))


def test_a_stop_at_the_end_of_an_epoch_measures_once_and_one_that_never_comes_is_refused(
    make_recipe: Make, tmp_path: Path
) -> None:
    stage = {"size": 32, "epochs": 3, "batch_size": 16, "stop_step": 3}
    run_recipe(make_recipe(train=stage, evaluation={"every_epochs": 2}), tmp_path / "r")
    assert [e["step"] for e in read_events(tmp_path / "r") if e["event"] == "eval"] == [3]
    with pytest.raises(UserError, match=r"train.stop_step 10 never comes: the stage has 9 steps\n  .*at most 9"):
        run_recipe(make_recipe(train={**stage, "stop_step": 10}), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def run_with_time_for(num_steps: int, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, folder: Path) -> None:
    """Run a recipe whose time is up within a step of its first stage."""
    update = StageTrainer.step

    def counted(trainer: StageTrainer, batch: Any, lr: float) -> float:
        if trainer.state.step + 1 == num_steps:
            object.__setattr__(trainer.context, "deadline", 0.0)
        return update(trainer, batch, lr)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "step", counted)
        run_recipe(recipe, folder)


@pytest.mark.parametrize("num_steps", [1, 3, 4])
def test_a_stage_whose_time_is_up_ends_as_one_that_stops_at_the_same_step(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    def recipe(**more: Any) -> Recipe:
        stage = {"size": 32, "epochs": 3, "batch_size": 16, **more}
        return make_recipe(train=stage, ema={"enabled": True}, augment={"mixup": 0.2})

    run_with_time_for(num_steps, monkeypatch, recipe(), tmp_path / "late")
    (said,) = [e for e in read_events(tmp_path / "late") if e["event"] == "out_of_time"]
    assert (said["key"], said["step"]) == ("train", num_steps)
    assert [e["step"] for e in read_events(tmp_path / "late") if e["event"] == "eval"][-1] == num_steps
    assert json.loads((tmp_path / "late" / "status.json").read_text())["state"] == "done"
    run_recipe(recipe(stop_step=num_steps), tmp_path / "stopped")
    assert not changed_tensors(weights(tmp_path / "late"), weights(tmp_path / "stopped"))
    evals = [[untimed(e) for e in read_events(tmp_path / name) if e["event"] == "eval"] for name in ("late", "stopped")]
    assert evals[0] == evals[1]
    # With the step written down it is the same run, and finished; to go on is another wish.
    run_recipe(recipe(stop_step=num_steps), tmp_path / "late", resume=True)
    with pytest.raises(UserError, match=r"another recipe\n  train.stop_step: 0 -> 7"):
        run_recipe(recipe(stop_step=7), tmp_path / "late", resume=True)
    if num_steps == 4:
        run_recipe(recipe(), tmp_path / "late", resume=True, extend=True)
        run_recipe(recipe(), tmp_path / "whole")
        ends = [read_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["model"] for name in ("late", "whole")]
        assert not changed_tensors(*ends)


def test_a_stage_whose_time_was_up_is_over_when_the_run_goes_on_in_the_next(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 3, "batch_size": 16}, fix={"size": 48})
    with monkeypatch.context() as patch:
        patch.setattr("fixres.training.run.solve_stage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_with_time_for(4, monkeypatch, recipe, tmp_path / "r")
    run_recipe(recipe, tmp_path / "r", resume=True)
    assert max(e["step"] for e in read_events(tmp_path / "r") if e["event"] == "train") == 4
