"""A run goes on where it stopped, and only with the recipe and the pictures it began with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.loading import to_yaml, validate
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training.context import image_lists
from fixres.training.loop import StageTrainer
from fixres.training.resume import compare_recipes, find_start, require_same_pictures, with_warmups_of
from fixres.training.run import run_recipe
from tests.support.same_run import assert_same_run, weights
from tests.support.shared_runs import shared_run

Make = Callable[..., Recipe]


# Before there is a checkpoint, behind that of an epoch, in the last epoch, before the fix and within it.
@pytest.mark.parametrize("stop_at", [1, 3, 5, 6, 8])
def test_stopped_at_any_step_and_resumed_equals_uninterrupted(
    make_recipe: Make, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    recipe = make_recipe(
        ema={"enabled": True, "decay": 0.9},
        augment={"mixup": 0.2, "policy": "jitter"},
        model={"name": "test_resnet", "kwargs": {"drop_rate": 0.3}},
        fix={"size": 64, "epochs": 1, "batch_size": 16, "solver": "sgd"},
    )
    whole = shared_run(shared_folder, "uninterrupted", lambda folder: run_recipe(recipe, folder))
    done = 0
    original = StageTrainer.step

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return original(*args)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "status.json").read_text())["state"] == "stopped"
    monkeypatch.setattr(StageTrainer, "step", original)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_a_folder_with_a_run_is_refused_and_another_recipe_shows_the_difference(
    make_recipe: Make, trained_run: Path
) -> None:
    before = (trained_run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run_recipe(make_recipe(), trained_run)
    with pytest.raises(UserError, match=r"another recipe\n  fix.lr: 0.001 -> 0.0005\n  optim.lr: 0.02 -> 0.01"):
        run_recipe(make_recipe(optim={"lr": 0.01}), trained_run, resume=True)
    assert (trained_run / "metrics.jsonl").read_bytes() == before


def test_resuming_without_a_checkpoint_says_so_and_starts(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "r", resume=True)
    assert "holds no checkpoint" in read_events(tmp_path / "r")[0]["text"]


def test_more_epochs_need_extend_and_go_on_from_the_end(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, **more: Any) -> Recipe:
        schedule = {"name": "constant", "warmup_epochs": 0}
        stage = {"size": 32, "epochs": epochs, "batch_size": 16, **more}
        return make_recipe(train=stage, schedule=schedule, evaluation={"keep": "last"})

    run_recipe(recipe(3), tmp_path / "whole")
    run_recipe(recipe(2), tmp_path / "r")
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 3"):
        run_recipe(recipe(3), tmp_path / "r", resume=True)
    with pytest.raises(UserError, match=r"train.lr"):
        run_recipe(recipe(3, lr=0.5), tmp_path / "r", resume=True, extend=True)
    with pytest.raises(UserError, match=r"train.epochs: 2 -> 1"):
        run_recipe(recipe(1), tmp_path / "r", resume=True, extend=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert json.loads((tmp_path / "r" / "status.json").read_text()) == {"state": "done", "exit_code": 0, "step": 9}
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "r")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_stage_of_a_list_can_be_extended(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(epochs: int, lr: float = 0.01) -> Recipe:
        first = {"size": 32, "epochs": 1, "batch_size": 16}
        settings = make_recipe().model_dump(mode="json", exclude={"train", "fix", "stages", "schedule"})
        return validate({**settings, "stages": [first, {**first, "epochs": epochs, "lr": lr}]})

    run_recipe(recipe(1), tmp_path / "r")
    with pytest.raises(UserError, match=r"another recipe\n  stages.1.lr: 0.01 -> 0.5\n  go on"):
        run_recipe(recipe(1, lr=0.5), tmp_path / "r", resume=True)
    run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    assert [e["epoch"] for e in read_events(tmp_path / "r") if e["event"] == "eval"] == [1, 1, 2, 3]


def test_a_run_does_not_go_on_with_other_pictures(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        data={"uri": f"folder:{photos}", "holdout": 0}, train={"size": 32, "epochs": 2, "batch_size": 8}
    )
    run_recipe(recipe, tmp_path / "r")
    (tmp_path / "r" / "status.json").unlink()
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    picture = photos / "train" / "red" / "00.jpg"
    picture.rename(picture.with_name("99.jpg"))
    with pytest.raises(
        UserError, match=r"'train' .* is not the one the run began with: 24 pictures then, 24 now, under"
    ):
        run_recipe(recipe, tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == before


# --- the four cases of find_start


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "recipe.yaml"])
def test_case_1_a_folder_that_holds_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="already holds a run\n  go on with --resume, or give another folder"):
        find_start(tmp_path, "", resume=False)


def test_case_2_anything_else_starts_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "new"):
        assert find_start(folder, "", resume=False) == (None, "start: from the beginning")
    for resume in (False, True):
        with pytest.raises(UserError, match="is a file; give a folder with --out"):
            find_start(tmp_path / "notes.txt", "", resume=resume)


def test_case_3_without_a_checkpoint_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    found = find_start(tmp_path, "", resume=True)
    assert found == (None, f"start: {tmp_path} holds no checkpoint, so from the beginning")


def test_case_3_a_product_without_a_checkpoint_is_made_again_by_its_own_recipe_only(
    make_recipe: Make, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"train": {"enabled": False}, "fix": {"size": 48, "moves": "head", "solver": "cached"}}
    run_recipe(make_recipe(**sections), tmp_path / "r")
    assert not (tmp_path / "r" / "checkpoints").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"another recipe\n  seed: 0 -> 5\n"):
        run_recipe(make_recipe(seed=5, **sections), tmp_path / "r", resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before
    run_recipe(make_recipe(**sections), tmp_path / "r", resume=True)


def test_case_4_goes_on_with_the_same_recipe_or_what_may_differ(trained_run: Path) -> None:
    text = (trained_run / "recipe.yaml").read_text()
    saved, how = find_start(trained_run, text, resume=True)
    assert saved is not None
    assert (saved["stage_index"], saved["step"]) == (0, 6)
    assert how == "start: from the checkpoint at step 6 of stage 1"
    other = text.replace("tracker: none", "tracker: tensorboard").replace("threads: 1", "threads: 2")
    assert find_start(trained_run, other, resume=True)[1] == (
        "start: from the checkpoint at step 6 of stage 1; now output.tracker: none -> tensorboard; "
        "now runtime.threads: 1 -> 2"
    )


@pytest.mark.parametrize(
    ("old", "new", "extend", "said"),
    [
        ("seed: 0", "seed: 3", True, "seed: 0 -> 3"),
        ("epochs: 2", "epochs: 3", False, r"train\.epochs: 2 -> 3"),
        ("epochs: 2", "epochs: 1", True, r"train\.epochs: 2 -> 1"),
        ("epoch_samples: 1.0", "epoch_samples: 96/49", False, r"train\.epoch_samples: 1\.0 -> 96/49"),
    ],
)
def test_case_4_refuses_another_recipe(trained_run: Path, old: str, new: str, extend: bool, said: str) -> None:
    text = (trained_run / "recipe.yaml").read_text()
    assert old in text
    with pytest.raises(UserError, match=f"was started with another recipe\n  {said}\n  go on with the saved one"):
        find_start(trained_run, text.replace(old, new, 1), resume=True, extend=extend)


@pytest.mark.parametrize("spelt", ["48", "1281167/1281167"])
def test_an_epoch_of_the_same_length_is_the_same_however_it_is_spelt(trained_run: Path, spelt: str) -> None:
    text = (trained_run / "recipe.yaml").read_text().replace("epoch_samples: 1.0", f"epoch_samples: {spelt}", 1)
    assert find_start(trained_run, text, resume=True)[1] == "start: from the checkpoint at step 6 of stage 1"


def test_only_the_stage_that_was_saved_and_later_ones_can_be_extended(fixed_run: Path) -> None:
    text = (fixed_run / "recipe.yaml").read_text()
    more = re.sub(r"(fix:.*?epochs: )1\b", r"\g<1>2", text, flags=re.DOTALL)
    saved, how = find_start(fixed_run, more, resume=True, extend=True)
    assert saved is not None
    assert saved["stage_index"] == 1
    assert how.endswith("; now fix.epochs: 1 -> 2")
    with pytest.raises(UserError, match=r"train\.epochs: 2 -> 3"):
        find_start(fixed_run, text.replace("epochs: 2", "epochs: 3", 1), resume=True, extend=True)


def test_recipes_are_compared_by_dotted_key_stages_one_by_one() -> None:
    saved = "seed: 1\ntrain: {lr: 0.1, size: 32}\nstages:\n- {size: 32}\n- {size: 64, moves: head}\n"
    assert compare_recipes(saved, saved) == {}
    now = "seed: 1\ntrain: {lr: 0.2, size: 32}\nstages:\n- {size: 32}\n- {size: 96, moves: head, patience: 2}\n"
    assert compare_recipes(saved, now) == {
        "stages.1.patience": "stages.1.patience: None -> 2",
        "stages.1.size": "stages.1.size: 64 -> 96",
        "train.lr": "train.lr: 0.1 -> 0.2",
    }


def test_an_extended_recipe_keeps_the_warm_ups_it_began_with(make_recipe: Make) -> None:
    began, longer = make_recipe(train={"epochs": 1}), make_recipe(train={"epochs": 4})
    assert (began.train.warmup_epochs, longer.train.warmup_epochs) == (0.5, 1.0)
    kept = with_warmups_of(longer, to_yaml(began)).train
    assert (kept.epochs, kept.warmup_epochs) == (4, 0.5)
    settings = began.model_dump(mode="json", exclude={"train", "fix", "stages", "schedule"})
    listed, more = (validate({**settings, "stages": [{"size": 32, "epochs": n}, {"epochs": n}]}) for n in (1, 4))
    assert [stage.warmup_epochs for stage in with_warmups_of(more, to_yaml(listed)).stages] == [0.5, 0.5]
    # Another number of stages is another recipe, which is refused later.
    assert with_warmups_of(more, to_yaml(began)) == more


def test_a_split_that_is_gone_is_not_the_one_the_run_began_with(make_recipe: Make) -> None:
    collection = open_collection(make_recipe().data)
    saved = image_lists(collection)
    require_same_pictures(collection, saved)
    with pytest.raises(UserError, match=r"the split 'holdout' .*: 5 pictures then, 0 now\n  bring back the pictures"):
        require_same_pictures(collection, {**saved, "holdout": [5, "abc"]})


def test_a_stage_that_stopped_at_a_step_is_extended_beyond_it(make_recipe: Make, tmp_path: Path) -> None:
    def recipe(stop_step: int) -> Recipe:
        stage = {"size": 32, "epochs": 2, "batch_size": 16, "stop_step": stop_step}
        return make_recipe(train=stage, evaluation={"keep": "last"})

    run_recipe(recipe(4), tmp_path / "r")
    with pytest.raises(UserError, match=r"train.stop_step: 4 -> 3"):
        run_recipe(recipe(3), tmp_path / "r", resume=True, extend=True)
    run_recipe(recipe(0), tmp_path / "r", resume=True, extend=True)
    run_recipe(recipe(0), tmp_path / "whole")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "r")
    assert all(torch.equal(one[name], two[name]) for name in one)
