"""A stranger's checkpoint becomes a model folder that computes what the stranger's network computed, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from efficientnet_pytorch import EfficientNet
from PIL import Image
from pretrainedmodels.models.inceptionresnetv2 import InceptionResNetV2
from pretrainedmodels.models.senet import SEBottleneck, SENet
from safetensors.torch import save_file
from timm.data import resolve_data_config
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from fixres.models.build import build_model
from tests.models.test_names import scramble

State = dict[str, torch.Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def fixres_paper(state: State, _: State) -> Any:
    return {"model": prefixed(state, "module."), "epoch": 3, "accuracy": 0.77, "lr_scheduler": {"last_epoch": 3}}


def resnext_pytorch(state: State, other: State) -> Any:
    average = {"n_averaged": torch.tensor(7), **prefixed(other, "module.")}
    return {"epoch": 7, "best_acc1": 71.5, "state_dict": state, "ema_state_dict": average, "scheduler": {"T_0": 150}}


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
def source() -> nn.Module:
    torch.manual_seed(0)
    return scramble(torchvision_models.resnet18(num_classes=6), 1).eval()


@pytest.fixture(scope="module")
def other() -> nn.Module:
    return scramble(torchvision_models.resnet18(num_classes=6), 2).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def imported(file: Path, *flags: str, model: str = "resnet18") -> Path:
    """Import `file` through the command line and return the folder."""
    out = file.parent / f"{file.stem}-imported"
    assert main(["import", str(file), "--model", model, "--out", str(out), *flags]) == 0
    return out


def logits(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return fixres.load(folder).model(images)


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


def test_pytorch_model_bin_is_read_where_there_are_no_safetensors(
    source: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    theirs = timm.create_model("resnet18", num_classes=6)
    theirs.load_state_dict(source.state_dict())
    timm.models.save_for_hf(theirs, tmp_path / "timm", safe_serialization=False)
    assert not (tmp_path / "timm" / "model.safetensors").exists()
    with torch.inference_mode():
        assert torch.equal(logits(tmp_path / "timm", images), source(images))


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


LUKEMELAS = [("EfficientNet-B0", 224), ("EfficientNet-B0", 96), ("efficientnet-b1", 240)]


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


def test_the_commands_take_a_foreign_file_as_it_is(
    source: nn.Module, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    two = scramble(torchvision_models.resnet18(num_classes=2), 7)
    file = tmp_path / "checkpoint.pth.tar"
    torch.save(resnext_pytorch(dict(two.state_dict()), dict(two.state_dict())), file)
    answer = tmp_path / "a.json"
    argv = ["eval", str(file), "--model", "resnet18", "--data", str(photos), "--sizes", "64", "--json", str(answer)]
    assert main(argv) == 0
    assert "ResNeXt-PyTorch" in capsys.readouterr().err
    assert json.loads(answer.read_text())["num_images"] == 10
    fixed = tmp_path / "fixed"
    argv = ["fix", str(file), "--model", "resnet18", "--data", str(photos), "--size", "64", "--epochs", "1"]
    assert main([*argv, "--batch-size", "4", "--out", str(fixed)]) == 0
    assert fixres.load(fixed).preprocess.size == 64


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
