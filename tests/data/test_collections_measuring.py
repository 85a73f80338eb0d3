"""Measuring on pictures the checkpoint was not made from: as they lie there, with nothing set aside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.cli.main import main
from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.errors import UserError
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import measure_product


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def product(foreign: Path, names: tuple[str, ...] = ()) -> Product:
    from dataclasses import replace

    found = load(foreign, model_name="test_resnet")
    return replace(found, classes=names, has_names=True) if names else found


def test_a_folder_with_only_val_is_measured(foreign: Path, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "train")
    out = tmp_path / "o.json"
    words = ["eval", str(foreign), "--model", "test_resnet", "--data", f"folder:{photos}", "--sizes", "32"]
    assert main([*words, "--workers", "0", "--json", str(out)]) == 0
    answer = json.loads(out.read_text())
    assert (answer["split"], answer["num_images"]) == ("val", 10)
    with pytest.raises(UserError, match="no train"):
        open_collection(Data(uri=str(photos)))


def test_a_folder_of_classes_is_measured_whole(foreign: Path, photos: Path) -> None:
    flat = photos / "train"
    request = EvalRequest(data=f"folder:{flat}", workers=0, sizes=(32,))
    answer, found, split, remarks = measure_product(product(foreign), request)
    assert (answer["split"], answer["num_images"], split.name) == ("all", 24, "all")
    assert not any("at random" in remark for remark in remarks)
    asked, *_ = measure_product(product(foreign), EvalRequest(data=str(flat), workers=0, sizes=(32,), split="test"))
    assert (asked["split"], asked["num_images"]) == ("test", 4)
    named, again, *_ = measure_product(product(foreign, ("red", "blue")), request)
    assert (named["split"], named["num_images"]) == ("all", 24)
    # The folder's order is blue, red: by name the labels turn round.
    assert (again.labels == 1 - found.labels).all()


def test_the_products_own_folder_keeps_its_splits(photos: Path, tmp_path: Path) -> None:
    flat = photos / "train"
    fast = ["--model.name", "test_resnet", "--train.size", "32", "--train.epochs", "1", "--train.batch_size", "4"]
    fast += ["--data.workers", "0", "--output.tracker", "none", "--out", str(tmp_path / "run")]
    assert main(["train", "--data.uri", str(flat), *fast]) == 0
    own, *_, remarks = measure_product(load(tmp_path / "run"), EvalRequest(data=f"folder:{flat}", workers=0))
    assert (own["split"], own["num_images"]) == ("test", 4)
    assert any("repeats the logged result exactly" in remark for remark in remarks)
    (tmp_path / "other").mkdir()
    for name in ("red", "blue"):
        shutil.copytree(flat / name, tmp_path / "other" / name)
    other, *_ = measure_product(load(tmp_path / "run"), EvalRequest(data=str(tmp_path / "other"), workers=0))
    assert (other["split"], other["num_images"]) == ("all", 24)


def test_val_and_test_without_train_have_their_roles_and_all_their_classes(tmp_path: Path) -> None:
    for split, names in (("val", ("b", "c")), ("test", ("a", "b"))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / name / "x.png")
    collection = open_collection(Data(uri=str(tmp_path)), for_training=False)
    assert (collection.select, collection.report, collection.classes) == ("val", "test", ("a", "b", "c"))
    assert collection.split("val").labels.tolist() == [1, 2]


def test_nothing_is_carved_for_measuring(photos: Path) -> None:
    collection = open_collection(Data(uri=str(photos)), for_training=False)
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 24, "val": 10}
    assert (collection.select, collection.report, collection.notes) == ("val", "val", ())
