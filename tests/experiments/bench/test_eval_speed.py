"""`fixres bench eval`: both sides evaluate every picture and agree; mistakes are explained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    for split, count in (("train", 130), ("val", 1)):
        for name in ("a", "b"):
            folder = tmp_path / "many" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(chance.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                coarse.resize((40, 40)).save(folder / f"{i}.jpg", quality=90)
    return tmp_path / "many"


@pytest.mark.system
def test_every_side_evaluates_every_picture_and_they_agree(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(pictures), "--sizes", "32", "--repeat", "1", "--batch-size", "50", "--workers", "0"]
    assert main(["bench", "eval", "random:test_resnet", *words, "--threads", "1", "--json", "-"]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert (found["n"], found["threads"], found["model"]) == (260, 1, "test_resnet")
    (row,) = found["results"]
    ours, theirs = row["sides"]["torch"], row["sides"]["timm"]
    # One pass of each: the ratio is that of the two rates.
    assert (
        found["ratio"]
        == ours["ratio"]
        == pytest.approx(ours["images_per_second"] / theirs["images_per_second"], rel=0.02)
    )
    assert ours["same_top1"] > 0.97
    assert "pictures with timm's top-1: torch at 32 px" in out.err


def test_fewer_pictures_than_a_batch_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "eval", "random:test_resnet", "--data", str(photos)]) == 2
    assert "24 pictures are no more than one batch of 256" in capsys.readouterr().err


def test_on_a_device_ours_runs_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["random:test_resnet", "--data", str(photos), "--sizes", "32", "--repeat", "1", "--batch-size", "8"]
    assert main(["bench", "eval", *words, "--device", "auto"]) == 2
    assert "add --vs none" in capsys.readouterr().err
    assert main(["bench", "eval", *words, "--device", "cuda:9", "--vs", "none"]) == 2
    assert "cuda:9" in capsys.readouterr().err
    assert main(["bench", "eval", *words, "--workers", "0", "--vs", "none", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["results"][0]["sides"]) == ["torch"]
    assert found["results"][0]["sides"]["torch"]["images_per_second"] > 0
    assert found["ratio"] is None
