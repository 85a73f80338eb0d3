"""A product says what it was measured with: its number is repeated, fixed again and found from anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.loading import load as load_recipe
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.runtime.run_folder import read_events
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


def test_eval_repeats_the_logged_number_exactly(run: Path) -> None:
    logged = [e for e in read_events(run) if e["event"] == "comparison"][-1]["rows"][-1]
    answer, found, *_, remarks = measure_product(load(run), EvalRequest())
    result = answer["results"][0]
    assert (answer["split"], answer["num_images"], found.num_images) == ("test", 23, 23)
    for key in ("size", "top1", "loss", "ece", "top5", "balanced_accuracy", "macro_f1", "confusion"):
        assert result[key] == logged[key]
    assert any("repeats the logged result exactly" in remark for remark in remarks)


def test_before_the_fix_is_still_there(run: Path) -> None:
    rows = [e for e in read_events(run) if e["event"] == "comparison"][-1]["rows"]
    before = load(run, weights="before_fix")
    assert before.preprocess.size == before.train_size == 32
    answer, *_ = measure_product(before, EvalRequest(sizes=(32, 64)))
    assert [r["loss"] for r in answer["results"]] == [row["loss"] for row in rows[:2]]


def test_a_foreign_batch_size_is_named_when_the_number_differs(run: Path) -> None:
    answer, *_, remarks = measure_product(load(run), EvalRequest(batch_size=5))
    (result,), logged = answer["results"], load(run).details["results"][0]
    assert answer["num_images"] == 23
    assert abs(result["loss"] - logged["loss"]) < 1e-5
    text = " ".join(remarks)
    # Whether the last bits of a sum depend on the size of its batches is the processor's matter.
    is_same = all(
        result[key] == logged[key] for key in ("top1", "top5", "loss", "ece", "balanced_accuracy", "macro_f1")
    )
    assert ("repeats the logged result exactly" in text) is is_same
    assert ("other conditions: batch_size" in text) is not is_same


def test_fixing_a_product_keeps_its_split_and_its_feeding(run: Path, tmp_path: Path) -> None:
    product = load(run, weights="fixed")
    recipe = fix_recipe(product, None, {"size": 96, "epochs": 1, "moves": "head"}, seed=0)
    assert recipe.run_stages == (recipe.fix,)
    outcome = run_recipe(recipe, tmp_path / "again")
    assert [row["label"] for row in outcome.rows] == ["train size", "larger size only", "fixed"]
    again = load(tmp_path / "again")
    assert (again.train_size, again.preprocess.size, again.preprocess.crop_ratio) == (32, 96, 0.9)


def test_classes_are_mapped_by_name_not_by_place(run: Path) -> None:
    classes = load(run).classes
    assert list(classes) == sorted(classes)
    with pytest.raises(UserError, match="classes the checkpoint does not know"):
        measure_product(load(run), EvalRequest(data="elpv:"))


def test_arguments_of_the_network_survive_a_fix_and_are_not_ignored(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(model={"name": "test_resnet", "kwargs": {"global_pool": "max"}}), tmp_path / "r")
    recipe = fix_recipe(load(tmp_path / "r"), None, {"size": 48, "epochs": 1}, seed=0)
    assert recipe.model.kwargs == {"global_pool": "max"}
    outcome = run_recipe(recipe, tmp_path / "f")
    answer, *_ = measure_product(load(tmp_path / "f"), EvalRequest())
    assert answer["results"][0]["loss"] == outcome.rows[-1]["loss"]
    for weights in (str(tmp_path / "r"), "package:efficientnet-lite0"):
        name = "test_resnet" if weights.startswith("/") else "tf_efficientnet_lite0"
        wrong = make_recipe(model={"name": name, "weights": weights, "kwargs": {"nonsense": 7}})
        with pytest.raises(UserError, match=r"model\.kwargs"):
            run_recipe(wrong, tmp_path / "w")


def test_a_fix_of_a_fixed_product_starts_from_what_was_trained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fix", str(run), "--size", "96", "--epochs", "1", "--out", "again"]) == 0
    rows = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["rows"] for r in (run, tmp_path / "again")]
    assert rows[0][0]["loss"] == rows[1][0]["loss"]
    assert [row["size"] for row in rows[1]] == [32, 96, 96]


def test_a_product_is_found_and_evaluated_from_anywhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    fast = ["--model.name", "test_resnet", "--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8"]
    assert main(["train", "--data.uri", photos.name, *fast, "--data.workers", "0", "--out", "run"]) == 0
    monkeypatch.chdir("/")
    assert main(["eval", str(photos.parent / "run")]) == 0
    *_, remarks = measure_product(load(photos.parent / "run"), EvalRequest())
    assert any("repeats the logged result exactly" in remark for remark in remarks)


def test_resuming_a_finished_run_changes_nothing(run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    outcome = run_recipe(load_recipe(run / "recipe.yaml"), run, resume=True)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert outcome.rows[-1]["label"] == "fixed"
    assert outcome.paired is not None
