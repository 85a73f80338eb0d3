"""`package:` weights and other names of checkpoints, and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main


def test_packaged_weights_know_an_espresso_and_a_cat(tmp_path: Path, capsys: Any) -> None:
    from skimage import data

    for name, pixels in (("coffee", data.coffee()), ("cat", data.cat())):
        Image.fromarray(np.asarray(pixels)).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / "coffee.png"), str(tmp_path / "cat.png")]
    assert main(["predict", "package:efficientnet-lite0", *files, "--format", "json"]) == 0
    coffee, cat = json.loads(capsys.readouterr().out)
    assert coffee["top"][0]["description"] == "espresso"
    assert coffee["top"][0]["name"] == "n07920052"
    assert sum("cat" in guess["description"] for guess in cat["top"][:3]) >= 2
    assert main(["predict", "package:efficientnet-lite0", files[0]]) == 0
    assert "espresso" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["import", "https://example.org/w.pth", "--out", "o"], "url:https://example.org/w.pth"),
        (["import", "fixres:moco_v2_800ep", "--out", "o"], "--new-head"),
        (["import", "fixres:features_labels", "--out", "o"], "is a file of features"),
        (["predict", "package:efficientnet-lite0", "x.png", "--weights", "ema"], "one set of weights"),
        (["predict", "package:efficientnet-lite0", "x.png", "--model", "resnet50"], "not 'resnet50'"),
        (["predict", "timm:resnet18.typo", "x.png"], "no weights tagged 'typo'"),
        (["models", "resnet18.typo"], "typo"),
    ],
)
def test_contradictions_are_said(
    argv: list[str], message: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIXRES_OFFLINE", "1")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert "network is used" not in error
