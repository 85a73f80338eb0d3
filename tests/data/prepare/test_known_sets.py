"""Every data set: from its official files, in miniature, to a collection that opens and holds the right pictures."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.prepare.known_sets import SETS, find_set
from fixres.data.prepare.official_archives import download
from fixres.data.prepare.parts import Options
from fixres.data.prepare.writer import Report, prepare
from fixres.errors import UserError
from tests.support import archive_makers as made

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sync", lambda: None)


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives a set the checksums of `files`, and the counts of a miniature."""

    def shrink(name: str, files: Files, counts: dict[str, int], num_classes: int, **fields: Any) -> None:
        info = SETS[name]
        sources = {
            key: dataclasses.replace(file, md5=made.md5(files[file.names[0]]) if file.names[0] in files else file.md5)
            for key, file in info.files.items()
        }
        small = dataclasses.replace(info, files=sources, counts=counts, num_classes=num_classes, **fields)
        monkeypatch.setitem(SETS, name, small)

    return shrink


CASES: dict[str, tuple[Callable[[], Files], dict[str, int], int]] = {
    "imagenet": (made.imagenet, {"train": 12, "val": 6}, 3),
    "tiny-imagenet-200": (made.tiny_imagenet, {"train": 9, "val": 4}, 3),
    "mini-imagenet": (made.mini_imagenet, {"train": 48, "val": 12, "test": 15}, 3),
    "cub-200-2011": (made.cub, {"train": 3, "test": 3}, 2),
    "stanford-cars": (made.cars_one_archive, {"train": 3, "test": 2}, 2),
    "caltech101": (made.caltech101, {"": 10}, 2),
    "caltech256": (made.caltech256, {"": 10}, 2),
    "cifar10": (made.cifar10, {"train": 20, "test": 4}, 4),
    "cifar100": (made.cifar100, {"train": 4, "test": 4}, 2),
    "mnist": (made.mnist, {"train": 10, "test": 2}, 10),
    "fashion-mnist": (made.mnist, {"train": 10, "test": 2}, 10),
    "flowers102": (made.flowers, {"train": 2, "val": 2, "test": 2}, 2),
    "oxford-pets": (made.pets, {"train": 2, "test": 2}, 2),
    "fgvc-aircraft": (made.aircraft, {"train": 2, "val": 2, "test": 2}, 2),
    "food101": (made.food, {"train": 4, "test": 2}, 2),
}


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def by_path(folder: Path) -> dict[str, bytes]:
    return {path: content for path, content in tree(folder).items() if "/" in path}


def run(name: str, files: Files, tmp_path: Path, **options: Any) -> Report:
    made.write_all(tmp_path / "from", files)
    return prepare(name, tmp_path / "from", tmp_path / "out", options=Options(**options))


@pytest.mark.parametrize("name", list(SETS))
def test_every_set_becomes_a_collection(name: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    make, counts, num_classes = CASES[name]
    files = make()
    if name in ("mnist", "fashion-mnist"):  # two test pictures cannot have all classes
        shrink(name, files, counts, num_classes)
        report = run(name, files, tmp_path, allow_partial=True)
        assert [note for note in report.notes if "not whole" in note] == [
            "not whole: 10 classes expected, 2 found in test"
        ]
    else:
        shrink(name, files, counts, num_classes)
        report = run(name, files, tmp_path)
        assert report.is_complete
    assert (report.counts, report.num_classes) == (counts, num_classes)
    assert not report.was_there
    # The user's files are as they were, and nothing else is left behind.
    assert tree(tmp_path / "from") == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "out"]
    record = json.loads((tmp_path / "out" / "fixres-data.json").read_text())
    assert (record["set"], record["counts"], record["num_classes"]) == (name, counts, num_classes)
    assert record["license"] == SETS[name].license
    published = {file.names[0] for file in SETS[name].files.values() if file.md5 and file.names[0] in files}
    assert {file for file, state in record["sources"].items() if state == "as published"} == published
    collection = open_collection(Data(uri=f"folder:{tmp_path / 'out'}", holdout=0))
    assert len(collection.classes) == num_classes
    for split, count in counts.items():
        if split:
            assert len(collection.split(split)) == count
            collection.split(split).read(count - 1)
    again = run(name, files, tmp_path, allow_partial=True)
    assert again.was_there
    assert again.counts == counts


@pytest.mark.parametrize("truth", ["devkit", "solution", "names", "apart", "folders"])
def test_imagenet_in_every_form(truth: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.imagenet()
    shrink("imagenet", files, {"train": 12, "val": 6}, 3)
    expected = {
        f"train/{w}/{w}_{i}.JPEG": made.jpeg(10 * k + i) for k, w in enumerate(made.WNIDS) for i in range(4)
    } | {f"val/{w}/ILSVRC2012_val_{i:08}.JPEG": made.jpeg(100 + i) for i, w in enumerate(made.IMAGENET_VAL, 1)}
    names = [(f"ILSVRC2012_val_{i:08}", wnid) for i, wnid in enumerate(made.IMAGENET_VAL, 1)]
    if truth != "devkit":
        devkit = files.pop("ILSVRC2012_devkit_t12.tar.gz")
    if truth == "solution":
        rows = "".join(f"{name},{wnid} 85 1 499 272 {wnid} 1 2 3 4\n" for name, wnid in reversed(names))
        files["LOC_val_solution.csv"] = f"ImageId,PredictionString\n{rows}".encode()
    elif truth == "names":
        files["val_map.txt"] = "".join(f"{name}.JPEG {wnid}\n" for name, wnid in names).encode()
    elif truth == "apart":
        import io
        import tarfile

        with tarfile.open(fileobj=io.BytesIO(devkit)) as tar:
            for entry in tar.getmembers():
                if entry.isreg():
                    files[entry.name.rsplit("/", 1)[-1]] = (tar.extractfile(entry) or io.BytesIO()).read()
    elif truth == "folders":
        files = {
            (
                f"ILSVRC2012_img_{path}"
                if path.startswith("train")
                else f"ILSVRC2012_img_val/{path.rsplit('/', 1)[-1]}"
            ): content
            for path, content in expected.items()
        } | {"val_map.txt": "".join(f"{name}.JPEG {wnid}\n" for name, wnid in names).encode()}
    run("imagenet", files, tmp_path)
    assert by_path(tmp_path / "out") == expected


def test_validation_pictures_alone(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.imagenet()
    shrink("imagenet", files, {"train": 12, "val": 6}, 3)
    train = files.pop("ILSVRC2012_img_train.tar")
    with pytest.raises(
        UserError, match=r"(?s)not all of the files needed.*looked for: ILSVRC2012_img_train.tar.*log in"
    ):
        run("imagenet", files, tmp_path)
    report = run("imagenet", files, tmp_path, allow_partial=True)
    assert report.counts == {"val": 6}
    assert any("without ILSVRC2012_img_train.tar" in note for note in report.notes)
    assert json.loads((tmp_path / "out/fixres-data.json").read_text())["complete"] is False
    with pytest.raises(UserError, match=r"is not whole: .*without ILSVRC2012_img_train"):
        run("imagenet", {"ILSVRC2012_img_train.tar": train}, tmp_path)


def test_tiny_imagenet_goes_by_its_annotations(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.tiny_imagenet()
    shrink("tiny-imagenet-200", files, {"train": 9, "val": 4}, 3)
    report = run("tiny-imagenet-200", files, tmp_path)
    found = by_path(tmp_path / "out")
    assert [found[f"val/{made.WNIDS[c]}/val_{i}.JPEG"] for i, c in enumerate((0, 1, 2, 1))] == [
        made.jpeg(300 + i) for i in range(4)
    ]
    assert found["train/n01443537/n01443537_2.JPEG"] == made.jpeg(212)
    assert not any("test" in path or "boxes" in path for path in found)
    assert any("2 pictures of test/ have no labels" in note for note in report.notes)


def test_mini_imagenet_is_divided_inside_its_classes(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.mini_imagenet()
    shrink("mini-imagenet", files, {"train": 48, "val": 12, "test": 15}, 3)
    with pytest.raises(UserError, match="share no classes"):
        run("mini-imagenet", files, tmp_path, split_inside=False)
    report = run("mini-imagenet", files, tmp_path, seed=4)
    assert any("inside every class" in note and "seed 4" in note for note in report.notes)
    found = by_path(tmp_path / "out")
    # Every picture is there once, byte for byte, 16, 4 and 5 of each class.
    originals = {path.removeprefix("images/"): c for path, c in files.items() if path.startswith("images/")}
    assert {path.rsplit("/", 1)[-1]: content for path, content in found.items()} == originals
    for wnid in made.WNIDS:
        counts = [sum(path.startswith(f"{split}/{wnid}/") for path in found) for split in ("train", "val", "test")]
        assert counts == [16, 4, 5]
    rows = (tmp_path / "out/splits.csv").read_text().splitlines()[1:]
    assert {f"{split}/{label}/{name}" for name, label, split in (row.split(",") for row in rows)} == set(found)
    prepare("mini-imagenet", tmp_path / "from", tmp_path / "same", options=Options(seed=4))
    assert tree(tmp_path / "same") == tree(tmp_path / "out")
    prepare("mini-imagenet", tmp_path / "from", tmp_path / "other", options=Options(seed=5))
    assert set(by_path(tmp_path / "other")) != set(found)
    with pytest.raises(UserError, match="give another folder"):
        prepare("mini-imagenet", tmp_path / "from", tmp_path / "out", options=Options(seed=5))


def test_mini_imagenet_with_shared_classes_stays_as_it_is(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.mini_imagenet(is_disjoint=False, num=6)
    files["valid.csv"] = files.pop("val.csv")
    files["images/extra.jpg"] = made.jpeg(5)
    shrink("mini-imagenet", files, {"train": 6, "val": 6, "test": 6}, 3)
    report = run("mini-imagenet", files, tmp_path)
    assert "val/n01440764/n0144076400000001.jpg" in by_path(tmp_path / "out")
    assert not (tmp_path / "out/splits.csv").exists()
    assert any("1 picture that no table lists left out" in note for note in report.notes)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"name,label\na.jpg,x\n", "begin with the columns filename,label"),
        (b"filename,label\na.jpg\n", "line 2: a file name and a label"),
        (b"filename,label\nn0144076400000000.jpg,x\n", "already in train"),
        (b"filename,label\nnone.jpg,n01440764\n", r"1 listed picture is not in .*images: none.jpg"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_mini_imagenet_with_a_bad_table(
    table: bytes, message: str, shrink: Callable[..., None], tmp_path: Path
) -> None:
    files = made.mini_imagenet(num=6) | {"test.csv": table}
    shrink("mini-imagenet", files, {"train": 6, "val": 6, "test": 6}, 3)
    with pytest.raises(UserError, match=message):
        run("mini-imagenet", files, tmp_path)
    assert not (tmp_path / "out").exists()


def test_birds_are_divided_as_their_table_says(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.cub()
    shrink("cub-200-2011", files, {"train": 3, "test": 3}, 2)
    run("cub", files, tmp_path)
    first, second = "001.Black_footed_Albatross", "002.Laysan_Albatross"
    numbers = {"train": [(first, 0), (first, 2), (second, 2)], "test": [(first, 1), (second, 0), (second, 1)]}
    assert set(by_path(tmp_path / "out")) == {
        f"{split}/{label}/{label[4:]}_{i:04}.jpg" for split, rows in numbers.items() for label, i in rows
    }
    assert by_path(tmp_path / "out")[f"train/{second}/Laysan_Albatross_0002.jpg"] == made.jpeg(505)


def test_cars_come_out_equal_from_all_three_layouts(shrink: Callable[..., None], tmp_path: Path) -> None:
    def contents(folder: Path) -> set[tuple[str, bytes]]:
        return {(path.rsplit("/", 1)[0], content) for path, content in by_path(folder).items()}

    one = made.cars_one_archive()
    shrink("stanford-cars", one, {"train": 3, "test": 2}, 2)
    made.write_all(tmp_path / "one", one)
    made.write_all(tmp_path / "two", made.cars_two_archives())
    for layout in ("one", "two"):
        prepare("stanford-cars", tmp_path / layout, tmp_path / f"out-{layout}")
    prepare("stanford-cars", tmp_path / "out-one", tmp_path / "out-ready")
    assert contents(tmp_path / "out-one") == contents(tmp_path / "out-two") == contents(tmp_path / "out-ready")
    assert {place for place, _ in contents(tmp_path / "out-one")} == {
        f"{split}/{label}" for split in ("train", "test") for label in (made.CARS[0], "Ram C-V Cargo Van Minivan 2012")
    }
    (tmp_path / "two/cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"does not hold cars_test_annos_withlabels\.mat"):
        prepare("stanford-cars", tmp_path / "two", tmp_path / "out-none")


@pytest.mark.parametrize("name", ["caltech101", "caltech256"])
def test_clutter_is_dropped_or_kept(name: str, shrink: Callable[..., None], tmp_path: Path) -> None:
    make, counts, num_classes = CASES[name]
    files = make()
    background = (SETS[name].background[0], 2)
    shrink(name, files, counts, num_classes, background=background)
    report = run(name, files, tmp_path)
    assert any(f"2 pictures of {background[0]} left out" in note for note in report.notes)
    assert not any(background[0] in path for path in by_path(tmp_path / "out"))
    kept = prepare(name, tmp_path / "from", tmp_path / "kept", options=Options(keep_background=True))
    assert (kept.counts, kept.num_classes, kept.is_complete) == ({"": 12}, 3, True)


@pytest.mark.parametrize("python", [2, 3])
def test_cifar_pixels_are_exact(python: int, shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.cifar10(python)
    shrink("cifar10", files, {"train": 20, "test": 4}, 4)
    run("cifar10", files, tmp_path)
    with Image.open(tmp_path / "out/test/airplane/test_batch_00001.png") as picture:
        pixels = np.asarray(picture)
    red, green, blue = made.cifar_pixels(5, 4)[1].reshape(3, 32, 32)
    assert np.array_equal(pixels, np.stack([red, green, blue], axis=-1))


class Evil:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch EVIL",)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pickle.dumps(Evil(), 2), "asks for posix.system"),
        (pickle.dumps({b"labels": [0], b"data": np.zeros((1, 3072))}, 2), "something else than bytes"),
        (pickle.dumps({b"labels": [0], b"data": np.array([object])}, 2), "asks for|something else than bytes"),
        (made.Python2Pickler().dumps({b"labels": [9], b"data": made.cifar_pixels(0, 1)}), "label 9; there are 4"),
        (made.Python2Pickler().dumps({b"labels": [0, 1], b"data": made.cifar_pixels(0, 1)}), "each of its 2 labels"),
        (made.Python2Pickler().dumps({b"data": made.cifar_pixels(0, 1)}), "holds no 'labels'"),
        (made.Python2Pickler().dumps([1]), "holds no table"),
        (made.Python2Pickler().dumps({b"labels": [0]})[:-3], "is refused"),
    ],
)
def test_a_batch_that_is_not_plain_is_refused(
    batch: bytes, message: str, shrink: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = made.cifar10(test_batch=batch)
    shrink("cifar10", files, {"train": 20, "test": 4}, 4)
    with pytest.raises(UserError, match=message):
        run("cifar10", files, tmp_path)
    assert not (tmp_path / "EVIL").exists()
    assert not (tmp_path / "out").exists()


def test_digits_are_exact_packed_or_not(shrink: Callable[..., None], tmp_path: Path) -> None:
    import gzip

    packed = made.mnist()
    files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in packed.items()}
    shrink("mnist", packed, {"train": 10, "test": 2}, 10)
    run("mnist", files, tmp_path, allow_partial=True)
    made.write_all(tmp_path / "packed", packed)
    prepare("mnist", tmp_path / "packed", tmp_path / "other", options=Options(allow_partial=True))
    assert by_path(tmp_path / "other") == by_path(tmp_path / "out")
    images = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 28, 28)
    with Image.open(tmp_path / "out/train/3/00003.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), images[3])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-images-idx3-ubyte", lambda c: c[:-1], "cut short: 1567 of 1568"),
        ("t10k-images-idx3-ubyte", lambda c: b"\x00\x00\x0d" + c[3:], "no idx file"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0b", "label 11; there are 10"),
        ("t10k-labels-idx1-ubyte", lambda c: made.idx(np.zeros(3, np.uint8)), "3 labels"),
        ("t10k-labels-idx1-ubyte", lambda c: b"", "no idx file"),
        ("t10k-images-idx3-ubyte", lambda c: c[:4] + b"\xff" * 12, "cut short"),
    ],
)
def test_a_bad_idx_file(name: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    import gzip

    files = {key.removesuffix(".gz"): gzip.decompress(content) for key, content in made.mnist().items()}
    files[name] = change(files[name])
    with pytest.raises(UserError, match=message):
        run("mnist", files, tmp_path, allow_partial=True)


def test_classes_keep_the_published_order(shrink: Callable[..., None], tmp_path: Path) -> None:
    folders = {}
    for name in ("flowers102", "oxford-pets", "fgvc-aircraft", "fashion-mnist"):
        make, counts, num_classes = CASES[name]
        shrink(name, make(), counts, num_classes)
        made.write_all(tmp_path / name, make())
        out = tmp_path / f"{name}-out"
        prepare(name, tmp_path / name, out, options=Options(allow_partial=True))
        folders[name] = sorted(path.name for path in (out / "train").iterdir())
    assert folders["flowers102"] == ["001", "002"]
    assert folders["oxford-pets"] == ["Abyssinian", "American Bulldog"]
    assert folders["fgvc-aircraft"] == ["707-320", "F-A-18"]
    assert folders["fashion-mnist"][:2] == ["0.T-shirt-top", "1.Trouser"]
    assert len(folders["fashion-mnist"]) == 10


def test_an_unknown_set_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"(?s)'cub-200-2012' - did you mean 'cub-200-2011'.*imagenet, tiny-imagenet-200"
    ):
        find_set("cub-200-2012")
    assert find_set("CIFAR_10").name == "cifar10"
    names = [known for entry in SETS.values() for known in (entry.name, *entry.aliases)]
    assert len({find_set(known).name for known in names}) == len(SETS)


def test_missing_archives_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    with pytest.raises(UserError, match=r"(?s)CUB_200_2011.tgz \(or CUB_200_2011.*fixres data download cub-200-2011"):
        prepare("cub", tmp_path / "from", tmp_path / "out")
    with pytest.raises(UserError, match=r"(?s)car_ims.tgz .*or: cars_train.tgz.*cyizhuo"):
        prepare("cars", tmp_path / "from", tmp_path / "out")
    with pytest.raises(UserError, match="there is no folder"):
        prepare("cars", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"(?s)cannot be fetched for you.*account.*fixres data prepare imagenet"):
        download("imagenet", tmp_path / "d")


@pytest.mark.parametrize("name", list(SETS))
def test_every_row_of_the_table_is_complete(name: str) -> None:
    info = SETS[name]
    assert info.license
    assert info.page.startswith("https://")
    assert info.can_download or info.how_to_get
    assert {key for layout in (*info.layouts, *info.partial_layouts) for key in layout} == set(info.files)
    for file in info.files.values():
        if file.url:
            # Plain http is only for what a checksum pins; these need neither exception nor trust.
            assert file.url.startswith("https://")
            assert len(file.md5) == 32
            assert file.megabytes > 0


def test_checksums_are_torchvisions() -> None:
    from torchvision import datasets

    def table(name: str) -> dict[str, str]:
        return {file.names[0]: file.md5 for file in SETS[name].files.values() if file.md5}

    assert table("cifar10") == {datasets.CIFAR10.filename: datasets.CIFAR10.tgz_md5}
    assert table("cifar100") == {datasets.CIFAR100.filename: datasets.CIFAR100.tgz_md5}
    assert table("mnist") == dict(datasets.MNIST.resources)
    assert table("fashion-mnist") == dict(datasets.FashionMNIST.resources)
    assert table("flowers102") == dict(datasets.Flowers102._file_dict.values())
    assert table("food101") == {"food-101.tar.gz": datasets.Food101._MD5}
    assert table("oxford-pets") == {url.rsplit("/", 1)[-1]: md5 for url, md5 in datasets.OxfordIIITPet._RESOURCES}
    assert table("imagenet") == dict(datasets.imagenet.ARCHIVE_META.values())


def test_the_page_about_data_has_the_table_of_the_code() -> None:
    from tools.docs.sets_table import sets_table

    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert sets_table() in page
    assert all(f"**{name}**" in page for name in SETS)
