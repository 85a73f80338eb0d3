"""The control of a fix: what solving the head again gains at the train size, and what the size gains beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.cli.console import comparison_lines
from fixres.config.recipe import Recipe
from fixres.errors import Stopped
from fixres.evaluation.metrics import paired_difference
from fixres.experiments.seeds import summarise
from fixres.io.csv_text import read_marked
from fixres.io.tensors import read_weights
from fixres.reporting.headline import headline
from fixres.reporting.page import write_report
from fixres.reporting.run_record import read_run
from fixres.runtime.run_folder import read_events
from fixres.training import train_size_control
from fixres.training.cached_solver import logistic_head
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import finished_outcome, run_recipe
from fixres.training.train_size_control import CONTROL, differences
from tests.conftest import tiny_recipe

Make = Callable[..., Recipe]

pytestmark = pytest.mark.usefixtures("few_decays")


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run trained at 32 px and fixed at 48 by the cached solver."""
    run = tmp_path_factory.mktemp("control") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic_head, "DECAYS", (1.0, 0.1))
        run_recipe(tiny_recipe(fix={"size": 48}), run)
    return run


def comparison(run: Path) -> dict[str, Any]:
    return next(event for event in read_events(run) if event["event"] == "comparison")


def test_the_head_is_solved_again_at_the_train_size_as_a_fix_there_would(solved: Path, tmp_path: Path) -> None:
    found = comparison(solved)
    labels = [row["label"] for row in found["rows"]]
    assert labels == ["train size", "larger size only", CONTROL, "fixed"]
    assert [row["size"] for row in found["rows"]] == [32, 48, 32, 48]
    alone = fix_recipe(load(str(solved), "before_fix"), None, {"size": 32}, 0)
    outcome = run_recipe(alone, tmp_path / "alone", split_from=solved / "split.json")
    control = found["rows"][2]
    assert [control[key] for key in ("top1", "loss")] == [outcome.rows[-1][key] for key in ("top1", "loss")]
    # A fix at the train size is its own control.
    assert [row["label"] for row in outcome.rows] == ["train size", "fixed"]
    assert "All of it comes from solving the head again" in headline(read_run(tmp_path / "alone")).sentence


def test_the_product_is_the_same_without_it_and_the_run_says_what_it_leaves_out(
    solved: Path, tmp_path: Path, make_recipe: Make
) -> None:
    run = tmp_path / "without"
    run_recipe(make_recipe(fix={"size": 48}, evaluation={"control": False}), run)
    assert [row["label"] for row in comparison(run)["rows"]] == ["train size", "larger size only", "fixed"]
    for name in ("model.safetensors", "before_fix.safetensors"):
        one, other = (read_weights(folder / "model" / name) for folder in (solved, run))
        assert all(torch.equal(one[key], other[key]) for key in one | other)
    assert "evaluation.control false leaves it out" in headline(read_run(run)).sentence


def test_a_fix_by_sgd_has_no_control_and_says_so(fixed_run: Path) -> None:
    assert CONTROL not in [row["label"] for row in comparison(fixed_run)["rows"]]
    assert "not measured: the fix was trained by sgd" in headline(read_run(fixed_run)).sentence


def test_the_parts_add_up_and_fixed_is_compared_with_all_three(solved: Path) -> None:
    found = comparison(solved)
    parts = {(d["row"], d["minus"]): d["difference"] for d in found["differences"]}
    assert list(parts) == [
        ("fixed", "train size"),
        ("fixed", "larger size only"),
        ("fixed", CONTROL),
        (CONTROL, "train size"),
    ]
    assert parts[CONTROL, "train size"] + parts["fixed", CONTROL] == pytest.approx(found["paired"]["difference"])
    sentence = headline(read_run(solved)).sentence
    assert "Solving the head again at the train size gains" in sentence
    lines = "\n".join(comparison_lines(found))
    assert all(words in lines for words in ("the head solved again", "of that, the size", "the larger size only"))
    outcome = finished_outcome(solved)
    assert outcome is not None
    assert [d["minus"] for d in outcome.differences] == [minus for _, minus in parts]


def test_differences_are_those_of_the_pictures() -> None:
    correct = np.array([[True, False, False, False], [True, True, False, False], [True, True, True, False]])
    found = differences(["train size", CONTROL, "fixed"], correct)
    assert [(d["row"], d["minus"], d["difference"]) for d in found] == [
        ("fixed", "train size", 50.0),
        ("fixed", CONTROL, 25.0),
        (CONTROL, "train size", 25.0),
    ]
    assert found[0]["ci95"] == paired_difference(correct[0], correct[2]).ci95


def test_it_is_in_every_table(solved: Path, tmp_path: Path) -> None:
    with (solved / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(read_marked(file))
    assert {CONTROL, f"{CONTROL} loss", f"{CONTROL} probability"} <= set(rows[0])
    study = summarise([solved])
    control = next(row for row in study.rows if row.label == CONTROL)
    seconds = {row.label: row.train_seconds for row in study.rows}
    assert seconds["train size"] < seconds[CONTROL]
    assert control.top1 == (comparison(solved)["rows"][2]["top1"],)
    assert study.top1 is not None
    assert study.head is not None
    assert study.size is not None
    assert study.head.mean + study.size.mean == pytest.approx(study.top1.mean)
    assert json.loads(json.dumps(study.as_dict()))["size_difference"]["mean"] == pytest.approx(study.size.mean)
    page = write_report([solved], tmp_path / "report.html").read_text()
    assert "Fixed at the train size" in page
    assert "only the head solved again" in page


def test_an_interruption_keeps_its_features_and_the_end_is_the_same(
    solved: Path, tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = tmp_path / "run", make_recipe(fix={"size": 48})
    whole = train_size_control.solve

    def stopped(problem: Any) -> Any:
        whole(problem)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(train_size_control, "solve", stopped)
        with pytest.raises(Stopped):
            run_recipe(recipe, run)
    kept = {path: path.stat().st_mtime_ns for path in (run / "cache" / "stage-1-control").rglob("*.safetensors")}
    assert kept
    seen: dict[Path, int] = {}

    def looked(problem: Any) -> Any:
        found = whole(problem)
        seen.update({path: path.stat().st_mtime_ns for path in kept})
        return found

    monkeypatch.setattr(train_size_control, "solve", looked)
    run_recipe(recipe, run, resume=True)
    assert seen == kept
    assert not (run / "cache").exists()
    figures = [[(row["label"], row["top1"], row["loss"]) for row in comparison(one)["rows"]] for one in (solved, run)]
    assert figures[0] == figures[1]


def test_a_head_on_frozen_features_is_compared_with_no_random_one(tmp_path: Path, make_recipe: Make) -> None:
    run = tmp_path / "frozen"
    run_recipe(make_recipe(train={"enabled": False}, fix={"size": "auto"}, evaluation={"sizes": [32, 48]}), run)
    found = comparison(run)
    assert found["new_head"]
    assert found["paired"] is None
    assert [row["label"] for row in found["rows"]] == [CONTROL, "fixed"]
    assert not [e for e in read_events(run) if e["event"] == "sweep" and e["label"] == "before"]
    said = headline(read_run(run))
    assert "A head on the frozen features of test_resnet at 48 pixels" in said.sentence
    assert "points" not in said.sentence
    assert "head on frozen features" in "\n".join(comparison_lines(found))
    card = (run / "model" / "README.md").read_text()
    assert "A head on frozen features" in card
    assert "Trained at" not in card
    assert "the network after the fix" not in write_report([run], tmp_path / "report.html").read_text()
    # What a fix of it starts from is the random head again.
    run_recipe(fix_recipe(load(str(run), "before_fix"), None, {"size": 32}, 0), tmp_path / "again")
    assert comparison(tmp_path / "again")["new_head"]
