"""What ships is chosen among what was solved, trained and fixed, and the product, log and report say which it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.checkpoints.resolve import load
from fixres.config.loading import validate
from fixres.config.recipe import Recipe
from fixres.config.rules import problems
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.io.tensors import changed_tensors
from fixres.reporting.page import read_report
from fixres.runtime.run_folder import read_events
from fixres.training.context import RunContext
from fixres.training.run import finished_outcome, run_recipe
from fixres.training.train_size_control import CONTROL
from tests.support.same_run import untimed, weights
from tests.support.shared_runs import shared_run

pytestmark = pytest.mark.usefixtures("few_decays")

Make = Callable[..., Recipe]

LABELS = ["probe 32", "probe 48", "train size", "fixed"]


@pytest.fixture
def recipe(make_recipe: Make, trained_run: Path) -> Recipe:
    """Return a recipe that trains from a solved head, fixes at another size and ships the best."""
    return make_recipe(
        model={"weights": str(trained_run / "model")},
        data={"uri": "synthetic:classes=4,images=48,size=48", "workers": 0},
        train={"size": 32, "epochs": 1, "batch_size": 16, "lr": 1e-3, "head": "solved", "norm_statistics": "frozen"},
        fix={"size": 48},
        evaluation={"ship": "best", "sizes": [32, 48]},
    )


@pytest.fixture
def whole(recipe: Recipe, shared_folder: Path) -> Path:
    return shared_run(shared_folder, "ships-the-best", lambda folder: run_recipe(recipe, folder))


def last(folder: Path, kind: str) -> dict[str, Any]:
    return [event for event in read_events(folder) if event["event"] == kind][-1]


def end_again(run: Path, folder: Path, recipe: Recipe) -> None:
    """Copy a finished run and let it find its end anew."""
    shutil.copytree(run, folder)
    (folder / "status.json").write_text(json.dumps({"state": "running", "exit_code": None, "step": 0}))
    run_recipe(recipe, folder, resume=True)


def test_every_candidate_is_listed_with_what_decided(recipe: Recipe, whole: Path) -> None:
    event = last(whole, "candidates")
    rows = event["candidates"]
    assert (event["split"], event["num_images"]) == ("val", 16)
    assert [row["label"] for row in rows] == LABELS
    assert [(row["kind"], row["size"]) for row in rows] == [
        ("probe", 32),
        ("probe", 48),
        ("trained", 32),
        ("fixed", 48),
    ]
    assert sum(row["is_shipped"] for row in rows) == 1
    assert (rows[0]["difference"], rows[0]["standard_error"]) == (0.0, 0.0)
    for row in rows:
        assert row["loss_calibrated"] > 0
        assert row["difference"] == pytest.approx(row["loss_calibrated"] - rows[0]["loss_calibrated"])
    # The probe at the train size is the head the stage started from, solved once.
    start = next(e for e in read_events(whole) if e["event"] == "eval" and e["step"] == 0)["results"][0]
    assert rows[0]["loss"] == start["loss"]
    shown = last(whole, "comparison")["rows"]
    assert [row["label"] for row in shown] == [*LABELS[:2], "train size", "larger size only", CONTROL, "fixed"]
    assert [row["label"] for row in shown if row["is_shipped"]] == [row["label"] for row in rows if row["is_shipped"]]
    assert recipe.chooses


@pytest.mark.parametrize("label", LABELS)
def test_the_product_is_what_was_chosen(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    run, place = tmp_path / "r", LABELS.index(label)
    monkeypatch.setattr("fixres.training.what_ships.choose_to_ship", lambda _: place)
    end_again(whole, run, recipe)
    size = 48 if label in ("probe 48", "fixed") else 32
    product = load(run)
    fixres = product.details
    assert (product.preprocess.size, fixres["test_size"]) == (size, size)
    assert product.train_size == (48 if label == "probe 48" else 32)
    moves = {"train size": "all", "fixed": "head+stats"}.get(label, "head")
    assert (fixres["moves"], fixres["weights"]) == (moves, "raw")
    assert (run / "model" / "before_fix.safetensors").exists() == (label == "fixed") == bool(fixres["before_fix"])
    row = next(row for row in last(run, "comparison")["rows"] if row["label"] == label)
    assert fixres["results"][0]["loss"] == row["loss"]
    measured = measure_product(product, EvalRequest(workers=0))
    assert any("repeats the logged result exactly" in remark for remark in measured.remarks)
    outcome = finished_outcome(run)
    assert outcome is not None
    assert (outcome.size, outcome.top1, outcome.shipped["label"]) == (size, row["top1"], label)
    assert f"{label} (ships)" in outcome._repr_html_()
    moved = changed_tensors(weights(whole.parent / "trained"), weights(run))
    if label.startswith("probe"):
        assert moved == {"fc.weight", "fc.bias"}
    report = read_report([run])
    (said,) = report.content()["runs"]
    assert [row["label"] for row in said["shipping"]["candidates"] if row["is_shipped"]] == [label]
    is_fix = label == "fixed"
    assert ("the network that ships is right" in said["headline"]["sentence"]) == (not is_fix)
    assert said["confusion"]["size"] == size
    assert (said["confusion"]["before"] is not None) == is_fix
    assert ("--weights before_fix" in str(said["commands"])) == is_fix
    report.write_html(tmp_path / "page.html")
    assert "Minus the cheapest probe" in (tmp_path / "page.html").read_text()


# Solving either head, measuring each of four candidates, then on the report split.
@pytest.mark.parametrize("cut", [("solve_head", 0), ("solve_head", 1), *(("measure", call) for call in (0, 2, 3, 5))])
def test_interrupted_anywhere_in_the_end_it_ships_the_same_to_the_bit(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    name, after = cut
    calls = 0
    from fixres.training import what_ships

    original: Any = RunContext.measure if name == "measure" else what_ships.solve_head

    def cut_short(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if name == "solve_head" or kwargs.get("keep_logits") or calls:
            if calls == after:
                raise KeyboardInterrupt
            calls += 1
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        if name == "measure":
            patch.setattr(RunContext, "measure", cut_short)
        else:
            patch.setattr(what_ships, "solve_head", cut_short)
        with pytest.raises(KeyboardInterrupt):
            end_again(whole, tmp_path / "r", recipe)
    run_recipe(recipe, tmp_path / "r", resume=True)
    assert not changed_tensors(weights(whole), weights(tmp_path / "r"))
    for kind in ("candidates", "comparison"):
        assert untimed(last(whole, kind)) == untimed(last(tmp_path / "r", kind))
    configs = [json.loads((run / "model" / "config.json").read_text()) for run in (whole, tmp_path / "r")]
    assert all(config.pop("created") for config in configs)
    assert configs[0] == configs[1]
    assert not (tmp_path / "r" / "cache").exists()


def test_without_a_fix_the_probe_and_the_trained_network_are_compared(recipe: Recipe, tmp_path: Path) -> None:
    alone = recipe.model_copy(update={"fix": recipe.fix.model_copy(update={"enabled": False})})
    run_recipe(alone, tmp_path / "r")
    assert [row["label"] for row in last(tmp_path / "r", "candidates")["candidates"]] == ["probe 32", "trained"]
    assert [row["label"] for row in last(tmp_path / "r", "comparison")["rows"]] == ["probe 32", "trained"]


def test_a_fix_alone_is_compared_with_the_probe_at_its_size(recipe: Recipe, tmp_path: Path) -> None:
    alone = recipe.model_copy(update={"train": recipe.train.model_copy(update={"enabled": False})})
    run_recipe(alone, tmp_path / "r")
    rows = last(tmp_path / "r", "candidates")["candidates"]
    assert [row["label"] for row in rows] == ["probe 48", "fixed"]


def test_a_network_that_training_ruined_does_not_ship(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "lr": 2.0, "warmup_epochs": 0}
    recipe = make_recipe(model={"weights": str(trained_run / "model")}, train=stage, evaluation={"ship": "best"})
    outcome = run_recipe(recipe, tmp_path / "r")
    assert outcome.shipped["label"] == "probe 32"
    assert outcome.top1 >= outcome.rows[-1]["top1"]
    assert torch.equal(weights(trained_run)["layer1.0.conv1.weight"], weights(tmp_path / "r")["layer1.0.conv1.weight"])


def test_what_cannot_be_compared_is_refused_before_anything_runs(make_recipe: Make, tmp_path: Path) -> None:
    later = [{"size": size, "epochs": 1, "batch_size": 16, "moves": "head"} for size in (48, 64)]
    settings = make_recipe(evaluation={"ship": "best"}).model_dump(mode="json", exclude={"train", "fix", "stages"})
    found = problems(validate({**settings, "stages": [{"size": 32, "epochs": 1, "batch_size": 16}, *later]}))
    assert ("evaluation.ship", "best compares one fix with what came before; this recipe has 2; use last") in found
    stage = {"size": 32, "epochs": 1, "batch_size": 16}
    model = {"name": "deit_tiny_distilled_patch16_224", "kwargs": {"img_size": 32}}
    with pytest.raises(UserError, match=r"evaluation.ship best: the cached solver does not suit .*\n  leave it out"):
        run_recipe(make_recipe(model=model, train=stage, evaluation={"ship": "best"}), tmp_path / "r")
