"""A recipe need not say twice which network it is: weights that name theirs are enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fixres
from fixres.checkpoints.network_of import network_of, with_network
from fixres.cli.parse import TrainOptions, parse_recipe
from fixres.config.loading import load
from fixres.errors import UserError
from fixres.models import pretrained
from fixres.models.released import find_released


def folder(path: Path, architecture: str) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"architecture": architecture}))
    return path


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("timm:resnet26d.bt_in1k", "resnet26d.bt_in1k"),
        ("timm:resnet26d#raw", "resnet26d"),
        ("package:efficientnet-lite0", "tf_efficientnet_lite0.in1k"),
        ("fixres:moco_v2_800ep", find_released("moco_v2_800ep").architecture),
        ("hf-hub:someone/something", "from_the_hub"),
        ("ROOT/model", "test_vit"),
        ("ROOT/run", "test_convnext"),
        ("ROOT/run#before_fix", "test_convnext"),
        ("ROOT/empty", ""),
        ("ROOT/w.pth", ""),
        ("url:https://host/w.pth#sha256=0123456789abcdef", ""),
        ("package:unknown", ""),
    ],
)
def test_weights_name_their_network(weights: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "model", "test_vit")
    folder(tmp_path / "run" / "model", "test_convnext")
    hub = folder(tmp_path / "hub", "from_the_hub")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(pretrained, "fetch_hub_folder", lambda _: hub)
    weights = weights.replace("ROOT", str(tmp_path))
    assert network_of(weights) == name
    recipe = load(None, {"data.uri": "a", "model.weights": weights})
    assert with_network(recipe).model.name == (name or "resnet18")
    assert with_network(with_network(recipe)) == with_network(recipe)
    said = load(None, {"data.uri": "a", "model.weights": weights, "model.name": "resnet50"})
    assert with_network(said).model.name == "resnet50", "a contradiction is for the run to refuse"


def test_a_file_that_says_the_name_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: {uri: a}\nmodel: {name: resnet50, weights: package:efficientnet-lite0}\n")
    assert parse_recipe([str(file)], TrainOptions).recipe.model.name == "resnet50"
    file.write_text("data: {uri: a}\nmodel: {weights: package:efficientnet-lite0}\n")
    assert parse_recipe([str(file)], TrainOptions).recipe.model.name == "tf_efficientnet_lite0.in1k"
    assert load(None, {"data.uri": "a"}).model.name == "resnet18"


def test_the_verb_has_it_too(trained_run: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": {"uri": "synthetic:classes=3,images=48,size=48", "workers": 0},
        "model": {"weights": str(trained_run)},
        "train": {"size": 32, "epochs": 1, "batch_size": 8},
        "output": {"tracker": "none"},
    }
    fixres.train(None, tmp_path / "r", **settings)
    assert load(tmp_path / "r" / "recipe.yaml").model.name == load(trained_run / "recipe.yaml").model.name
    settings["model"]["name"] = "resnet18"
    with pytest.raises(UserError, match="not 'resnet18'"):
        fixres.train(None, tmp_path / "s", **settings)
