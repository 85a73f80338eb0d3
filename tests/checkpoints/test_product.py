from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config

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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fixres.config.loading import validate

    folder = tmp_path_factory.mktemp("runs") / "r"
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=7,images=70,size=48", "workers": 0, "license": "CC0"},
            "model": {"name": "test_resnet"},
            "optim": {"lr": 0.02},
            "train": {"size": 32, "epochs": 1, "batch_size": 14},
            "fix": {"size": 64, "epochs": 1},
            "evaluation": {"batch_size": 16, "sizes": [32, 64], "crop_ratio": 0.9},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    run_recipe(recipe, folder)
    return folder


def test_timm_loads_the_folder_and_agrees_on_the_sizes(run: Path) -> None:
    theirs = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True).eval()
    ours = load(run)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(theirs(images), ours.model(images))
    train, test = (resolve_data_config({}, model=theirs, use_test_size=use) for use in (False, True))
    assert (train["input_size"], test["input_size"]) == ([3, 32, 32], [3, 64, 64])
    assert (train["crop_pct"], test["crop_pct"]) == (0.9, 0.9)
    assert tuple(test["mean"]) == ours.preprocess.mean
    assert theirs.pretrained_cfg["label_names"] == list(ours.classes)


def test_eval_repeats_the_logged_number_exactly(run: Path) -> None:
    logged = [e for e in read_events(run) if e["event"] == "comparison"][-1]["rows"][-1]
    answer, found, _ = measure_product(load(run), EvalRequest())
    result = answer["results"][0]
    assert (answer["split"], answer["num_images"], found.num_images) == ("test", 23, 23)
    for key in ("size", "top1", "loss", "ece", "top5", "balanced_accuracy", "macro_f1", "confusion"):
        assert result[key] == logged[key]
    assert any("repeats the logged result exactly" in remark for remark in answer["remarks"])


def test_before_the_fix_is_still_there(run: Path) -> None:
    rows = [e for e in read_events(run) if e["event"] == "comparison"][-1]["rows"]
    before = load(run, weights="before_fix")
    assert before.preprocess.size == before.train_size == 32
    answer, _, _ = measure_product(before, EvalRequest(sizes=(32, 64)))
    assert [r["loss"] for r in answer["results"]] == [row["loss"] for row in rows[:2]]


def test_a_foreign_batch_size_is_named_when_the_number_differs(run: Path) -> None:
    answer, _, _ = measure_product(load(run), EvalRequest(batch_size=5))
    assert answer["num_images"] == 23
    assert abs(answer["results"][0]["loss"] - load(run).details["results"][0]["loss"]) < 1e-5
    text = " ".join(answer["remarks"])
    assert "repeats the logged result exactly" in text or "other conditions: batch_size" in text


def test_the_card_names_sizes_and_licence(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    for part in (
        "Trained at 32 px, to be used at 64 px",
        "Licence of the training pictures: CC0",
        "test split, 23 pictures",
    ):
        assert part in card


@pytest.mark.parametrize("fault", ["no folder", "no config", "broken json", "no weights", "renamed", "truncated"])
def test_a_damaged_product_is_one_message(run: Path, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "model"
    if fault != "no folder":
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((run / "model" / name).read_bytes())
    if fault == "no config":
        (folder / "config.json").unlink()
    elif fault == "broken json":
        (folder / "config.json").write_text("{")
    elif fault == "no weights":
        (folder / "model.safetensors").unlink()
    elif fault == "renamed":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architecture": "resnet18"}))
    elif fault == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError):
        load(folder)


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


def test_a_transformer_is_saved_at_the_size_it_was_fixed_at(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        model={"name": "test_vit"},
        train={"size": 64, "epochs": 1, "batch_size": 48},
        fix={"size": 96, "epochs": 1, "batch_size": 48},
        evaluation={"sizes": [64, 96]},
    )
    outcome = run_recipe(recipe, tmp_path / "r")
    product = load(tmp_path / "r")
    answer, _, _ = measure_product(product, EvalRequest())
    assert answer["results"][0]["loss"] == outcome.rows[-1]["loss"]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'r' / 'model'}", pretrained=True).eval()
    assert theirs(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    before, _, _ = measure_product(load(tmp_path / "r", weights="before_fix"), EvalRequest())
    assert before["results"][0]["loss"] == outcome.rows[0]["loss"]


def test_a_bare_weights_file_needs_the_name_of_its_network(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="--model NAME"):
        load(tmp_path / "w.pth")
    product = load(tmp_path / "w.pth", model_name="test_resnet")
    assert product.classes == ("0", "1", "2", "3")


def test_arguments_of_the_network_survive_a_fix_and_are_not_ignored(make_recipe: Make, tmp_path: Path) -> None:
    run_recipe(make_recipe(model={"name": "test_resnet", "kwargs": {"global_pool": "max"}}), tmp_path / "r")
    recipe = fix_recipe(load(tmp_path / "r"), None, {"size": 48, "epochs": 1}, seed=0)
    assert recipe.model.kwargs == {"global_pool": "max"}
    outcome = run_recipe(recipe, tmp_path / "f")
    answer, _, _ = measure_product(load(tmp_path / "f"), EvalRequest())
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
    answer, _, _ = measure_product(load(photos.parent / "run"), EvalRequest())
    assert any("repeats the logged result exactly" in remark for remark in answer["remarks"])


def test_weights_without_class_names_take_those_of_as_many_folders(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    product = load(tmp_path / "w.pth", model_name="test_resnet")
    answer, _, _ = measure_product(product, EvalRequest(data=str(photos), workers=0))
    assert any("in order" in remark for remark in answer["remarks"])
    recipe = fix_recipe(product, str(photos), {"size": 32, "epochs": 1, "batch_size": 4}, seed=0)
    outcome = run_recipe(recipe, tmp_path / "fixed")
    before, _, _ = measure_product(product, EvalRequest(data=str(photos), workers=0))
    assert outcome.rows[0]["top1"] == before["results"][0]["top1"]
    three = timm.create_model("test_resnet", num_classes=3)
    torch.save(three.state_dict(), tmp_path / "three.pth")
    with pytest.raises(UserError, match="3 outputs without names"):
        measure_product(load(tmp_path / "three.pth", model_name="test_resnet"), EvalRequest(data=str(photos)))


def test_resuming_a_finished_run_changes_nothing(run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    outcome = run_recipe(load_recipe(run / "recipe.yaml"), run, resume=True)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert outcome.rows[-1]["label"] == "fixed"
    assert outcome.paired is not None
