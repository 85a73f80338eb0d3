"""Weights of the classes in the loss: inverse frequencies or a file's, found again from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixres.config.loading import load
from fixres.config.recipe import Recipe
from fixres.data.class_weights import class_weights
from fixres.errors import UserError
from fixres.training.loop import StageTrainer
from fixres.training.run import run_recipe
from tests.support.batches import unequal

FEW = unequal()


def test_auto_is_inverse_frequency_with_mean_one_over_pictures() -> None:
    weights = class_weights("auto", FEW)
    assert weights == pytest.approx((12 / 24, 12 / 9, 12 / 3))
    assert np.mean(np.array(weights)[FEW.labels]) == pytest.approx(1)
    assert class_weights("none", FEW) is None


def test_a_class_without_pictures_gets_no_weight_and_takes_none() -> None:
    two = FEW.take("train", np.flatnonzero(FEW.labels < 2))
    assert class_weights("auto", two) == pytest.approx((11 / 16, 11 / 6, 0))


def names(values: dict[int, object]) -> dict[str, object]:
    """Return weights by class name."""
    return {FEW.classes[label]: value for label, value in values.items()}


def csv_of(values: dict[str, object], header: str = "class,weight") -> str:
    """Return the weights as CSV."""
    return "\r\n".join([header, *(f'"{name}",{value}' for name, value in values.items())])


@pytest.mark.parametrize("kind", ["json", "csv", "csv with a byte order mark"])
def test_a_file_names_classes_in_any_order_and_only_proportions_count(tmp_path: Path, kind: str) -> None:
    values = names({2: 40, 0: 10, 1: 20.0})
    text = json.dumps(values) if kind == "json" else csv_of(values)
    file = tmp_path / "weights"
    file.write_text(text, encoding="utf-8-sig" if "mark" in kind else "utf-8")
    weights = class_weights(str(file), FEW)
    assert weights is not None
    assert [weight / weights[0] for weight in weights] == pytest.approx([1, 2, 4])
    assert np.mean(np.array(weights)[FEW.labels]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(names({0: 1, 1: 1})), rf"has no weight for {FEW.classes[2]}\n.*, with every class"),
        (json.dumps({**names({0: 1, 1: 1, 2: 1}), "zebra": 1}), r"unknown class 'zebra'\n  classes: "),
        (json.dumps(names({0: 1, 1: -1, 2: 1})), r"must be a number of at least 0, not -1"),
        (json.dumps(names({0: 1, 1: True, 2: 1})), r"must be a number of at least 0, not True"),
        (json.dumps(names({0: 1, 1: "much", 2: 1})), r"must be a number of at least 0, not 'much'"),
        (csv_of(names({0: 1, 1: "nan", 2: 1})), r"must be a number of at least 0, not 'nan'"),
        (csv_of(names({0: 1, 1: "", 2: 1})), r"must be a number of at least 0, not ''"),
        (json.dumps(names({0: 0, 1: 0, 2: 0})), r"all weights of the classes in 'train' are 0"),
        (csv_of(names({0: 1, 1: 1, 2: 1}), "name,weight"), r"has the columns name, weight\n.*class,weight"),
        (csv_of(names({0: 1, 1: 1, 2: 1})) + f"\n{FEW.classes[0]},3", r"is named twice"),
        (f'{{"{FEW.classes[0]}": 1, "{FEW.classes[0]}": 2}}', r"is named twice"),
        ("[1, 2, 3]", r"is a list, not weights by class name"),
        ("{", r"is not JSON"),
        ("", r"has the columns \(none\)"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "weights"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        class_weights(str(file), FEW)


def test_a_missing_file_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file 'auto1' - did you mean 'auto'\?\n  give none, auto or a JSON or CSV"):
        class_weights("auto1", FEW)
    with pytest.raises(UserError, match="cannot read"):
        class_weights(str(tmp_path), FEW)


Make = Callable[..., Recipe]


def events(folder: Path) -> list[Any]:
    """Return step and loss of every train event."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(event["step"], event["loss"]) for event in lines if event["event"] == "train"]


@pytest.mark.parametrize("option", [{"class_weights": "auto"}, {"sampler": "balanced"}], ids=str)
def test_a_run_uses_it_and_goes_on_after_a_stop_to_the_bit(
    make_recipe: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, str]
) -> None:
    for file in sorted((photos / "train" / "blue").iterdir())[4:]:
        file.unlink()
    settings: dict[str, Any] = {
        "train": {"epochs": 2, "batch_size": 4},
        "augment": {"mixup": 0.2, "label_smoothing": 0.1},
    }
    recipe = make_recipe(data={"uri": str(photos), **option}, **settings)
    run_recipe(recipe, tmp_path / "whole")
    run_recipe(make_recipe(data={"uri": str(photos)}, **settings), tmp_path / "plain")
    assert events(tmp_path / "whole") != events(tmp_path / "plain")

    update, done = StageTrainer.step, 0

    def interrupted(*args: Any) -> float:
        nonlocal done
        if done == 5:
            raise KeyboardInterrupt
        done += 1
        return update(*args)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "cut")
    monkeypatch.setattr(StageTrainer, "step", update)
    run_recipe(recipe, tmp_path / "cut", resume=True)
    assert events(tmp_path / "cut") == events(tmp_path / "whole")
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("cut", "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_a_saved_recipe_finds_the_weights_from_anywhere(
    make_recipe: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.json").write_text('{"red": 1, "blue": 3}')
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(
        data={"uri": str(photos), "class_weights": "weights.json"}, train={"epochs": 1, "batch_size": 8}
    )
    run_recipe(recipe, tmp_path / "first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    saved = load(tmp_path / "first" / "recipe.yaml")
    assert saved.data.class_weights == str(tmp_path / "weights.json")
    run_recipe(saved, tmp_path / "second")
    assert events(tmp_path / "second") == events(tmp_path / "first")
    said = (tmp_path / "first" / "metrics.jsonl").read_text()
    assert "class weights from 0.5 (red) to 1.5 (blue), mean 1 over the pictures" in said


def test_weights_of_unknown_classes_stop_before_training(make_recipe: Make, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text('{"red": 1, "bleu": 3}')
    recipe = make_recipe(
        data={"uri": str(photos), "class_weights": str(tmp_path / "weights.json")}, train={"batch_size": 8}
    )
    with pytest.raises(UserError, match=r"unknown class 'bleu' - did you mean 'blue'\?"):
        run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not events(tmp_path / "run")


def test_rarity_is_not_counted_twice() -> None:
    overrides = {"data.uri": "x", "data.sampler": "balanced", "data.class_weights": "auto"}
    with pytest.raises(UserError, match=r"data.class_weights: auto counts rarity twice: train.sampler balanced"):
        load(None, overrides)
    fixed = load(None, {**overrides, "train.sampler": "shuffle", "fix.epochs": 1, "fix.sampler": "shuffle"})
    assert fixed.train.sampler == "shuffle"
