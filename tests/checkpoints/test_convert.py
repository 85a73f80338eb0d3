"""A stranger's checkpoint becomes a model folder that computes what the stranger's network computed, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_data_config
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from tests.support.imports import State, imported, logits, prefixed, resnext_pytorch
from tests.support.networks import scramble


def fixres_paper(state: State, _: State) -> Any:
    return {"model": prefixed(state, "module."), "epoch": 3, "accuracy": 0.77, "lr_scheduler": {"last_epoch": 3}}


LAYOUTS: dict[str, Callable[[State, State], Any]] = {
    "flat": lambda state, _: state,
    "ddp": lambda state, _: prefixed(state, "module."),
    "compiled": lambda state, _: prefixed(state, "_orig_mod."),
    "fixres": fixres_paper,
    "ascend": lambda state, _: {"model": state, "epoch": 1},
    "resnext-pytorch": resnext_pytorch,
    "timm": lambda state, other: {"epoch": 2, "arch": "x", "state_dict": state, "state_dict_ema": other},
    "lightning": lambda state, _: {"epoch": 2, "state_dict": prefixed(state, "model."), "global_step": 9},
}


@pytest.fixture(scope="module")
def other() -> nn.Module:
    return scramble(torchvision_models.resnet18(num_classes=6), 2).eval()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_computes_what_its_network_computed(
    layout: str, source: nn.Module, other: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    file = tmp_path / f"{layout}.pth"
    torch.save(LAYOUTS[layout](source.state_dict(), other.state_dict()), file)
    folder = imported(file)
    with torch.inference_mode():
        assert torch.equal(logits(folder, images), source(images))
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(theirs(images), source(images))


@pytest.mark.parametrize("layout", ["resnext-pytorch", "timm"])
def test_raw_and_average_are_chosen_by_name(
    layout: str, source: nn.Module, other: nn.Module, images: torch.Tensor, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "both.pth"
    torch.save(LAYOUTS[layout](source.state_dict(), other.state_dict()), file)
    folder = imported(file, "--weights", "ema")
    assert "took the ema weights; the file holds raw as well" in capsys.readouterr().err
    assert fixres.load(folder).weights == "ema"
    with torch.inference_mode():
        assert torch.equal(logits(folder, images), other(images))
        # The file itself, named in place of a folder, gives the same.
        assert torch.equal(fixres.load(file, "ema", "resnet18").model(images), other(images))
        assert torch.equal(fixres.load(file, model_name="resnet18").model(images), source(images))


def test_an_average_that_is_not_there_is_refused(source: nn.Module, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "raw.pth"
    torch.save(source.state_dict(), file)
    argv = ["import", str(file), "--model", "resnet18", "--out", str(tmp_path / "o"), "--weights", "ema"]
    assert main(argv) == 2
    assert "raw" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_average_with_untrained_statistics_is_refused(source: nn.Module, tmp_path: Path, capsys: Any) -> None:
    average = {k: torch.zeros_like(v) if "running_mean" in k else v for k, v in source.state_dict().items()}
    average = {k: torch.ones_like(v) if "running_var" in k else v for k, v in average.items()}
    file = tmp_path / "old.pth"
    torch.save(resnext_pytorch(dict(source.state_dict()), average), file)
    argv = ["import", str(file), "--model", "resnet18", "--out", str(tmp_path / "o"), "--weights", "ema"]
    assert main(argv) == 2
    assert "never updated" in capsys.readouterr().err


def test_safetensors_and_timm_folders(source: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    folder = imported(tmp_path / "w.safetensors")
    theirs = timm.create_model("resnet18", num_classes=6)
    theirs.load_state_dict(source.state_dict())
    timm.models.save_for_hf(theirs, tmp_path / "timm", model_config={"label_names": list("abcdef")})
    again = tmp_path / "again"
    assert main(["import", str(tmp_path / "timm"), "--out", str(again)]) == 0
    with torch.inference_mode():
        assert torch.equal(logits(folder, images), source(images))
        assert torch.equal(logits(again, images), source(images))
    assert fixres.load(again).classes == tuple("abcdef")


DAMAGE: dict[str, tuple[Callable[[State], None], str]] = {
    "renamed": (lambda s: s.__setitem__("layer1.0.conv9.weight", s.pop("layer1.0.conv1.weight")), "layer1.0.conv9"),
    "transposed": (lambda s: s.__setitem__("fc.weight", s["fc.weight"].T.contiguous()), "fc.weight: [512, 6]"),
    "missing": (lambda s: s.__delitem__("layer2.0.bn1.running_mean"), "missing (1): layer2.0.bn1.running_mean"),
    "extra": (lambda s: s.__setitem__("surprise", torch.zeros(3)), "unexpected (1): surprise"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_listed_and_refused(
    layout: str, damage: str, source: nn.Module, other: nn.Module, tmp_path: Path, capsys: Any
) -> None:
    state = dict(source.state_dict())
    harm, message = DAMAGE[damage]
    harm(state)
    torch.save(LAYOUTS[layout](state, dict(other.state_dict())), tmp_path / "w.pth")
    assert main(["import", str(tmp_path / "w.pth"), "--model", "resnet18", "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    # A transposed classifier changes the number of classes the file seems to have, and is listed all the same.
    assert message in error or (damage == "transposed" and "fc." in error), error
    assert "Traceback" not in error
    assert not (tmp_path / "o").exists()


def test_a_new_head_only_when_asked_for_and_the_same_each_time(source: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    heads = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / name
        argv = ["import", str(file), "--model", "resnet18", "--out", str(out), "--new-head", "6", "--seed", seed]
        assert main(argv) == 0
        state = fixres.load(out).model.state_dict()
        assert all(torch.equal(state[k], v) for k, v in source.state_dict().items() if not k.startswith("fc."))
        heads.append(state["fc.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], source.state_dict()["fc.weight"])


def test_feeding_comes_from_the_model_and_can_be_stated(source: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    plain = fixres.load(imported(file, model="resnet18.tv_in1k")).preprocess
    assert (plain.size, plain.resize_size, plain.interpolation) == (224, 256, "bilinear")
    out = tmp_path / "stated"
    flags = ["--size", "384", "--train-size", "224", "--resize", "height", "--crop-ratio", "0.875"]
    flags += ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--interpolation", "bilinear", "--license", "CC0"]
    assert main(["import", str(file), "--model", "resnet18", "--out", str(out), *flags]) == 0
    product = fixres.load(out)
    assert (product.train_size, product.preprocess.size, product.preprocess.resize_size) == (224, 384, 438)
    assert (product.preprocess.resize, product.preprocess.mean) == ("height", (0.5, 0.5, 0.5))
    card = (out / "README.md").read_text()
    assert "timm has none like it" in card
    assert "licence CC0" in card
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True)
    sizes = [resolve_data_config({}, model=theirs, use_test_size=use)["input_size"][-1] for use in (False, True)]
    assert sizes == [224, 384]


def test_class_names_travel(source: nn.Module, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdef"))
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({str(i): f"class {i}" for i in range(6)}))
    assert fixres.load(imported(file, "--classes", str(names))).classes == tuple("abcdef")
    again = tmp_path / "again"
    assert main(["import", str(file), "--model", "resnet18", "--out", str(again), "--classes", str(labels)]) == 0
    assert fixres.load(again).classes[5] == "class 5"
    capsys.readouterr()
    for text, message in (("imagenet", "1000 class names"), (str(tmp_path / "none.txt"), "cannot read class names")):
        argv = ["import", str(file), "--model", "resnet18", "--out", str(tmp_path / "x"), "--classes", text]
        assert main(argv) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


def test_an_import_never_overwrites(source: nn.Module, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    folder = imported(file)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["import", str(file), "--model", "resnet18", "--out", str(folder), "--new-head", "3"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_fixed_run_keeps_what_was_before_the_fix(fixed_run: Path, tmp_path: Path) -> None:
    assert main(["import", str(fixed_run), "--out", str(tmp_path / "o")]) == 0
    ours, theirs = (fixres.load(source, "before_fix") for source in (tmp_path / "o", fixed_run))
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor)
    assert fixres.load(tmp_path / "o").details["results"] == fixres.load(fixed_run).details["results"]


def test_another_feeding_leaves_old_measurements_out(fixed_run: Path, tmp_path: Path) -> None:
    assert main(["import", str(fixed_run), "--out", str(tmp_path / "o"), "--resize", "squash", "--size", "96"]) == 0
    assert not fixres.load(tmp_path / "o").details["results"]
    assert "Measured" not in (tmp_path / "o" / "README.md").read_text()
