"""Weights that come alone: what is made of them, and odd, damaged or hostile ones."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product
from fixres.models.build import build_model
from fixres.training.initial_weights import fix_recipe
from fixres.training.run import run_recipe
from tests.support.imports import resnext_pytorch
from tests.support.networks import scramble


def test_the_commands_take_a_foreign_file_as_it_is(photos: Path, tmp_path: Path, capsys: Any) -> None:
    two = scramble(build_model("test_resnet", 2), 7)
    file = tmp_path / "checkpoint.pth.tar"
    torch.save(resnext_pytorch(dict(two.state_dict()), dict(two.state_dict())), file)
    answer = tmp_path / "a.json"
    argv = ["eval", str(file), "--model", "test_resnet", "--data", str(photos), "--sizes", "64", "--json", str(answer)]
    assert main(argv) == 0
    assert "ResNeXt-PyTorch" in capsys.readouterr().err
    assert json.loads(answer.read_text())["num_images"] == 10
    fixed = tmp_path / "fixed"
    argv = ["fix", str(file), "--model", "test_resnet", "--data", str(photos), "--size", "64", "--epochs", "1"]
    assert main([*argv, "--batch-size", "4", "--out", str(fixed)]) == 0
    assert fixres.load(fixed).preprocess.size == 64


def file_of(model: nn.Module, folder: Path, wrap: Callable[[Any], Any] = lambda state: state) -> Path:
    path = folder / "w.pth"
    torch.save(wrap(model.state_dict()), path)
    return path


def test_a_thousand_classes_are_not_taken_for_imagenet(tmp_path: Path) -> None:
    file = file_of(build_model("test_resnet", 1000), tmp_path)
    for out, flags in (("a", []), ("b", ["--new-head", "1000"])):
        assert main(["import", str(file), "--model", "test_resnet", "--out", str(tmp_path / out), *flags]) == 0
        product = fixres.load(tmp_path / out)
        assert not product.has_names
        assert product.classes[:2] == ("0", "1")
    assert main(["import", str(tmp_path / "a"), "--out", str(tmp_path / "c")]) == 0
    assert "label_names" not in json.loads((tmp_path / "c" / "config.json").read_text())


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "caformer_s18", "fbnetc_100", "coat_lite_tiny"])
def test_unusual_heads_norms_and_shared_tensors(name: str, tmp_path: Path) -> None:
    source = timm.create_model(name, num_classes=5).eval()
    if name == "fbnetc_100":
        source = timm.create_model(name, num_classes=5, bn_eps=1e-3).eval()
    scramble(source)
    file = file_of(source, tmp_path)
    assert main(["import", str(file), "--model", name, "--out", str(tmp_path / "o")]) == 0
    theirs = timm.create_model(f"local-dir:{tmp_path / 'o'}", pretrained=True).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = source(images)
        assert torch.equal(fixres.load(tmp_path / "o").model(images), expected)
        assert torch.equal(theirs(images), expected)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("mixer_s32_224", ["--size", "256"], "cannot take 256 px"),
        ("crossvit_9_240", ["--size", "320"], "cannot take 320 px"),
        ("test_resnet", ["--size", "100000"], "give a number of pixels from 1 to 4096"),
        ("test_resnet", ["--train-size", "100000"], "give a number of pixels from 1 to 4096"),
        ("resnet18", [], "does not fit 'resnet18'\n  missing"),
        ("vit_tiny_patch16_224", [], "does not fit 'vit_tiny_patch16_224'\n  missing"),
        ("test_resnet.typo", [], "'test_resnet' has no weights tagged 'typo'"),
    ],
)
def test_what_cannot_run_is_not_imported(
    name: str, flags: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    source = "test_resnet" if not flags else name
    file = file_of(build_model(source, 5), tmp_path)
    assert main(["import", str(file), "--model", name, "--out", str(tmp_path / "o"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_position_grid_of_another_size(tmp_path: Path, capsys: Any) -> None:
    source = scramble(timm.create_model("test_vit", num_classes=4, img_size=192)).eval()
    argv = ["import", str(file_of(source, tmp_path)), "--model", "test_vit", "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    assert "pos_embed" in capsys.readouterr().err
    assert main([*argv, "--grid-size", "192", "--size", "192", "--train-size", "192"]) == 0
    images = torch.randn(1, 3, 192, 192)
    with torch.inference_mode():
        assert torch.equal(fixres.load(tmp_path / "o").model(images), source(images))


def test_names_and_claims_in_the_file_are_used(tmp_path: Path, capsys: Any) -> None:
    model = build_model("test_resnet", 3)
    file = file_of(model, tmp_path, lambda s: {"state_dict": s, "classes": ["cat", "dog", "owl"], "arch": "resnet34"})
    assert main(["import", str(file), "--model", "test_resnet", "--out", str(tmp_path / "o")]) == 0
    assert fixres.load(tmp_path / "o").classes == ("cat", "dog", "owl")
    assert "the file says it holds resnet34" in capsys.readouterr().err


def test_integers_complex_and_nan_are_no_weights(tmp_path: Path, capsys: Any) -> None:
    good = build_model("test_resnet", 3).state_dict()
    faults = {"int": good["fc.weight"].int(), "complex": good["fc.weight"].to(torch.complex64)}
    faults["nan"] = torch.full_like(good["fc.weight"], float("nan"))
    for name, tensor in faults.items():
        torch.save({**good, "fc.weight": tensor}, tmp_path / f"{name}.pth")
        argv = ["import", str(tmp_path / f"{name}.pth"), "--model", "test_resnet", "--out", str(tmp_path / "o")]
        assert main(argv) == 2
        assert "fc.weight" in capsys.readouterr().err


def test_files_of_the_other_systems_are_fed_as_these_feed_them(tmp_path: Path) -> None:
    network = torchvision_models.resnet18(num_classes=4)
    average = {"n_averaged": 3, **{f"module.{k}": v for k, v in network.state_dict().items()}}
    file = file_of(network, tmp_path, lambda s: {"epoch": 1, "state_dict": s, "ema_state_dict": average})
    p = fixres.load(file, model_name="resnet18").preprocess
    assert (p.size, p.resize_size, p.interpolation) == (224, 256, "bilinear")
    assert fixres.load(file, "ema", "resnet18").weights == "ema"
    # A tag says how its own weights are fed, and is obeyed.
    assert fixres.load(file, model_name="resnet18.a1_in1k").preprocess.interpolation == "bicubic"


def test_body_alone_gets_a_head_in_training_and_none_elsewhere(photos: Path, tmp_path: Path, capsys: Any) -> None:
    state = {k: v for k, v in build_model("test_resnet", 3).state_dict().items() if not k.startswith("fc.")}
    torch.save(state, tmp_path / "body.pth")
    with pytest.raises(UserError, match="holds no classifier"):
        fixres.load(tmp_path / "body.pth", model_name="test_resnet")
    argv = ["train", "--data.uri", str(photos), "--model.name", "test_resnet", "--train.size", "32"]
    argv += ["--model.weights", str(tmp_path / "body.pth"), "--train.epochs", "1", "--train.batch_size", "8"]
    assert main([*argv, "--data.workers", "0", "--out", str(tmp_path / "r")]) == 0
    assert "the head starts from random weights, for 2 classes" in capsys.readouterr().err


def test_names_with_control_characters_do_not_reach_the_terminal(tmp_path: Path, capsys: Any) -> None:
    state = {**build_model("test_resnet", 3).state_dict(), "evil\x1b[31m\rname": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    argv = ["import", str(tmp_path / "w.pth"), "--model", "test_resnet", "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "evil\\x1b[31m\\rname" in error
    assert "\x1b" not in error


def test_doubled_keys_are_refused_before_they_are_hashed(tmp_path: Path, capsys: Any) -> None:
    key: Any = ("a", "b")
    for _ in range(60):
        key = (key, key)
    # Written by hand: Python itself would hash the key for ever.
    with (tmp_path / "raw").open("wb") as file:
        writer = pickle._Pickler(file, 2)
        writer.write(pickle.PROTO + b"\x02}")
        writer.save(key)
        writer.write(b"K\x01s.")
    archive = tmp_path / "w.pth"
    torch.save({"a": 1}, archive)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "bad.pth", "w") as new:
        for info in old.infolist():
            is_pickle = info.filename.endswith("data.pkl")
            new.writestr(info, (tmp_path / "raw").read_bytes() if is_pickle else old.read(info))
    argv = ["import", str(tmp_path / "bad.pth"), "--model", "resnet18", "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    assert "keys are no words or numbers" in capsys.readouterr().err


def test_a_bare_weights_file_needs_the_name_of_its_network(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="--model NAME"):
        load(tmp_path / "w.pth")
    product = load(tmp_path / "w.pth", model_name="test_resnet")
    assert product.classes == ("0", "1", "2", "3")


def test_weights_without_class_names_take_those_of_as_many_folders(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    product = load(tmp_path / "w.pth", model_name="test_resnet")
    *_, remarks = measure_product(product, EvalRequest(data=str(photos), workers=0))
    assert any("in order" in remark for remark in remarks)
    recipe = fix_recipe(product, str(photos), {"size": 32, "epochs": 1, "batch_size": 4}, seed=0)
    outcome = run_recipe(recipe, tmp_path / "fixed")
    before, *_ = measure_product(product, EvalRequest(data=str(photos), workers=0))
    assert outcome.rows[0]["top1"] == before["results"][0]["top1"]
    three = timm.create_model("test_resnet", num_classes=3)
    torch.save(three.state_dict(), tmp_path / "three.pth")
    with pytest.raises(UserError, match="3 outputs without names"):
        measure_product(load(tmp_path / "three.pth", model_name="test_resnet"), EvalRequest(data=str(photos)))
