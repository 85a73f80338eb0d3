"""Weights that are no numbers are refused at every door."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from fixres.cli.main import main
from fixres.io.tensors import read_weights, write_weights


@pytest.fixture
def broken(fixed_run: Path, tmp_path: Path) -> Path:
    """A product one of whose weights is nan."""
    folder = tmp_path / "model"
    shutil.copytree(fixed_run / "model", folder)
    state = read_weights(folder / "model.safetensors")
    state["bn1.weight"] = torch.full_like(state["bn1.weight"], float("nan"))
    write_weights(folder / "model.safetensors", state)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "MODEL", "PICTURE"],
        ["eval", "MODEL"],
        ["serve", "MODEL"],
        ["export", "MODEL", "--format", "torch", "--out", "OUT"],
        ["extract", "MODEL", "--out", "OUT"],
        ["fix", "MODEL", "--size", "64", "--out", "OUT"],
        ["average", "MODEL", "OTHER", "--out", "OUT"],
        ["import", "MODEL", "--out", "OUT"],
    ],
    ids=lambda words: words[0],
)
def test_weights_that_are_no_numbers_are_refused(
    broken: Path, fixed_run: Path, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = {
        "MODEL": str(broken),
        "OTHER": str(fixed_run),
        "PICTURE": str(tmp_path / "red.png"),
        "OUT": str(tmp_path / "out.x"),
    }
    assert main([given.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert "weights that are no numbers (inf or nan) in bn1.weight" in err
    assert "Traceback" not in err
