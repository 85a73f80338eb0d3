"""An optimizer's state travels with the weights, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from fixres.models.build import build_model


@pytest.fixture(scope="module")
def optimizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = torchvision_models.resnet18(num_classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    file = tmp_path_factory.mktemp("o") / "epoch_1.pth.tar"
    torch.save({"epoch": 1, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    return file


def test_optimizer_state_travels_by_name_into_training(optimizer_file: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "imported"
    assert main(["import", str(optimizer_file), "--model", "resnet18", "--out", str(out), "--optimizer"]) == 0
    argv = ["train", "--data.uri", str(photos), "--model.name", "resnet18", "--model.weights", str(out)]
    argv += ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8", "--optim.momentum", "0.9"]
    ends = []
    for name, extra in (("with", ["--optim.state", str(out)]), ("without", [])):
        assert main([*argv, "--out", str(tmp_path / name), *extra, "--data.workers", "0"]) == 0
        ends.append(fixres.load(tmp_path / name).model.state_dict()["conv1.weight"])
    assert not torch.equal(ends[0], ends[1])


def test_optimizer_state_that_does_not_belong_is_refused(
    optimizer_file: Path, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "imported"
    assert main(["import", str(optimizer_file), "--model", "resnet18", "--out", str(out), "--optimizer"]) == 0
    argv = ["train", "--data.uri", str(photos), "--model.name", "resnet34", "--optim.state", str(out)]
    argv += ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8", "--out", str(tmp_path / "r")]
    assert main(argv) == 2
    assert "has no state for layer1.2" in capsys.readouterr().err


def test_a_run_that_took_over_momentum_can_be_fixed_and_repeated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = build_model("test_resnet", 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, "e.pth.tar")
    assert main(["import", "e.pth.tar", "--model", "test_resnet", "--out", "o", "--optimizer"]) == 0
    argv = ["train", "--data.uri", str(photos), "--model.name", "test_resnet", "--model.weights", "o"]
    argv += ["--optim.state", "o", "--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8"]
    assert main([*argv, "--data.workers", "0", "--out", "r"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", str(tmp_path / "r" / "recipe.yaml"), "--out", "again"]) == 0
    first, again = (p / "model" / "model.safetensors" for p in (tmp_path / "r", Path("again")))
    assert first.read_bytes() == again.read_bytes()
    argv = ["fix", str(tmp_path / "r"), "--size", "64", "--epochs", "1", "--batch-size", "8"]
    assert main([*argv, "--out", "fixed"]) == 0
