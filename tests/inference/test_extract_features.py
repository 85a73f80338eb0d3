"""Features need no head: networks without one, or with one for other classes, give embeddings and nothing else."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fixres
from fixres.checkpoints import resolve
from fixres.checkpoints.product import Product
from fixres.cli.main import main
from fixres.errors import UserError
from fixres.inference.extract import extract
from fixres.inference.requests import ExtractRequest
from fixres.io.array_store import Rows
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from tests.support.several import run_processes

DATA = "synthetic:classes=3,images=60,size=40"
FILES = {"embedding.npy", "labels.npy", "index.csv", "extract.json"}


@pytest.fixture(scope="module")
def body() -> dict[str, torch.Tensor]:
    """Return the weights of a small network without its classifier."""
    torch.manual_seed(0)
    state = build_model("test_resnet", 9, init="torch").state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def named(body: dict[str, torch.Tensor], classes: tuple[str, ...], has_names: bool = True) -> Product:
    """Return a product with these weights and a head for other classes."""
    torch.manual_seed(1)
    model = build_model("test_resnet", len(classes), init="torch").eval()
    model.load_state_dict({**model.state_dict(), **body})
    return Product(model, "test_resnet", classes, Preprocess(32), 32, "raw", {}, has_names, {}, "memory")


def ask(split: str = "train", **more: Any) -> ExtractRequest:
    return ExtractRequest(data=DATA, split=split, workers=0, device="cpu", batch_size=8, **more)  # type: ignore[arg-type]


def test_a_head_for_other_classes_is_left_out_and_the_rest_is_the_same(body: Any, tmp_path: Path) -> None:
    fits = extract(named(body, ("0", "1", "2"), has_names=False), ask(), tmp_path / "fits")
    for folder, product, why in (
        ("other", named(body, ("cat", "dog")), "holds classes the checkpoint does not know: "),
        ("number", named(body, tuple("01234567"), has_names=False), "has 8 outputs without names"),
    ):
        found = extract(product, ask(), tmp_path / folder)
        assert why in found.why_no_softmax
        assert {path.name for path in (tmp_path / folder).iterdir()} == FILES
        assert np.array_equal(found.embedding(), fits.embedding())
        assert np.array_equal(found.labels(), fits.labels())
        assert (found.num_classes, found.num_images) == (0, fits.num_images)
        record = json.loads((tmp_path / folder / "extract.json").read_text())
        assert len(record["classes"]) == 3, "labels are places in the collection's own list"
        with pytest.raises(UserError, match=r"has no softmax\.npy: "):
            found.softmax()
    assert fits.why_no_softmax == ""


@pytest.fixture
def sources(body: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the words that name the same weights without a classifier in every way there is."""
    torch.save(body, tmp_path / "w.pth")
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(body, folder / "model.safetensors")
    cfg = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    config = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": {**cfg, "num_classes": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(resolve, "fetch_hub_folder", lambda name: folder)
    monkeypatch.setattr(resolve, "published_classes", lambda name: 0)
    monkeypatch.setattr(resolve, "fetch_pretrained", lambda name: body)
    released = replace(resolve.find_released("moco_v2_800ep"), architecture="test_resnet", test_size=32)
    monkeypatch.setattr(resolve, "find_released", lambda name: released)
    monkeypatch.setattr(resolve, "fetch_released", lambda name, progress=None: (tmp_path / "w.pth", ""))
    return {
        "a file": [str(tmp_path / "w.pth"), "--model", "test_resnet", "--size", "32"],
        "a folder": [str(folder)],
        "the hub": ["hf-hub:timm/body"],
        "timm": ["timm:test_resnet", "--size", "32"],
        "a file for timm": ["timm:test_resnet", "--weights", str(tmp_path / "w.pth"), "--size", "32"],
        "a release": ["fixres:moco_v2_800ep"],
    }


@pytest.mark.parametrize("way", ["a file", "a folder", "the hub", "timm", "a file for timm", "a release"])
def test_weights_without_a_classifier_have_features(
    sources: dict[str, list[str]], way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", *sources[way], "--data", DATA, "--workers", "0", "--device", "cpu"]
    for split in ("train", "val"):
        assert main([*words, "--split", split, "--out", str(tmp_path / split)]) == 0
    said = capsys.readouterr().err
    assert said.count("no softmax.npy: the weights have no classifier; labels are the collection's own\n") == 2
    assert "random" not in said
    assert {path.name for path in (tmp_path / "val").iterdir()} == FILES
    # The head that stands in is the same each time, so that the folders belong together.
    out = tmp_path / "score.json"
    score = ["score", str(tmp_path / "val"), "--train", str(tmp_path / "train"), "--json", str(out)]
    assert main([*score, "--neighbours", "3", "--linear-probe"]) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert result["num_images"] > 0
    assert result["neighbours"]["top1"] >= 0
    assert result["linear_probe"]["num_train"] > 0
    assert "top1" not in result
    assert "no top-1: the weights have no classifier" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "val")]) == 2
    assert "there is no softmax.npy, so no top-1: the weights have no classifier" in capsys.readouterr().err
    assert main(["eval", *(word.replace("--size", "--sizes") for word in sources[way]), "--data", DATA]) == 2
    assert "classifier" in capsys.readouterr().err


def test_the_verb_gives_features_too(sources: dict[str, list[str]], tmp_path: Path) -> None:
    found = fixres.extract(sources["a folder"][0], tmp_path / "x", DATA, workers=0, device="cpu")
    assert found.why_no_softmax == "the weights have no classifier"
    assert found.embedding().shape == (found.num_images, found.embedding_size)
    with pytest.raises(UserError, match="without a classifier"):
        fixres.load(sources["a folder"][0])


class Killed(BaseException):
    """The process ends here."""


def test_features_go_on_after_a_kill_and_leave_out_what_cannot_be_read(
    body: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "train" / "red" / "03.jpg").write_text("no picture")
    product = named(body, ("cat", "dog"))
    request = ExtractRequest(
        data=str(photos), split="train", workers=0, device="cpu", batch_size=4, on_bad_image="skip"
    )
    whole = extract(product, request, tmp_path / "whole")
    assert whole.bad_images == ("train/red/03.jpg",)
    assert len(whole.labels()) == len(whole.embedding()) == whole.num_images
    assert set(whole.labels().tolist()) == {0, 1}
    with (tmp_path / "whole" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [("blue", "red").index(row["label"]) for row in rows] == whole.labels().tolist()
    write, written = Rows.write, []

    def stop(self: Rows, batch: int, first: int, blocks: Any) -> None:
        if len(written) == 2:
            raise Killed
        write(self, batch, first, blocks)
        written.append(batch)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "write", stop)
        with pytest.raises(Killed):
            extract(product, request, tmp_path / "cut")
    assert extract(product, request, tmp_path / "cut").num_resumed == 8
    for name in FILES - {"extract.json"}:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_two_processes_write_the_features_of_one(body: Any, tmp_path: Path) -> None:
    extract(named(body, ("cat", "dog")), ask(), tmp_path / "one")
    run_processes(2, lambda: extract(named(body, ("cat", "dog")), ask(), tmp_path / "two").num_images)
    for name in FILES - {"extract.json"}:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
