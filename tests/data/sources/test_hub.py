"""Data sets of the Hugging Face hub, from local folders in its layouts; nothing is fetched."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.inspect.check import check
from fixres.data.inspect.statistics import statistics
from fixres.errors import UserError
from tests.support.opening import opened, refusal

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.mktemp("cache")
    for module in (datasets.config,):
        monkeypatch.setattr(module, "HF_DATASETS_CACHE", cache)
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)


def png(value: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), (value, 0, 0)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def table(root: Path, splits: tuple[str, ...] = ("train", "validation", "test"), **columns: Any) -> Path:
    """Write a folder of Parquet files as the hub keeps them: pictures as bytes, labels as ClassLabel."""
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["plum", "fig"]),
        **{k: v[0] for k, v in columns.items()},
    )
    for place, split in enumerate(splits):
        rows = {
            "image": [{"bytes": png(20 * place + k), "path": None} for k in range(20)],
            "label": [k % 2 for k in range(20)],
            **{name: values for name, (_, values) in columns.items()},
        }
        (root / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def test_a_parquet_folder_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    collection = opened("hf:here")
    assert collection.uri == f"hf:{tmp_path}/here"
    assert (collection.classes, collection.select, collection.report) == (("plum", "fig"), "val", "test")
    for place, name in enumerate(("train", "val", "test")):
        split = collection.split(name)
        assert [split.read(k).getpixel((0, 0))[0] for k in range(20)] == [20 * place + k for k in range(20)]  # type: ignore[index]
        assert split.labels.tolist() == [k % 2 for k in range(20)]
    val = collection.split("val")
    assert val.source.read_bytes(val.paths[3]) == png(23)  # type: ignore[attr-defined]
    packed = pickle.dumps(val)
    assert len(packed) < 20_000
    assert np.array_equal(np.asarray(pickle.loads(packed).read(3)), np.asarray(val.read(3)))


def test_pictures_go_through_our_decoder(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = {
        "image": [{"bytes": png(9, exif=exif), "path": None}, {"bytes": b"words", "path": None}, None]
        + [{"bytes": png(k), "path": None} for k in range(7)],
        "label": [0, 1] * 5,
    }
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    whole = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict(train=whole, test=whole).save_to_disk(tmp_path / "saved")
    split = opened(f"hf:{tmp_path}/saved", holdout=0).split("test")
    assert (split.read(0).size, split.read(0, exif="ignore").size) == ((4, 8), (8, 4))
    with pytest.raises(BadImage, match=r"^test/00000001: not a picture"):
        split.read(1)
    with pytest.raises(BadImage, match=r"^test/00000002: the row holds no picture"):
        split.read(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_of_the_hub_is_checked_like_a_folder(tmp_path: Path, workers: int) -> None:
    cells = [{"bytes": png(k), "path": f"{k}.png"} for k in range(20)]
    for broken in (4, 7):
        cells[broken] = [{"bytes": b"words", "path": None}, None][broken // 7]  # type: ignore[call-overload]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    train = datasets.Dataset.from_dict({"image": cells, "label": [k % 2 for k in range(20)]}, features)
    test = datasets.Dataset.from_dict({"image": [*cells[5:6], *cells[8:9]], "label": [1, 1]}, features)
    datasets.DatasetDict(train=train, test=test, unsupervised=test).save_to_disk(tmp_path / "saved")
    data = Data(uri=f"hf:{tmp_path}/saved")
    report = check(data, workers)
    assert report.num_images == {"train": 20, "test": 2}
    named = {kind: [tuple(p.path for p in item.pictures) for item in items] for kind, items in report.findings.items()}
    assert named["not a picture"] == [("train/00000004",)]
    assert named["unreadable"] == [("train/00000007",)]
    assert named["leak"] == [("test/00000000", "train/00000005"), ("test/00000001", "train/00000008")]
    assert [item.detail for item in report.findings["conflicting labels"]] == ["a, b"]
    assert report.findings["passed over"][0].detail.startswith("not a split, ignored: unsupervised")
    assert report.measures["formats"] == {"PNG": 20}
    found = statistics(data, workers)
    assert (found.counts["train"], found.unreadable) == ({"a": 9, "b": 9}, {"train": 2, "test": 0})


def test_a_parquet_folder_of_the_hub_is_checked(tmp_path: Path) -> None:
    report = check(Data(uri=f"hf:{table(tmp_path)}"), 0)
    assert report.num_images == {"train": 20, "val": 20, "test": 20}
    assert report.count("error") == 0
    with pytest.raises(UserError, match="cannot be opened"):
        check(Data(uri=f"hf:{tmp_path / 'none'}"), 0)


def test_an_image_folder_of_the_hub(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("fig", "plum"):
            for k in range(10):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                (tmp_path / split / name / f"{k}.png").write_bytes(png(k))
    collection = opened(f"hf:{tmp_path}")
    assert collection.classes == ("fig", "plum")
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 18, "val": 2, "test": 20}
    assert collection.split("test").read(0).size == (8, 4)


def test_other_columns_and_labels_that_are_texts_or_numbers(tmp_path: Path) -> None:
    words, numbers = [f"w{k % 3}" for k in range(20)], [k % 4 + 8 for k in range(20)]
    columns = {
        "word": (datasets.Value("string"), words),
        "number": (datasets.Value("int32"), numbers),
        "mask": (datasets.Image(), [{"bytes": png(99), "path": None}] * 20),
        "score": (datasets.Value("float32"), [0.5] * 20),
    }
    table(tmp_path, **columns)
    assert "choose one: ?image=image or ?image=mask" in refusal(f"hf:{tmp_path}")
    texts = opened(f"hf:{tmp_path}?image=mask&label=word")
    assert texts.classes == ("w0", "w1", "w2")
    assert texts.split("train").labels.tolist() == [k % 3 for k in range(20)]
    assert texts.split("train").read(0).getpixel((0, 0)) == (99, 0, 0)
    assert opened(f"hf:{tmp_path}?image=image&label=number").classes == ("8", "9", "10", "11")
    assert "has no column 'wrod' - did you mean 'word'?" in refusal(f"hf:{tmp_path}?image=image&label=wrod")
    assert "the column 'score' holds no class labels" in refusal(f"hf:{tmp_path}?image=image&label=score")
    assert "'word' is no column of pictures" in refusal(f"hf:{tmp_path}?image=word")


def test_a_set_without_pictures_lists_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).to_parquet(tmp_path / "train.parquet")
    message = refusal(f"hf:{tmp_path}")
    assert "has no column of pictures" in message
    assert "text (Value, string), label (Value, int64)" in message


def test_hidden_test_labels_and_other_splits_are_left_out(tmp_path: Path) -> None:
    table(tmp_path, splits=("train", "test"))
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["plum", "fig"]))
    rows = {"image": [{"bytes": png(1), "path": None}] * 3, "label": [-1, -1, -1]}
    datasets.DatasetDict(
        train=datasets.load_dataset(str(tmp_path), split="train"),
        test=datasets.Dataset.from_dict(rows, features),
        unsupervised=datasets.Dataset.from_dict(rows, features),
    ).save_to_disk(tmp_path / "saved")
    collection = opened(f"hf:{tmp_path}/saved")
    assert collection.notes[:2] == (
        f"not a split, ignored: unsupervised in hf:{tmp_path}/saved",
        "test has no labels, left out",
    )
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 12, "val": 4, "test": 4}


def test_offline_and_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*args: Any, **settings: Any) -> None:
        raise ConnectionError("Couldn't reach 'user/none' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    message = refusal("hf:user/none")
    assert "hf:user/none cannot be opened (Couldn't reach" in message
    assert "HF_HUB_OFFLINE is set" in message
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'fixres[hf]'" in refusal("hf:user/none")
