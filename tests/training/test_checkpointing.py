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
from fixres.io.tensors import read_checkpoint
from fixres.models.build import build_model
from fixres.training import checkpointing
from fixres.training.checkpointing import Keeper
from fixres.training.context import Stopwatch
from fixres.training.loop import begin
from fixres.training.run import run_recipe
from fixres.training.stage_plan import describe_stage
from fixres.training.throughput_meter import Window
from tests.support.several import run_processes
from tests.support.workshops import make_workshop

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
    save = checkpointing.save_state

    def limited(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    checkpointing.save_state = limited
    run_recipe(recipe, folder)


# --- the keeper


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., tuple[Keeper, list[dict[str, Any]]]]:
    """Return a function that begins the first stage of a recipe, and gives its keeper and what the log is told."""

    def keep(recipe: Recipe) -> tuple[Keeper, list[dict[str, Any]]]:
        shop = make_workshop(recipe, tmp_path)
        model = build_model("test_resnet", 3)
        run = describe_stage(recipe, shop.collection, model, 0, 32)
        state, _ = begin(shop, run, model)
        return Keeper(shop, run, state, Window(), Stopwatch()), shop.log.events

    return keep


def test_a_checkpoint_is_due_by_steps_or_minutes_and_once(
    keep: Any, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    keeper, _ = keep(make_recipe(output={"save_every_steps": 4, "save_every_minutes": 2}))
    due = []
    for keeper.state.step in range(9):
        due.append(keeper.is_due())
        if due[-1]:
            keeper.save()
            assert not keeper.is_due()
    assert [step for step, is_due in enumerate(due) if is_due] == [4, 8]
    keeper.state.step = 9
    now[0] += 119
    assert not keeper.is_due()
    now[0] += 2
    assert keeper.is_due()
    never, _ = keep(make_recipe(output={"save_every_steps": 0, "save_every_minutes": 0}))
    never.state.step = 100
    now[0] += 10**6
    assert not never.is_due()


def test_bad_pictures_are_told_once_and_too_many_end_the_run(keep: Any, make_recipe: Make) -> None:
    keeper, told = keep(make_recipe(data={"on_bad_image": "skip", "max_bad_images": 0.0}))
    keeper.bad += ["a.jpg", "b.jpg"]
    keeper.tell_bad()
    keeper.tell_bad()
    keeper.bad += ["a.jpg", "c.jpg"]
    keeper.tell_bad()
    assert [(e["num_bad_images"], e["paths"]) for e in told] == [(2, ["a.jpg", "b.jpg"]), (3, ["c.jpg"])]
    # Ten may be left out, however small the share.
    keeper.bad += [f"{number}.jpg" for number in range(8)]
    with pytest.raises(UserError, match=r"11 pictures of 'train' cannot be read, and 10 of its 48 may be left out"):
        keeper.tell_bad()


def test_what_is_saved_is_restored_and_the_clock_of_checkpoints_with_it(keep: Any, make_recipe: Make) -> None:
    recipe = make_recipe(output={"save_every_steps": 3}, ema={"enabled": True})
    keeper, _ = keep(recipe)
    keeper.state.step, keeper.state.micro_batch = 3, 16
    keeper.window.losses, keeper.is_measured = [0.5, 0.25], False
    keeper.bad.append("a.jpg")
    torch.manual_seed(7)
    keeper.save()
    drawn = torch.rand(3)
    again, told = keep(recipe)
    again.restore(read_checkpoint(keeper.shop.folder / "checkpoints" / "last.pt"))
    assert torch.equal(torch.rand(3), drawn)
    assert (again.state.step, again.state.micro_batch) == (3, 16)
    assert (again.window.losses, again.is_measured) == ([0.5, 0.25], False)
    assert (again.bad, again.told) == (["a.jpg"], 1)
    assert not again.is_due()
    for name in ("model", "average"):
        one, two = (getattr(k.state, name).state_dict() for k in (keeper, again))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    assert told == []


@pytest.mark.parametrize("change", ["processes", "micro-batch"])
def test_another_number_of_processes_or_another_micro_batch_is_decided_anew(
    keep: Any, make_recipe: Make, trained_run: Path, change: str
) -> None:
    content = read_checkpoint(trained_run / "checkpoints" / "last.pt")
    assert content["micro_batch"] == 16
    keeper, told = keep(make_recipe(runtime={"micro_batch": 8 if change == "micro-batch" else "auto"}))
    content["ranks"] *= 2 if change == "processes" else 1
    keeper.restore(content)
    assert (keeper.state.step, keeper.state.micro_batch) == (6, 0)
    text = "2 processes before, 1 now: the order of the pictures is kept, not every bit"
    assert told == ([{"event": "note", "text": text}] if change == "processes" else [])
