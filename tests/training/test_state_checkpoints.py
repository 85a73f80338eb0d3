"""When a run is saved, and what stays when that fails."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
from fixres.models.build import build_model
from fixres.training import loop, state
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from fixres.training.stage_plan import describe_stage
from fixres.training.state import read_state
from tests.support.run_contexts import make_context
from tests.support.several import run_processes

Make = Callable[..., Recipe]


def test_the_newest_checkpoints_are_kept_and_each_can_be_used(make_recipe: Make, tmp_path: Path) -> None:
    output = {"save_every_steps": 1, "keep_newest": 2}
    run_recipe(make_recipe(output=output), tmp_path / "r")
    folder = tmp_path / "r" / "checkpoints"
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-1-5.pt", "step-1-6.pt"]
    assert (folder / "step-1-6.pt").read_bytes() == (folder / "last.pt").read_bytes()
    weights = f"{folder / 'step-1-5.pt'}#raw"
    run_recipe(make_recipe(model={"weights": weights}, train={"epochs": 1}), tmp_path / "s")


def test_a_disk_that_fills_up_while_saving_is_said_and_the_checkpoint_before_stays(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"size": 32, "epochs": 3, "batch_size": 16})
    found = run_processes(1, _filling, recipe, tmp_path / "r")
    assert isinstance(found[0], UserError), found
    assert "last.pt: the disk is full" in str(found[0])
    assert read_checkpoint(tmp_path / "r" / "checkpoints" / "last.pt")["step"] == 3
    assert json.loads((tmp_path / "r" / "status.json").read_text())["exit_code"] == 2
    run_recipe(recipe, tmp_path / "r", resume=True)


def _filling(recipe: Recipe, folder: Path) -> None:
    """Train, and let no file grow beyond 1 MB after the first checkpoint."""
    save = state.save_state

    def limited(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    state.save_state = limited
    run_recipe(recipe, folder)


# --- what a stage saves and takes up again


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[StageTrainer, list[dict[str, Any]]]]:
    """Return a function that begins the first stage of a recipe, and gives its trainer and what the log is told."""

    def begin(recipe: Recipe) -> tuple[StageTrainer, list[dict[str, Any]]]:
        context = make_context(recipe, tmp_path)
        model = build_model("test_resnet", 3)
        plan = describe_stage(recipe, context.collection, model, 0, 32)
        return StageTrainer(context, plan, model), context.log.events  # type: ignore[attr-defined]

    return begin


def test_a_checkpoint_is_due_by_steps_or_minutes_and_once(
    begin: Any, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    trainer, _ = begin(make_recipe(output={"save_every_steps": 4, "save_every_minutes": 2}))
    due = []
    for trainer.state.step in range(9):
        due.append(trainer._is_due())
        if due[-1]:
            trainer.save()
            assert not trainer._is_due()
    assert [step for step, is_due in enumerate(due) if is_due] == [4, 8]
    trainer.state.step = 9
    now[0] += 119
    assert not trainer._is_due()
    now[0] += 2
    assert trainer._is_due()
    never, _ = begin(make_recipe(output={"save_every_steps": 0, "save_every_minutes": 0}))
    never.state.step = 100
    now[0] += 10**6
    assert not never._is_due()


def test_what_is_saved_is_restored_and_the_clock_of_checkpoints_with_it(begin: Any, make_recipe: Make) -> None:
    recipe = make_recipe(output={"save_every_steps": 3}, ema={"enabled": True})
    trainer, _ = begin(recipe)
    trainer.state.step, trainer.state.micro_batch = 3, 16
    trainer.meter.losses, trainer.is_measured = [0.5, 0.25], False
    trainer.bad_images.own.append("a.jpg")
    torch.manual_seed(7)
    trainer.save()
    drawn = torch.rand(3)
    again, told = begin(recipe)
    again.restore(read_checkpoint(trainer.context.folder / "checkpoints" / "last.pt"))
    assert torch.equal(torch.rand(3), drawn)
    assert (again.state.step, again.state.micro_batch) == (3, 16)
    assert (again.meter.losses, again.is_measured) == ([0.5, 0.25], False)
    assert (again.bad_images.own, again.bad_images.has_news) == (["a.jpg"], False)
    assert not again._is_due()
    for name in ("model", "average"):
        one, two = (getattr(t.state, name) for t in (trainer, again))
        one, two = (getattr(network, "module", network).state_dict() for network in (one, two))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    assert told == []


@pytest.mark.parametrize("change", ["processes", "micro-batch"])
def test_another_number_of_processes_or_another_micro_batch_is_decided_anew(
    begin: Any, make_recipe: Make, trained_run: Path, change: str
) -> None:
    content = read_checkpoint(trained_run / "checkpoints" / "last.pt")
    assert content["micro_batch"] == 16
    trainer, told = begin(make_recipe(runtime={"micro_batch": 8 if change == "micro-batch" else "auto"}))
    content["ranks"] *= 2 if change == "processes" else 1
    trainer.restore(content)
    assert (trainer.state.step, trainer.state.micro_batch) == (6, 0)
    text = "begun on 2 processes, now on 1 process: the same pictures in the same order, but the last digits may differ"
    assert told == ([{"event": "note", "text": text}] if change == "processes" else [])


def test_files_that_users_put_beside_checkpoints_do_no_harm(make_recipe: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    strays = ["step-1-good-copy.pt", "step-1-5 (copy).pt", "step-x-y.pt", "notes.txt"]
    for name in strays:
        (folder / "checkpoints" / name).write_text("mine")
    run_recipe(make_recipe(output={"keep_newest": 2, "save_every_epochs": 1, "tracker": "none"}), folder, resume=True)
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {*strays, "last.pt"}


def test_the_newest_copy_is_advised_by_number_not_by_spelling(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (5, 10, 12, 1000):
        (folder / f"step-1-{step}.pt").write_text("")
    (folder / "last.pt").write_text("broken")
    with pytest.raises(UserError, match=r"copy .*step-1-1000\.pt over it"):
        read_state(tmp_path)
