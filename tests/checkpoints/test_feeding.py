"""Bare weights are fed as the program that wrote them feeds, where it is known, and else what is assumed is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

import fixres
from fixres.checkpoints.feeding import _PROGRAMS
from fixres.checkpoints.feeding_request import CHANGES, Feeding, Program
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from fixres.training.run import run_recipe
from tests.support.imports import prefixed, resnext_pytorch
from tests.support.networks import scramble

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return scramble(build_model("resnet18", 2), 3)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def fed(path: Path, model: str = "resnet18", **feeding: Any) -> Preprocess:
    return load(path, model_name=model, feeding=Feeding(**feeding)).preprocess


@pytest.mark.parametrize("name", ["best_acc_net.pth", "best_acc_net_ema.pth"])
def test_the_file_names_of_simpleclassification_are_marks(small: nn.Module, tmp_path: Path, name: str) -> None:
    p = fed(saved(small.state_dict(), tmp_path / name))
    assert (p.at(224).resize_size, p.at(448).resize_size) == (255, 510)
    assert (p.resize, p.interpolation, p.mean, p.std) == ("shorter", "bilinear", *IMAGENET)
    assert all(p.at(size).resize_size == int(size * 1.14) for size in range(32, 2000, 32))
    # ResNet50 is written by everybody, so that the name of the file says more.
    big = saved(build_model("resnet50", 2).state_dict(), tmp_path / name)
    assert fed(big, "ResNet50") == p
    # What is in a file says more than its name.
    other = saved(resnext_pytorch(small.state_dict(), small.state_dict()), tmp_path / name)
    assert fed(other).resize_size == 256


@pytest.mark.parametrize(
    ("num_classes", "mean", "std"),
    [
        (10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        (100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_the_cifar_network_is_normalised_by_its_own_set(num_classes: int, mean: Any, std: Any, tmp_path: Path) -> None:
    file = saved(build_model("resnet18_cifar", num_classes).state_dict(), tmp_path / "w.pth")
    assert fed(file, "resnet18_cifar") == Preprocess(32, crop_ratio=1.0, mean=mean, std=std)
    assert fed(file, "resnet18_cifar", fed_as="simpleclassification").mean == mean


def test_the_number_of_classes_alone_decides_nothing(tmp_path: Path) -> None:
    file = saved(build_model("resnet18", 100).state_dict(), tmp_path / "w.pth")
    product = load(file, model_name="resnet18")
    assert product.preprocess == Preprocess(288, crop_ratio=1.0, interpolation="bicubic")
    assert not product.has_names
    assert fed(file, fed_as="simpleclassification").mean == IMAGENET[0]


def test_files_and_names_of_fixres_are_fed_by_height(small: nn.Module, tmp_path: Path) -> None:
    content = {"model": prefixed(small.state_dict(), "module."), "accuracy": 0.7, "optimizer": {}, "lr_scheduler": {}}
    p = fed(saved(content, tmp_path / "checkpoint.pth"))
    assert p == Preprocess(224, crop_ratio=0.875, resize="height")
    assert p.at(384).resize_size == 438


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("simpleclassification", Preprocess(224, crop_ratio=0.8772)),
        ("resnext-pytorch", Preprocess(224)),
        ("fixres", Preprocess(224, resize="height")),
        ("torchvision", Preprocess(224)),
        ("timm", Preprocess(288, crop_ratio=1.0, interpolation="bicubic")),
    ],
)
def test_what_the_user_says_wins_over_every_mark(
    program: Program, expected: Preprocess, small: nn.Module, tmp_path: Path
) -> None:
    for name, content in (
        ("best_acc_net.pth", small.state_dict()),
        ("w.pth", small.state_dict()),
        ("r.pth", resnext_pytorch(small.state_dict(), small.state_dict())),
    ):
        product = load(saved(content, tmp_path / name), model_name="resnet18", feeding=Feeding(fed_as=program))
        assert product.preprocess == expected
        assert any("--fed-as)" in note for note in product.notes)


def test_every_program_that_can_be_named_is_known() -> None:
    assert set(get_args(Program)) - {"timm"} <= set(_PROGRAMS)


def test_what_is_assumed_is_said_with_its_ground_and_the_flag_that_changes_it(
    small: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    bare = saved(small.state_dict(), tmp_path / "w.pth")
    words = ["--model", "resnet18", "--data", str(photos), "--sizes", "64", "--bootstrap", "0"]
    assert main(["eval", str(bare), *words]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "fed as timm feeds resnet18.a1_in1k: 288 px" in told
    assert "assumed from the name of the model, since nothing in the file says which program wrote it" in told
    assert "--fed-as simpleclassification|resnext-pytorch|fixres|torchvision|timm" in told
    assert "input: 64 px" in told
    marked = saved(small.state_dict(), tmp_path / "best_acc_net.pth")
    assert main(["eval", str(marked), *words]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "fed as SimpleClassification feeds (only it calls a file best_acc_net.pth)" in told
    assert "source: its dataloader.py" in told
    assert "assumed from" not in told
    tagged = load(bare, model_name="resnet18.tv_in1k")
    assert any("the tag of resnet18.tv_in1k says so" in note for note in tagged.notes)


CHANGED = {
    "resize": "squash",
    "crop_ratio": 0.5,
    "interpolation": "bicubic",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
}


def test_single_settings_are_changed_for_files_and_folders(small: nn.Module, tmp_path: Path, trained_run: Path) -> None:
    assert tuple(CHANGED) == CHANGES
    asked = Feeding(**CHANGED)
    bare = load(saved(small.state_dict(), tmp_path / "w.pth"), model_name="resnet18", feeding=asked)
    assert bare.preprocess == Preprocess(288, **CHANGED)  # type: ignore[arg-type]
    assert "but --resize squash --crop-ratio 0.5 --interpolation bicubic --mean 0.1,0.2,0.3" in bare.notes[-1]
    own, product = load(trained_run), load(trained_run, feeding=asked)
    assert product.preprocess == replace(own.preprocess, **CHANGED)
    assert "warning: resize squash is not the product's, shorter" in product.notes
    # What was measured as the product says itself is not repeated like this.
    assert not product.details.get("results")
    assert own.details["results"]


@pytest.mark.parametrize("source", ["run", "last.pt", "timm:resnet18.a1_in1k", "fixres:FixResNet50"])
def test_what_says_itself_how_it_is_fed_takes_no_program(
    source: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixres.checkpoints.resolve.load_published", lambda *_: load(trained_run))
    monkeypatch.setattr("fixres.checkpoints.resolve.fetch_released", lambda *_: (Path("w"), None))
    monkeypatch.setattr("fixres.checkpoints.resolve.load_released", lambda *_: load(trained_run))
    known = {"run": trained_run, "last.pt": trained_run / "checkpoints" / "last.pt"}
    words = ["--model", "test_resnet"] if source == "last.pt" else []
    for command in (["eval"], ["export", "--out", str(tmp_path / "m.pt2"), "--format", "torch"], ["import"]):
        argv = [command[0], str(known.get(source, source)), *command[1:], *words, "--fed-as", "fixres"]
        argv += ["--out", str(tmp_path / "o")] if command == ["import"] else []
        assert main(argv) == 2
        assert "says itself how it is fed" in capsys.readouterr().err


# --- training states of our own


def test_last_pt_is_fed_as_its_run_feeds(trained_run: Path) -> None:
    last = trained_run / "checkpoints" / "last.pt"
    p = load(f"{last}#raw", model_name="test_resnet").preprocess
    assert p == load(trained_run).preprocess


def test_last_pt_keeps_all_of_its_preprocessing(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    first = saved(build_model("test_resnet", 4).state_dict(), tmp_path / "w.pth")
    evaluation = {"resize": "height", "crop_ratio": 0.9, "batch_size": 16}
    recipe = make_recipe(
        model={"weights": str(first), "mean": (0.1, 0.2, 0.3)}, evaluation=evaluation, data={"exif": "ignore"}
    )
    run_recipe(recipe, tmp_path / "r")
    last = load(tmp_path / "r" / "checkpoints" / "last.pt", model_name="test_resnet")
    own = load(tmp_path / "r")
    assert last.preprocess == own.preprocess
    assert (own.preprocess.resize, own.preprocess.mean, own.preprocess.exif) == ("height", (0.1, 0.2, 0.3), "ignore")
    states = (last.model.state_dict(), own.model.state_dict())
    assert last.classes == own.classes
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_last_pt_of_before_that_was_kept_is_fed_as_its_recipe_says(trained_run: Path, tmp_path: Path) -> None:
    content = torch.load(trained_run / "checkpoints" / "last.pt")
    assert content.pop("preprocess")["size"] == 32
    product = load(saved(content, tmp_path / "last.pt"), model_name="test_resnet")
    assert product.preprocess == load(trained_run).preprocess


@pytest.mark.parametrize(
    "broken", [{"size": 32, "mean": 3}, {"size": 0}, {"size": 32, "crop_ratio": 0.0}, {"size": 9**9}, "x", 3]
)
def test_a_damaged_last_pt_is_said_to_be_that(broken: Any, trained_run: Path, tmp_path: Path) -> None:
    content = torch.load(trained_run / "checkpoints" / "last.pt") | {"preprocess": broken}
    with pytest.raises(UserError, match="damaged"):
        load(saved(content, tmp_path / "last.pt"), model_name="test_resnet")


# --- names of classes


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = build_model("resnext50_32x4d", 1000).state_dict()
    return saved({"epoch": 10, "state_dict": state}, tmp_path_factory.mktemp("theirs") / "epoch_10.pth.tar")


def test_predict_of_a_resnext_pytorch_file_prints_names(
    thousand: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(photos / "val" / "red" / "00.jpg")
    argv = ["predict", str(thousand), picture, "--model", "resnetxt50_32x4d", "--size", "32", "--format", "json"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    best = json.loads(printed.out)[0]["top"][0]
    assert best["name"].startswith("n0") or best["name"].startswith("n1")
    assert "description" in best
    assert "fed as ResNeXt-PyTorch feeds" in printed.err
    assert "224 px, shorter side to 256, centre crop, bilinear" in printed.err
    # A thousand classes of a file without marks are no ImageNet.
    assert main([*argv[:4], "resnext50_32x4d", *argv[5:]]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"][0]["name"].isdecimal()


def test_other_collections_of_a_thousand_classes_are_taken_in_order(thousand: Path) -> None:
    product = load(thousand, model_name="resnetxt50_32x4d")
    found = fixres.evaluate(product, "synthetic:classes=1000,images=1000,size=8", split="test", sizes=[32], workers=0)
    assert any("in order" in remark for remark in found.remarks)


# --- all doors agree


def test_eval_extract_and_predict_agree_to_the_last_picture(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(scramble(build_model("resnet18", 2), 5).state_dict(), tmp_path / "best_acc_net.pth")
    common = [str(file), "--model", "resnet18"]
    programs = [["--fed-as", name] for name in ("simpleclassification", "resnext-pytorch", "fixres")]
    for number, more in enumerate(([], *programs, ["--resize", "squash", "--mean", "0.5,0.5,0.5"])):
        out = tmp_path / f"features{number}"
        data = ["--data", str(photos), "--workers", "0"]
        rows = tmp_path / "rows.csv"
        assert main(["eval", *common, *data, "--sizes", "64", "--predictions", str(rows), *more]) == 0
        assert main(["extract", *common, *data, "--size", "64", "--out", str(out), *more]) == 0
        capsys.readouterr()
        assert (
            main(["predict", *common[:1], str(photos / "val"), *common[1:], "--size", "64", *more, "--format", "json"])
            == 0
        )
        predicted = [row["top"][0] for row in json.loads(capsys.readouterr().out)]
        measured = list(csv.DictReader(rows.open()))
        softmax = np.load(out / "softmax.npy")
        assert len(measured) == len(softmax) == len(predicted) == 10
        for row, probabilities, best in zip(measured, softmax, predicted, strict=True):
            assert row["prediction"] == str(int(probabilities.argmax())) == best["name"]
            assert float(row["probability"]) == pytest.approx(float(probabilities.max()), abs=1e-5)
            assert best["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)
