"""The folder a run leaves: timm loads it, and its card says how it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timm.data import resolve_data_config

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


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


def test_the_card_names_sizes_and_licence(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    for part in (
        "Trained at 32 px, to be used at 64 px",
        "Licence of the training pictures: CC0",
        "test split, 23 pictures",
    ):
        assert part in card


def test_a_transformer_is_saved_at_the_size_it_was_fixed_at(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(
        model={"name": "test_vit"},
        train={"size": 64, "epochs": 1, "batch_size": 48},
        fix={"size": 96, "epochs": 1, "batch_size": 48},
        evaluation={"sizes": [64, 96]},
    )
    outcome = run_recipe(recipe, tmp_path / "r")
    product = load(tmp_path / "r")
    answer, *_ = measure_product(product, EvalRequest())
    assert answer["results"][0]["loss"] == outcome.rows[-1]["loss"]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'r' / 'model'}", pretrained=True).eval()
    assert theirs(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    before, *_ = measure_product(load(tmp_path / "r", weights="before_fix"), EvalRequest())
    assert before["results"][0]["loss"] == outcome.rows[0]["loss"]
