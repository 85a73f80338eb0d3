"""Model folders that are of an older kind, damaged or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from tests.support.imports import logits


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


def test_a_pickle_in_a_folder_runs_nothing(
    pushed: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    shutil.copytree(pushed, folder)
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save({"conv.weight": torch.zeros(1), "x": Evil()}, folder / "pytorch_model.bin")
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "system" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "evil-was-here").exists()


def test_pytorch_model_bin_is_read_where_there_are_no_safetensors(
    source: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    theirs = timm.create_model("resnet18", num_classes=6)
    theirs.load_state_dict(source.state_dict())
    timm.models.save_for_hf(theirs, tmp_path / "timm", safe_serialization=False)
    assert not (tmp_path / "timm" / "model.safetensors").exists()
    with torch.inference_mode():
        assert torch.equal(logits(tmp_path / "timm", images), source(images))


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_args": {"layers": [1, 1, 1, 100_000]}}, "add up to more than 100,000"),
        ({"model_args": {"layers": [1, 1, 1, 90_000]}}, "holds weights of"),
        ({"architecture": "vit_gigantic_patch14_224"}, "holds weights of"),
        ({"num_classes": 1_000_000, "architecture": "resnet50"}, "holds weights of"),
    ],
)
def test_a_config_that_asks_for_more_than_its_weights_fill_is_refused(
    pushed: Path, tmp_path: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(pushed, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "fetch the folder again" in told
