"""Model folders and files from elsewhere that are odd, damaged or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models as torchvision_models

import fixres
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.models.build import build_model
from tests.models.test_names import scramble

Config = dict[str, Any]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as timm writes it: three classes without names."""
    folder = tmp_path_factory.mktemp("pushed")
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), folder)
    return folder


def changed(pushed: Path, folder: Path, change: Callable[[Config], Any]) -> Path:
    """Return a copy of the folder with its config.json changed in place, or replaced by what `change` returns."""
    shutil.copytree(pushed, folder)
    config = json.loads((folder / "config.json").read_text())
    replaced = change(config)
    text = replaced if isinstance(replaced, str) else json.dumps(config if replaced is None else replaced)
    (folder / "config.json").write_text(text)
    return folder


def put(*path: str) -> Callable[[Any], Callable[[Config], None]]:
    def with_value(value: Any) -> Callable[[Config], None]:
        def change(config: Config) -> None:
            for key in path[:-1]:
                config = config.setdefault(key, {})
            config[path[-1]] = value

        return change

    return with_value


cfg = "pretrained_cfg"
HOSTILE: dict[str, tuple[Callable[[Config], Any], str]] = {
    "a file to read": (put("model_args", "checkpoint_path")("/etc/passwd"), "checkpoint_path says how timm builds"),
    "pretrained": (put("model_args", "pretrained")(True), "pretrained says how timm builds"),
    "another configuration": (put("model_args", "pretrained_cfg_overlay")({}), "pretrained_cfg_overlay says"),
    "a device": (put("model_args", "device")("meta"), "device says how timm builds"),
    "a layer that is none": (put("model_args", "act_layer")("x"), "do not suit 'test_resnet'"),
    "arguments in a list": (put("model_args")([1]), "model_args"),
    "another folder's network": (put("architecture")("local-dir:/x"), "architecture"),
    "a network in a list": (put("architecture")(["resnet18"]), "architecture"),
    "an unknown network": (put("architecture")("resnet19"), "unknown model 'resnet19'"),
    "a million million classes": (put("num_classes")(10**12), "num_classes"),
    "a crop that is no number": (put(cfg, "crop_pct")("x"), "crop_pct"),
    "a negative crop": (put(cfg, "crop_pct")(-1), "crop_pct"),
    "no mean": (put(cfg, "mean")(0.5), "mean"),
    "two means": (put(cfg, "mean")([0.5, 0.5]), "mean"),
    "no spread": (put(cfg, "std")([0, 0, 0]), "std"),
    "no size": (put(cfg, "input_size")([]), "input_size"),
    "an enormous size": (put(cfg, "input_size")([3, 10**7, 10**7]), "input_size"),
    "no square": (put(cfg, "input_size")([3, 160, 224]), "no square"),
    "an unknown resize": (put("fixres", "resize")("evil"), "resize"),
    "a file elsewhere": (put("fixres", "before_fix")("../../../etc/passwd"), "before_fix"),
    "too few names": (put("label_names")(["a", "b"]), "2 label_names for 3 classes"),
    "a name twice": (put("label_names")(["a", "b", "a"]), "names a class twice"),
    "names that are none": (put("label_names")([["a"], 1, None]), "label_names"),
    "a list": (lambda _: [1], "damaged or not a timm model folder"),
    "no JSON": (lambda _: "{", "damaged or not a timm model folder"),
    "deep brackets": (lambda _: "[" * 100_000, "damaged or not a timm model folder"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_or_damaged_configuration_is_refused(fault: str, pushed: Path, tmp_path: Path, capsys: Any) -> None:
    change, message = HOSTILE[fault]
    folder = changed(pushed, tmp_path / "in", change)
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_timms_first_form_of_configuration(pushed: Path, tmp_path: Path) -> None:
    def flat(config: Config) -> Config:
        return {"architecture": config["architecture"], "num_classes": 3, **config[cfg]}

    assert len(fixres.load(changed(pushed, tmp_path / "in", flat)).classes) == 3


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil-was-here",)


def test_a_pickle_in_a_folder_runs_nothing(
    pushed: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = changed(pushed, tmp_path / "in", lambda _: None)
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save({"conv.weight": torch.zeros(1), "x": Evil()}, folder / "pytorch_model.bin")
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "system" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    assert main(["import", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "evil-was-here").exists()


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


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fixed"
    argv = ["train", "--data.uri", "synthetic:classes=3,images=30,size=48", "--model.name", "test_resnet"]
    argv += ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "10", "--fix.size", "64"]
    assert main([*argv, "--fix.epochs", "1", "--data.workers", "0", "--out", str(folder)]) == 0
    return folder


def test_a_fixed_run_keeps_what_was_before_the_fix(fixed: Path, tmp_path: Path) -> None:
    assert main(["import", str(fixed), "--out", str(tmp_path / "o")]) == 0
    ours, theirs = (fixres.load(source, "before_fix") for source in (tmp_path / "o", fixed))
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor)
    assert fixres.load(tmp_path / "o").details["results"] == fixres.load(fixed).details["results"]


def test_another_feeding_leaves_old_measurements_out(fixed: Path, tmp_path: Path) -> None:
    assert main(["import", str(fixed), "--out", str(tmp_path / "o"), "--resize", "squash", "--size", "96"]) == 0
    assert not fixres.load(tmp_path / "o").details["results"]
    assert "Measured" not in (tmp_path / "o" / "README.md").read_text()


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
    writer = pickle._Pickler((tmp_path / "raw").open("wb"), 2)
    writer.dispatch = writer.dispatch.copy()
    with (tmp_path / "raw").open("wb") as file:
        writer = pickle._Pickler(file, 2)
        writer.write(pickle.PROTO + b"\x02}")
        writer.save(key)
        writer.write(b"K\x01s.")
    archive = tmp_path / "w.pth"
    torch.save({"a": 1}, archive)
    import zipfile

    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "bad.pth", "w") as new:
        for info in old.infolist():
            is_pickle = info.filename.endswith("data.pkl")
            new.writestr(info, (tmp_path / "raw").read_bytes() if is_pickle else old.read(info))
    argv = ["import", str(tmp_path / "bad.pth"), "--model", "resnet18", "--out", str(tmp_path / "o")]
    assert main(argv) == 2
    assert "keys are no words or numbers" in capsys.readouterr().err
