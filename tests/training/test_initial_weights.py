"""What a run starts from: weights that fit, a head for the classes at hand, and the recipe of a fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fixres.checkpoints.resolve import load
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.models.build import build_model
from fixres.training.initial_weights import Start, fix_recipe, starting_network

Make = Callable[..., Recipe]


def start(recipe: Recipe) -> Start:
    return starting_network(recipe, open_collection(recipe.data))


def test_a_head_for_the_same_classes_stays_and_another_starts_anew(make_recipe: Make, trained_run: Path) -> None:
    own = load(trained_run).model.state_dict()
    same = start(make_recipe(model={"weights": str(trained_run)}))
    assert same.note == ""
    assert all(torch.equal(tensor, own[name]) for name, tensor in same.model.state_dict().items())
    other = start(
        make_recipe(model={"weights": str(trained_run)}, data={"uri": "synthetic:classes=4,images=48,size=48"})
    )
    assert other.note == "the head starts from random weights, for 4 classes"
    state = other.model.state_dict()
    assert state["fc.weight"].shape == (4, own["fc.weight"].shape[1])
    assert all(torch.equal(state[name], own[name]) for name in own if not name.startswith("fc."))


def test_outputs_without_names_are_taken_in_order(make_recipe: Make, tmp_path: Path) -> None:
    model = build_model("test_resnet", 3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    found = start(make_recipe(model={"weights": str(tmp_path / "w.pth")}))
    assert "name no classes: their outputs are taken to be the collection's classes in order" in found.note
    assert torch.equal(found.model.state_dict()["fc.weight"], model.fc.weight)


def test_a_bodys_weights_get_a_random_head(make_recipe: Make, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in build_model("test_resnet", 7).state_dict().items() if "fc." not in name}
    torch.save(state, tmp_path / "w.pth")
    found = start(make_recipe(model={"weights": str(tmp_path / "w.pth")}))
    assert found.note == "the head starts from random weights, for 3 classes"
    assert torch.equal(found.model.state_dict()["bn1.weight"], state["bn1.weight"])


def test_arguments_of_the_recipe_are_added_to_those_of_the_weights(make_recipe: Make, trained_run: Path) -> None:
    found = start(make_recipe(model={"weights": str(trained_run), "kwargs": {"drop_rate": 0.3}}))
    assert found.model_args == {"drop_rate": 0.3}
    assert found.model.drop_rate == 0.3
    assert torch.equal(found.model.state_dict()["fc.weight"], load(trained_run).model.state_dict()["fc.weight"])


def test_the_preprocessing_is_the_recipes_where_it_says_and_else_that_of_the_weights(
    make_recipe: Make, trained_run: Path
) -> None:
    own = load(trained_run).preprocess
    kept = start(make_recipe(model={"weights": str(trained_run)}, evaluation={"crop_ratio": 0.9})).preprocess
    assert (kept.mean, kept.std, kept.interpolation, kept.crop_ratio) == (own.mean, own.std, own.interpolation, 0.9)
    said = start(make_recipe(model={"mean": [0.5, 0.5, 0.5]}, evaluation={"interpolation": "bicubic"})).preprocess
    assert (said.mean, said.interpolation) == ((0.5, 0.5, 0.5), "bicubic")
    assert said.std == own.std


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"num_classes": 5}, r"model.num_classes 5, but synthetic:.* has 3\n  leave it out: the head follows the data"),
        ({"name": "no_such_net"}, "no_such_net"),
        ({"weights": "nowhere"}, "nowhere does not exist"),
        ({"name": "test_vit", "weights": "{run}"}, r"holds 'test_resnet', not 'test_vit'\n  --model.name test_resnet"),
        ({"weights": "{run}#raw"}, r"is a folder, which holds one set of weights\n  allowed: fixed, before_fix"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    make_recipe: Make, trained_run: Path, model: dict[str, Any], said: str
) -> None:
    if "weights" in model:
        model = {**model, "weights": model["weights"].format(run=trained_run)}
    with pytest.raises(UserError, match=said):
        start(make_recipe(model=model))


# --- the recipe of a fix


def test_a_fix_goes_on_with_the_pictures_and_settings_of_the_run(trained_run: Path) -> None:
    product = load(trained_run)
    recipe = fix_recipe(product, None, {"size": 48}, seed=5)
    assert (recipe.seed, recipe.data.uri) == (5, product.details["data"]["uri"])
    assert (recipe.train.enabled, recipe.train.size, recipe.train.batch_size) == (False, 32, 16)
    assert (recipe.fix.enabled, recipe.fix.size, recipe.fix.solver) == (True, 48, "auto")
    assert (recipe.model.name, recipe.model.weights) == ("test_resnet", product.source)
    assert (recipe.optim.lr, recipe.evaluation.batch_size, recipe.runtime.threads) == (0.02, 16, 1)
    assert len(recipe.run_stages) == 1


def test_a_product_alone_needs_pictures_and_keeps_its_preprocessing(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run / "model", tmp_path / "model")
    product = load(tmp_path / "model")
    squashed = replace(product, preprocess=replace(product.preprocess, resize="squash", exact=True))
    recipe = fix_recipe(squashed, "synthetic:classes=3,images=24", {"size": 48}, seed=0)
    assert recipe.data.uri == "synthetic:classes=3,images=24"
    assert (recipe.evaluation.resize, recipe.evaluation.exact) == ("squash", True)
    assert recipe.train.size == 32
    with pytest.raises(UserError, match=r"does not say which data it is for\n  --data URI"):
        fix_recipe(replace(product, details={}), None, {"size": 48}, seed=0)


@pytest.mark.parametrize(
    ("settings", "solver"),
    [
        ({}, "sgd"),
        ({"solver": "cached"}, "cached"),
        ({"epochs": 3}, "sgd"),
        ({"moves": "all"}, "sgd"),
        ({"moves": "stats"}, "cached"),
    ],
)
def test_the_solver_of_a_new_fix_follows_what_is_asked_for(
    fixed_run: Path, settings: dict[str, Any], solver: str
) -> None:
    recipe = fix_recipe(load(fixed_run, "before_fix"), None, {"size": 64, **settings}, seed=0)
    assert recipe.fix.solver == solver
    assert recipe.fix.batch_size == 16


def test_the_momentum_a_training_started_from_is_not_that_of_its_fix(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "r")
    path = tmp_path / "r" / "recipe.yaml"
    text = path.read_text()
    assert "  state: ''\n" in text
    path.write_text(text.replace("  state: ''\n", "  state: /somewhere/state.safetensors\n"))
    assert fix_recipe(load(tmp_path / "r"), None, {"size": 48}, seed=0).optim.state == ""


def test_a_folder_without_a_classifier_gets_a_random_head(make_recipe: Make, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in build_model("test_resnet", 7).state_dict().items() if "fc." not in name}
    save_file(state, tmp_path / "model.safetensors")
    cfg = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 0}
    config = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for kwargs in ({}, {"drop_rate": 0.3}):
        found = start(make_recipe(model={"weights": str(tmp_path), "kwargs": kwargs}))
        assert found.note == "the head starts from random weights, for 3 classes"
        assert torch.equal(found.model.state_dict()["bn1.weight"], state["bn1.weight"])
        assert found.model.state_dict()["fc.weight"].shape[0] == 3
        assert found.model.state_dict()["fc.weight"].std() > 0
