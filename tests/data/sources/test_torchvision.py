"""The sets of torchvision, from miniatures in their true layouts."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.inspect.check import check
from fixres.data.inspect.statistics import statistics
from fixres.data.sources.torchvision import SETS
from fixres.errors import UserError
from tests.support.opening import opened, refusal


def jpeg(path: Path, value: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), (value, value, value)).save(path, quality=95, **options)


def cifar(root: Path, num_classes: int) -> None:
    fine = num_classes == 100
    folder = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = ("train", "test") if fine else (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
    for name in names:
        labels = [k % num_classes for k in range((10 if fine else 2) * num_classes)]
        data = generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        data[:, 0] = labels
        content = {"data": data, "fine_labels" if fine else "labels": labels}
        (folder / name).write_bytes(pickle.dumps(content))
    words = [f"c{k}" for k in range(num_classes)]
    meta = {"fine_label_names" if fine else "label_names": words}
    (folder / ("meta" if fine else "batches.meta")).write_bytes(pickle.dumps(meta))


def mnist(root: Path, name: str) -> None:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 0, 1] = labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            content = header + array.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(content)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def flowers(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    for k in range(1, 307):
        jpeg(folder / "jpg" / f"image_{k:05}.jpg", k % 256)
    labels = np.arange(306) % 102 + 1
    savemat(folder / "imagelabels.mat", {"labels": labels})
    ids = np.arange(1, 307)
    savemat(folder / "setid.mat", {"trnid": ids[:102], "valid": ids[102:204], "tstid": ids[204:]})


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, breed in enumerate(("Abyssinian", "american_bulldog", "beagle"), 1):
        for k in range(12):
            jpeg(folder / "images" / f"{breed}_{k}.jpg", 10 * label)
            lines["test" if k < 4 else "trainval"].append(f"{breed}_{k} {label} {1 + (label > 1)} 1")
    (folder / "annotations").mkdir()
    for name, text in lines.items():
        (folder / "annotations" / f"{name}.txt").write_text("\n".join(text) + "\n")


def caltech101(root: Path) -> None:
    folder = root / "caltech101"
    for name in ("BACKGROUND_Google", "accordion", "airplanes"):
        for k in range(1, 11):
            jpeg(folder / "101_ObjectCategories" / name / f"image_{k:04}.jpg", k)
    (folder / "Annotations").mkdir()


def caltech256(root: Path) -> None:
    for y, name in enumerate(("001.ak47", "002.american-flag"), 1):
        for k in range(1, 11):
            jpeg(root / "caltech256" / "256_ObjectCategories" / name / f"{y:03}_{k:04}.jpg", k)


def food(root: Path) -> None:
    folder = root / "food-101"
    exif = Image.Exif()
    exif[0x0112] = 6
    listed: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name in ("waffles", "apple_pie"):
        for k in range(14):
            jpeg(folder / "images" / name / f"{k}.jpg", k, exif=exif)
            listed["test" if k < 4 else "train"].setdefault(name, []).append(f"{name}/{k}")
    (folder / "meta").mkdir()
    for split, content in listed.items():
        (folder / "meta" / f"{split}.json").write_text(json.dumps(content))


def cars(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    kind = [("fname", object), ("class", "u1")]
    for split, where in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.array([(f"{k:05}.jpg", k % 2 + 1) for k in range(20)], dtype=kind)
        savemat(folder / where, {"annotations": rows})
        for k in range(20):
            jpeg(folder / f"cars_{split}" / f"{k:05}.jpg", k)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura", "BMW"], dtype=object)})


def imagenette(root: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n02102040"):
            for k in range(10):
                jpeg(root / "imagenette2-160" / split / wnid / f"{k}.JPEG", k)


def folders(inner: str, splits: tuple[str, ...], suffix: str = "jpg") -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for split in splits:
            for name in ("00000", "00001"):
                for k in range(10):
                    jpeg(root / inner / split / name / f"{k}.{suffix}", k)

    return build


def dtd(root: Path) -> None:
    for split in ("train", "val", "test"):
        names = [f"{c}/{c}_{split}{k}.jpg" for c in ("banded", "dotted") for k in range(3)]
        for number, name in enumerate(names):
            jpeg(root / "dtd" / "dtd" / "images" / name, number)
        (root / "dtd" / "dtd" / "labels").mkdir(exist_ok=True)
        (root / "dtd" / "dtd" / "labels" / f"{split}2.txt").write_text("\n".join(names) + "\n")


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    for split in ("train", "val", "test"):
        for k in range(6):
            jpeg(data / "images" / f"{split}{k}.jpg", k)
        for level in ("variant", "family"):
            lines = [f"{split}{k} {('707-320', 'A 300')[k % 2]}" for k in range(6)]
            (data / f"images_{level}_{split}.txt").write_text("\n".join(lines) + "\n")
    for name in ("variants", "families"):
        (data / f"{name}.txt").write_text("707-320\nA 300\n")


def inaturalist(root: Path) -> None:
    for version in ("2021_train_mini", "2021_valid"):
        for k, name in enumerate(("Animalia_a_a_a_a_a_a", "Plantae_b_b_b_b_b_b")):
            for i in range(10):
                jpeg(root / version / f"{k:05}_{name}" / f"{i}.jpg", i)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Miniatures have other checksums than the real files."""
    for name in ("cifar", "flowers102", "svhn", "stl10"):
        module = getattr(torchvision.datasets, name)
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("uri", "build", "counts", "first_classes", "first_path"),
    [
        ("CIFAR10", lambda r: cifar(r, 10), {"train": 90, "val": 10, "test": 20}, ("c0", "c1"), "train/"),
        ("cifar100", lambda r: cifar(r, 100), {"train": 900, "val": 100, "test": 1000}, ("c0", "c1"), "train/"),
        ("MNIST", lambda r: mnist(r, "MNIST"), {"train": 90, "val": 10, "test": 10}, ("0 - zero",), "train/"),
        ("KMNIST", lambda r: mnist(r, "KMNIST"), {"train": 90, "val": 10, "test": 10}, ("o", "ki"), "train/"),
        ("Flowers102", flowers, {"train": 102, "val": 102, "test": 102}, ("pink primrose",), "flowers-102/jpg/image_"),
        ("OxfordPets", pets, {"train": 21, "val": 3, "test": 12}, ("Abyssinian", "American Bulldog"), "oxford-iiit"),
        ("Caltech101", caltech101, {"train": 12, "val": 4, "test": 4}, ("accordion", "airplanes"), "caltech101/101_"),
        ("Caltech256", caltech256, {"train": 12, "val": 4, "test": 4}, ("001.ak47",), "caltech256/256_"),
        ("Food101", food, {"train": 18, "val": 2, "test": 8}, ("apple_pie", "waffles"), "food-101/images/"),
        ("StanfordCars", cars, {"train": 18, "val": 2, "test": 20}, ("Acura", "BMW"), "stanford_cars/cars_train/"),
        ("Imagenette?variant=160px", imagenette, {"train": 18, "holdout": 2, "val": 20}, ("tench",), "imagenette2-160"),
        ("EuroSAT", folders("eurosat", ("2750",)), {"train": 12, "val": 4, "test": 4}, ("00000",), "eurosat/2750/"),
        (
            "Country211",
            folders("country211", ("train", "valid", "test")),
            {"train": 20, "val": 20, "test": 20},
            ("00000", "00001"),
            "country211/train/",
        ),
        ("DTD?variant=2", dtd, {"train": 6, "val": 6, "test": 6}, ("banded", "dotted"), "dtd/dtd/images/"),
        ("FGVCAircraft?variant=family", aircraft, {"train": 6, "val": 6, "test": 6}, ("707-320", "A 300"), "fgvc-"),
        (
            "INaturalist?variant=2021_train_mini",
            inaturalist,
            {"train": 18, "holdout": 2, "val": 20},
            ("00000_Animalia_a_a_a_a_a_a",),
            "2021_train_mini/",
        ),
    ],
)
def test_a_set_in_its_own_layout(
    tmp_path: Path,
    uri: str,
    build: Callable[[Path], None],
    counts: dict[str, int],
    first_classes: tuple[str, ...],
    first_path: str,
) -> None:
    build(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    name, _, options = uri.partition("?")
    collection = opened(f"torchvision:{name}?root={tmp_path}" + (f"&{options}" if options else ""))
    assert {split: len(pictures) for split, pictures in collection.splits.items()} == counts
    assert collection.classes[: len(first_classes)] == first_classes
    train = collection.split("train")
    assert train.paths[0].startswith(first_path)
    for split in collection.splits.values():
        for k in (0, len(split) - 1):
            assert split.read(k).mode == "RGB"
    assert sorted(tmp_path.rglob("*")) == before
    again = opened(collection.uri)
    assert again.split("train").file_list_hash() == train.file_list_hash()


@pytest.mark.usefixtures("unchecked")
def test_arrays_are_the_sets_own_pixels_and_labels(tmp_path: Path) -> None:
    cifar(tmp_path, 10)
    mnist(tmp_path, "FashionMNIST")
    for uri, place in (("CIFAR10", (0, 0)), ("FashionMNIST", (1, 0))):
        collection = opened(f"torchvision:{uri}?root={tmp_path}", holdout=0.0)
        for split in collection.splits.values():
            for k in range(len(split)):
                assert split.read(k).getpixel(place)[0] == split.labels[k]
    theirs = torchvision.datasets.CIFAR10(str(tmp_path), train=False)
    ours = opened(f"torchvision:CIFAR10?root={tmp_path}").split("test")
    for k in range(len(theirs)):
        assert np.array_equal(np.asarray(ours.read(k)), np.asarray(theirs[k][0]))
        assert ours.labels[k] == theirs[k][1]


def test_svhn_and_stl10_stand_upright(tmp_path: Path, unchecked: None) -> None:
    from scipy.io import savemat

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(20)[:, None] % 10 + 1})
    split = opened(f"torchvision:SVHN?root={tmp_path}", holdout=0.0).split("train")
    assert np.array_equal(np.asarray(split.read(3)), pixels[..., 3])
    assert split.labels[9] == 0, "the label 10 means the digit 0"
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (10, 3, 96, 96), dtype=np.uint8)
    for split_name in ("train", "test"):
        (folder / f"{split_name}_X.bin").write_bytes(images.tobytes())
        (folder / f"{split_name}_y.bin").write_bytes(bytes(range(1, 11)))
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(f"k{k}" for k in range(10)) + "\n")
    (folder / "fold_indices.txt").write_text("0\n")
    stl = opened(f"torchvision:STL10?root={tmp_path}", holdout=0.0).split("test")
    theirs = torchvision.datasets.STL10(str(tmp_path), split="test")
    assert np.array_equal(np.asarray(stl.read(4)), np.asarray(theirs[4][0]))
    assert stl.classes[stl.labels[4]] == "k4"


def test_files_go_through_our_decoder(tmp_path: Path) -> None:
    food(tmp_path)
    split = opened(f"torchvision:Food101?root={tmp_path}").split("test")
    assert (split.read(0).size, split.read(0, exif="ignore").size) == ((12, 20), (20, 12))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_of_arrays_is_checked_like_a_folder(tmp_path: Path, workers: int) -> None:
    cifar(tmp_path, 10)
    batches = tmp_path / "cifar-10-batches-py"
    (batches / "test_batch").write_bytes((batches / "data_batch_1").read_bytes())
    data = Data(uri=f"torchvision:cifar10?root={tmp_path}")
    report = check(data, workers)
    assert report.num_images == {"train": 100, "test": 20}
    assert report.uri == f"torchvision:CIFAR10?root={tmp_path}"
    assert {kind: len(items) for kind, items in report.of("error").items()} == {"leak": 20}
    leaks = {tuple(place.path for place in item.pictures) for item in report.findings["leak"]}
    assert leaks == {(f"test/{k:08}", f"train/{k:08}") for k in range(20)}
    assert report.measures["formats"] == {"no file": 120}
    found = statistics(data, workers)
    assert sum(found.counts["train"].values()) == 100
    assert found.quantiles["width"] == (32,) * 7


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_of_files_is_checked_like_a_folder(tmp_path: Path, workers: int) -> None:
    pets(tmp_path)
    images = tmp_path / "oxford-iiit-pet" / "images"
    (images / "beagle_7.jpg").write_bytes(b"words")
    (images / "beagle_1.jpg").unlink()
    report = check(Data(uri=f"torchvision:OxfordPets?root={tmp_path}"), workers)
    assert report.num_images == {"train": 24, "test": 12}
    named = {kind: [item.pictures[0].path for item in items] for kind, items in report.of("error").items()}
    assert named["not a picture"] == ["oxford-iiit-pet/images/beagle_7.jpg"]
    assert named["unreadable"] == ["oxford-iiit-pet/images/beagle_1.jpg"]
    caltech101(tmp_path)
    carved = check(Data(uri=f"torchvision:Caltech101?root={tmp_path}"), workers)
    assert carved.num_images == {"train": 12, "val": 4, "test": 4}
    assert carved.remarks[0].startswith("no splits of its own")


def test_a_missing_set_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not in"):
        check(Data(uri=f"torchvision:CIFAR10?root={tmp_path}"), 0)


def test_missing_files_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"torchvision:CIFAR10?root={tmp_path}/no&download=true" in refusal(f"torchvision:CIFAR10?root={tmp_path}/no")
    cifar(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut")
    message = refusal(f"torchvision:CIFAR10?root={tmp_path}")
    assert "not whole (Dataset not found or corrupted)" in message
    assert "You can use" not in message
    monkeypatch.setenv("FIXRES_OFFLINE", "1")
    assert "FIXRES_OFFLINE is set" in refusal(f"torchvision:MNIST?root={tmp_path}&download=true")


def test_cars_cannot_be_downloaded_and_say_where_files_belong(tmp_path: Path) -> None:
    for uri in (f"torchvision:StanfordCars?root={tmp_path}", f"torchvision:StanfordCars?root={tmp_path}&download=true"):
        assert f"into {tmp_path}/stanford_cars" in refusal(uri)


def test_a_download_that_fails_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", refuse)
    assert "cannot be downloaded to" in refusal(f"torchvision:MNIST?root={tmp_path}/new&download=true")


def test_a_download_runs_once_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []

    def build(self: Any) -> None:
        if not fetched:
            print("fetching")
            mnist(tmp_path / "new", "MNIST")
        fetched.append("x")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", build)
    uri = f"torchvision:MNIST?root={tmp_path}/new&download=true"
    assert len(opened(uri).split("test")) == 10
    opened(uri)
    assert len(fetched) == 1
    assert "fetching" not in capsys.readouterr().out


def test_a_missing_package_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "pip install 'fixres[sets]'" in refusal(f"torchvision:SVHN?root={tmp_path}")


def test_every_set_is_torchvisions() -> None:
    for name, known in SETS.items():
        assert hasattr(torchvision.datasets, known.cls), name
