"""Networks of the other systems compute after an import what they computed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from pretrainedmodels.models.inceptionresnetv2 import InceptionResNetV2
from pretrainedmodels.models.senet import SEBottleneck, SENet
from safetensors.torch import save_file
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from fixres.models.build import build_model
from tests.support.imports import imported, logits, prefixed
from tests.support.networks import scramble


def moco(version: int, prefix: str) -> Any:
    """Return a MoCo checkpoint around a ResNet-50 body, and that body."""
    body = scramble(torchvision_models.resnet50(num_classes=2), 3)
    state = {name: tensor for name, tensor in body.state_dict().items() if not name.startswith("fc.")}
    head = {"fc.weight": torch.zeros(128, 2048), "fc.bias": torch.zeros(128)}
    if version == 2:
        head = {"fc.0.weight": torch.zeros(2048, 2048), "fc.0.bias": torch.zeros(2048)}
        head |= {"fc.2.weight": torch.zeros(128, 2048), "fc.2.bias": torch.zeros(128)}
    both = {**state, **head}
    content = {**prefixed(both, f"{prefix}encoder_q."), **prefixed(both, f"{prefix}encoder_k.")}
    content |= {f"{prefix}queue": torch.zeros(128, 8), f"{prefix}queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 800, "arch": "resnet50", "state_dict": content, "optimizer": {}}, state


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_moco_needs_a_head_and_never_starts_from_random_weights(
    version: int, prefix: str, tmp_path: Path, capsys: Any
) -> None:
    content, body = moco(version, prefix)
    file = tmp_path / "moco.pth.tar"
    torch.save(content, file)
    argv = ["import", str(file), "--model", "resnet50", "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    assert "--new-head" in capsys.readouterr().err
    assert main([*argv, "--new-head", "7"]) == 0
    said = capsys.readouterr().err
    assert "encoder_k" in said
    assert "the head starts from random weights, for 7 classes" in said
    state = fixres.load(tmp_path / "o").model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in body.items())
    assert state["fc.weight"].shape == (7, 2048)
    assert state["fc.weight"].std() > 0


@pytest.mark.parametrize(
    ("alias", "size"), [("EfficientNet-B0", 224), ("EfficientNet-B0", 96), ("efficientnet-b1", 240)]
)
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_lukemelas_efficientnets(alias: str, size: int, form: str, tmp_path: Path) -> None:
    name = alias.lower()
    theirs = scramble(EfficientNet.from_name(name, num_classes=5, image_size=size), 4).eval()
    file = tmp_path / f"w.{form}"
    if form == "pth":
        torch.save(theirs.state_dict(), file)
    else:
        save_file(dict(theirs.state_dict()), file)
    folder = imported(file, model=alias)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, expected = logits(folder, images), theirs(images)
    assert (ours - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
    assert fixres.load(folder).preprocess.mean == (0.485, 0.456, 0.406)


@pytest.mark.system
def test_networks_of_the_transfer_table(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inception = scramble(InceptionResNetV2(num_classes=4), 5).eval()
    inception.avgpool_1a = nn.AdaptiveAvgPool2d(1)
    torch.save(inception.state_dict(), tmp_path / "inception.pth")
    folder = imported(tmp_path / "inception.pth", model="InceptionResNet-V2")
    images = torch.randn(1, 3, 299, 299)
    with torch.inference_mode():
        expected = inception(images)
        assert (logits(folder, images) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert fixres.load(folder).preprocess.mean == (0.5, 0.5, 0.5)
    senet = SENet(SEBottleneck, [3, 8, 36, 3], groups=64, reduction=16, dropout_p=None, num_classes=4)
    senet = scramble(senet, 6).eval()
    torch.save(senet.state_dict(), tmp_path / "senet.pth")
    folder = imported(tmp_path / "senet.pth", model="SENet-154")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = senet(images)
        assert (logits(folder, images) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_networks_timm_does_not_have_load_through_fixres(tmp_path: Path) -> None:
    source = scramble(build_model("resnet18_cifar", 10)).eval()
    torch.save(source.state_dict(), tmp_path / "best_acc_net.pth")
    folder = imported(tmp_path / "best_acc_net.pth", model="resnet18_cifar")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(logits(folder, images), source(images))
    card = (folder / "README.md").read_text()
    assert "resnet18_cifar is not part of timm" in card
    assert "timm.create_model" not in card
    assert fixres.load(folder).preprocess.mean == (0.4914, 0.4822, 0.4465)
