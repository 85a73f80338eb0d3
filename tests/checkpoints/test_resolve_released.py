"""`fixres:NAME` from the file as the authors released it, by every door: load, import, predict, torch.hub, fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from fixres.config.loading import load as load_recipe
from fixres.training.initial_weights import fix_recipe
from tests.support.networks import scramble

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return scramble(torchvision_models.resnet50(), 1).eval()


@pytest.fixture(scope="module")
def home(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a TORCH_HOME that holds FixResNet50_v2 under the authors' name and in their layout."""
    home = tmp_path_factory.mktemp("torch-home")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": state}, home / "hub" / "checkpoints" / "ResNet50_v2.pth")
    return home


@pytest.fixture(autouse=True)
def released_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setenv("FIXRES_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "_hub_dir", None, raising=False)


def test_a_released_network_is_fed_as_its_figure_was_measured(network: nn.Module) -> None:
    product = fixres.load("fixres:FixResNet50_v2")
    p = product.preprocess
    assert (product.train_size, p.size, p.resize_size, p.resize, p.interpolation) == (
        224,
        384,
        438,
        "height",
        "bilinear",
    )
    assert (product.classes[967], product.spoken(967)) == ("n07920052", "espresso")
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(product.model(images), network(images))
    assert any("79.1 % at 384 px" in note and "CC BY-NC 4.0" in note for note in product.notes)


def test_the_licence_travels_with_the_weights(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m"
    assert main(["import", "fixres:FixResNet50_v2", "--out", str(out)]) == 0
    assert "CC BY-NC 4.0" in capsys.readouterr().err
    card = (out / "README.md").read_text()
    assert "fixres:FixResNet50_v2, licence CC BY-NC 4.0" in card
    assert "timm has none like it" in card
    config = json.loads((out / "config.json").read_text())
    assert config["label_descriptions"]["n07920052"] == "espresso"
    assert fixres.load(out).preprocess == fixres.load("fixres:FixResNet50_v2").preprocess


def test_predict_speaks_in_words(photos: Path, capsys: Any) -> None:
    picture = str(photos / "val" / "red" / "00.jpg")
    assert main(["predict", "fixres:FixResNet50_v2", picture, "--format", "json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["size"] == 384
    assert all(guess["name"].startswith("n") and guess["description"] for guess in answer["top"])


def test_torch_hub_gives_the_network(network: nn.Module) -> None:
    model = torch.hub.load(str(ROOT), "fixresnet_50", source="local", progress=False)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.system
def test_a_fix_of_released_weights_starts_from_them_and_says_their_licence(photos: Path, tmp_path: Path) -> None:
    recipe = fix_recipe(fixres.load("fixres:FixResNet50_v2"), str(photos), {"size": 64, "epochs": 1}, 0)
    assert (recipe.model.name, recipe.model.weights) == ("resnet50", "fixres:FixResNet50_v2")
    assert recipe.evaluation.resize == "height"
    argv = ["fix", "fixres:FixResNet50_v2", "--data", str(photos), "--size", "64", "--epochs", "1", "--batch-size", "8"]
    assert main([*argv, "--out", str(tmp_path / "r")]) == 0
    assert "licence CC BY-NC 4.0" in (tmp_path / "r" / "model" / "README.md").read_text()
    again = load_recipe(str(tmp_path / "r" / "recipe.yaml"))
    assert again.model.weights == "fixres:FixResNet50_v2"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predict", "fixres:FixResNet50_v3", "x.jpg"], "did you mean 'FixResNet50_v2'"),
        (["predict", "fixres:FixPNASNet5", "x.jpg"], "hub/checkpoints/PNASNet.pth"),
        (["predict", "fixres:features_labels", "x.jpg"], "is a file of features, no network"),
        (["fetch", "features_labels"], "hub/checkpoints/fixres_features/labels.npy"),
        (["predict", "fixres:moco_v2_800ep", "x.jpg"], "--new-head"),
        (["predict", "url:http://127.0.0.1:9/w.pth", "x.jpg", "--model", "resnet18"], "sha256"),
        (["predict", "url:https://127.0.0.1:9/w.pth", "x.jpg"], "--model NAME"),
        (["predict", "timm:resnett18", "x.jpg"], "did you mean"),
        (["predict", "package:efficientnet-lite9", "x.jpg"], "allowed: package:efficientnet-lite0"),
        (["fetch", "FixResNet51"], "did you mean"),
        (["fetch", "moco_v2_800ep"], "moco_v2_800ep_pretrain.pth.tar"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(argv: list[str], message: str, capsys: Any) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert "Traceback" not in error


def test_fetch_lists_and_finds_what_is_there(home: Path, capsys: Any) -> None:
    assert main(["fetch"]) == 0
    listing = capsys.readouterr().out
    for name in ("FixResNet50_v2", "FixPNASNet5", "moco_v2_800ep", "resnext101_32x48d_wsl"):
        assert name in listing
    assert main(["fetch", "FixResNet50_v2"]) == 0
    assert capsys.readouterr().out.strip() == str(home / "hub" / "checkpoints" / "ResNet50_v2.pth")
