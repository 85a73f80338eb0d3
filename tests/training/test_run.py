"""A whole run: its stages in order, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors
from fixres.runtime.run_folder import read_events
from fixres.training import before_after
from fixres.training.run import finished_outcome, run_recipe
from tests.support.same_run import weights

Make = Callable[..., Recipe]


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


def test_a_finished_run_is_told_again_from_its_files(make_recipe: Make, fixed_run: Path, trained_run: Path) -> None:
    found, alone = finished_outcome(fixed_run), finished_outcome(trained_run)
    assert found is not None
    assert (found.folder, found.size, found.split, found.num_images) == (fixed_run, 48, "test", 16)
    assert [row["label"] for row in found.rows] == ["train size", "larger size only", "fixed"]
    assert found.paired is not None
    assert found.paired.difference == pytest.approx(found.rows[-1]["top1"] - found.rows[0]["top1"])
    assert isinstance(found.paired.ci95, tuple)
    assert alone is not None
    assert ([row["label"] for row in alone.rows], alone.paired) == (["trained"], None)
    # Nothing is written: the run is shared.
    assert run_recipe(make_recipe(), trained_run, resume=True) == alone


@pytest.mark.parametrize(
    ("status", "events"),
    [
        (None, None),
        ({"state": "stopped", "exit_code": 3, "step": 6}, None),
        ({"state": "done", "exit_code": 0, "step": 6}, [{"event": "begin", "text": "start"}]),
    ],
    ids=["no status", "stopped", "no result"],
)
def test_a_run_that_is_not_done_has_no_outcome(
    trained_run: Path, tmp_path: Path, status: dict[str, Any] | None, events: list[dict[str, Any]] | None
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes((trained_run / "metrics.jsonl").read_bytes())
    if status is not None:
        (tmp_path / "status.json").write_text(json.dumps(status))
    if events is not None:
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert finished_outcome(tmp_path) is None


def test_a_refused_recipe_leaves_nothing_behind_and_removes_nothing(
    make_recipe: Make, photos: Path, tmp_path: Path
) -> None:
    # A part of these pictures is carved out to select on, which is written down before the batch is looked at.
    refused = make_recipe(data={"uri": f"folder:{photos}"}, train={"batch_size": 49})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for folder in (tmp_path / "new", tmp_path / "mine"):
        with pytest.raises(UserError, match="the largest that works"):
            run_recipe(refused, folder)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    split = tmp_path / "mine" / "split.json"
    open_collection(refused.data, split_file=split)
    before = split.read_bytes()
    with pytest.raises(UserError, match="the largest that works"):
        run_recipe(refused, tmp_path / "mine")
    assert split.read_bytes() == before


def test_half_a_status_after_a_power_cut_is_no_reason_to_fail(fixed_run: Path, tmp_path: Path) -> None:
    shutil.copytree(fixed_run, tmp_path / "run")
    (tmp_path / "run" / "status.json").write_text("")
    assert finished_outcome(tmp_path / "run") is None


def test_what_only_the_report_shows_costs_a_note(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("cannot write comparison.csv: No space left on device")

    monkeypatch.setattr(before_after, "write_pictures", refuse)
    run_recipe(make_recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    notes = [event["text"] for event in read_events(tmp_path / "run") if event["event"] == "note"]
    assert any("comparison.csv was not written: cannot write" in note for note in notes)


def test_leftovers_of_a_writer_that_was_killed_go_when_the_run_goes_on(make_recipe: Make, tmp_path: Path) -> None:
    left = tmp_path / "run" / "checkpoints" / ".last.pt.4711.part"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    run_recipe(make_recipe(), tmp_path / "run", resume=True)
    assert not left.exists()
