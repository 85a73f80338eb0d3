"""`fixres eval`: what it says about a product, a second checkpoint, other backends and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fixres.checkpoints.resolve import load
from fixres.cli.main import main

Ask = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def ask(fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str, checkpoint: Path = fixed_run) -> tuple[dict[str, Any], str]:
        assert main(["eval", str(checkpoint), "--workers", "0", *words, "--json", str(tmp_path / "r.json")]) == 0
        return json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().err

    return ask


def test_a_product_repeats_its_logged_number_and_anything_else_warns(ask: Ask) -> None:
    assert "repeats the logged result exactly" in ask()[1]
    assert "warning" not in ask()[1]
    assert "warning: 64 px is not the product's test size, 48 px" in ask("--sizes", "64")[1]
    answer, told = ask("--resize", "squash")
    assert "warning: resize squash is not the product's, shorter" in told
    assert "repeats" not in told
    assert answer["resize"] == "squash"
    assert "warning: crop ratio 1.0 is not the product's, 0.875" in ask("--crop-ratio", "1")[1]
    assert "warning: these are the weights from before the fix" in ask("--weights", "before_fix")[1]


def test_everything_that_can_be_asked_for_is_in_the_json(ask: Ask, fixed_run: Path) -> None:
    plain, _ = ask("--bootstrap", "0")
    answer, told = ask("--calibrate", "--per-class", "--confusion", "--corrupt", "noise=0.2", "--bootstrap", "50")
    (clean, noisy), n = answer["results"], answer["num_images"]
    assert "bootstrap_ci95" not in plain["results"][0]
    for name, value in plain["results"][0].items():
        if name != "images_per_second":
            assert clean[name] == value
    low, high = clean["bootstrap_ci95"]["top1"]
    assert low <= clean["top1"] <= high
    assert [row["name"] for row in clean["per_class"]] == list(load(fixed_run).classes)
    assert sum(row["num_images"] for row in clean["per_class"]) == n == np.sum(clean["confusion"])
    correct = sum(row["num_correct"] for row in clean["per_class"])
    assert 100 * correct / n == clean["top1"]
    assert noisy["corruption"] == "noise=0.2"
    assert clean.get("corruption") is None
    assert noisy["temperature"] == clean["temperature"] > 0
    assert clean["loss_calibrated"] != clean["loss"]
    assert "temperatures fitted on val" in told
    assert "classes by recall" in told


def test_a_temperature_of_the_split_it_was_fitted_on_cannot_raise_the_loss(ask: Ask) -> None:
    answer, told = ask("--calibrate", "--split", "val")
    (result,) = answer["results"]
    assert result["loss_calibrated"] <= result["loss"]
    assert "the split they are reported on" in told


def test_two_checkpoints_are_compared_picture_by_picture(ask: Ask, fixed_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.pth")
    other = tmp_path / "other"
    assert main(["import", str(tmp_path / "w.pth"), "--model", "test_resnet", "--out", str(other)]) == 0
    answer, told = ask("--against", str(other), "--sizes", "32,48")
    for place, pair in enumerate(answer["against"]["paired"]):
        mine, theirs = answer["results"][place], answer["against"]["results"][place]
        assert pair["difference"] == pytest.approx(mine["top1"] - theirs["top1"])
        assert pair["num_better"] - pair["num_worse"] == pytest.approx(
            answer["num_images"] * (mine["top1"] - theirs["top1"]) / 100
        )
    assert "McNemar's exact p = " in told
    same, told = ask("--against", str(fixed_run))
    (pair,) = same["against"]["paired"]
    assert (pair["difference"], pair["num_better"], pair["p_value"]) == (0, 0, 1)
    assert "not distinguishable" in told


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_another_backend_gives_the_same_predictions(ask: Ask, backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    tables = [tmp_path / "torch.csv", tmp_path / "other.csv"]
    plain, _ = ask("--predictions", str(tables[0]), "--batch-size", "7")
    answer, _ = ask("--predictions", str(tables[1]), "--batch-size", "7", "--backend", backend)
    assert answer["backend"] == answer["conditions"]["backend"] == backend
    assert answer["results"][0]["loss"] == pytest.approx(plain["results"][0]["loss"], rel=1e-4)
    assert answer["results"][0]["num_near_ties"] == 0
    assert [line.rpartition(",")[0] for line in tables[0].read_text().splitlines()] == [
        line.rpartition(",")[0] for line in tables[1].read_text().splitlines()
    ]


def jpegs(root: Path, names: str) -> Path:
    for split in ("train", "val"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 40), (80 * i, 0, 0)).save(root / split / name / f"{i}.jpg")
    return root


def test_mistakes_are_one_message(fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "w.pth")
    bare = [str(tmp_path / "w.pth"), "--model", "test_resnet"]
    data = jpegs(tmp_path / "photos", "abc")
    empty = jpegs(tmp_path / "empty", "ab")
    for name in "ab":
        for i in range(3):
            (empty / "val" / name / f"{i}.jpg").unlink()
    cases = [
        ([*bare], "does not say which data it is for\n  --data URI"),
        ([*bare, "--data", str(data)], "has 4 outputs without names"),
        ([str(fixed_run), "--data", str(data)], "holds classes the checkpoint does not know: a, b, c"),
        ([*bare, "--data", str(empty), "--split", "val"], "val"),
        ([str(fixed_run), "--split", "holdout"], "has no split 'holdout'"),
        ([str(fixed_run), "--tta", "ten", "--resize", "squash"], "--tta ten needs a picture larger than the crop"),
        ([str(fixed_run), "--corrupt", "jpeg=0"], "the strength of jpeg lies in 1 to 95"),
        ([str(fixed_run), "--backend", "openvino", "--device", "cuda"], "openvino computes on the CPU"),
        ([str(fixed_run), "--against", "nowhere"], "nowhere does not exist"),
    ]
    for words, message in cases:
        assert main(["eval", *words]) == 2, words
        err = capsys.readouterr().err
        assert message in err, (words, err)
        assert "Traceback" not in err


def test_other_collections_are_measured_beside(
    ask: Ask, fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "synthetic:classes=3,images=60,size=48,seed=5"
    answer, told = ask("--sizes", "32,48", "--corrupt", "noise=0.3", "--also", other)
    (beside,) = answer["also"]
    alone, _ = ask("--sizes", "32,48", "--corrupt", "noise=0.3", "--data", other)
    timed = "images_per_second"
    assert [{k: v for k, v in r.items() if k != timed} for r in beside["results"]] == [
        {k: v for k, v in r.items() if k != timed} for r in alone["results"]
    ]
    assert beside["data"] == alone["data"] != answer["data"]
    gap = beside["results"][1]["top1"] - beside["results"][0]["top1"]
    assert f"{beside['results'][1]['top1']:.2f} ({gap:+.1f})" in told
    assert "also" not in alone
    # Nothing is measured where a collection cannot be.
    assert main(["eval", str(fixed_run), "--also", str(tmp_path / "none"), "--workers", "0"]) == 2
    assert "top-1" not in capsys.readouterr().err
