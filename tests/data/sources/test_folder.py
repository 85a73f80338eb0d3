"""Folders of classes: what is found, what is passed over, and what every mistake is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.decode import BadImage
from fixres.data.picture_formats import EXTENSIONS
from fixres.errors import UserError
from tests.support.class_folders import COLOURS, fill, three_splits
from tests.support.opening import opened, refusal


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return every path below a folder with its size and time of change."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}


@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_three_folders_keep_their_names_and_roles(tmp_path: Path, prefix: str) -> None:
    collection = opened(prefix + str(three_splits(tmp_path)))
    assert collection.classes == ("apple", "pear")
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 10, "val": 4, "test": 6}
    assert (collection.select, collection.report) == ("val", "test")
    assert collection.notes == ()
    assert collection.uri == f"folder:{tmp_path}"
    train = collection.split("train")
    assert list(train.paths)[:2] == ["train/apple/000.png", "train/apple/001.png"]
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert train.read(0).getpixel((0, 0)) == COLOURS["apple"]
    assert train.read(9).getpixel((0, 0)) == COLOURS["pear"]


@pytest.mark.parametrize("name", ["valid", "validation", "val", "Val"])
def test_other_names_of_val_are_val(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {f"{s}/{c}": 10 for s in ("train", name) for c in ("apple", "pear")})
    assert set(opened(tmp_path).splits) == {"train", "holdout", "val"}


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, {"train": 5, "bus": 5, "car": 5})
    assert opened(tmp_path).classes == ("bus", "car", "train")


def test_user_folders_are_never_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    before = tree(tmp_path / "data")
    collection = open_collection(Data(uri=str(tmp_path / "data")), tmp_path / "split.json")
    collection.split("train").read(0)
    assert tree(tmp_path / "data") == before


def test_extensions_hidden_files_and_others(tmp_path: Path) -> None:
    fill(tmp_path, {"apple": 3, "pear": 9})
    picture = Image.new("RGB", (4, 4))
    for k, suffix in enumerate((".JPG", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".TIF", ".tiff", ".webp", ".gif")):
        picture.save(tmp_path / "apple" / f"x{k}{suffix}")
    (tmp_path / "apple" / ".hidden.png").write_bytes(b"")
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "apple" / "notes.txt").write_text("words")
    (tmp_path / "apple" / "Thumbs.db").write_text("words")
    (tmp_path / "LICENSE").write_text("words")
    (tmp_path / "loose.jpg").write_bytes(b"")
    collection = opened(tmp_path)
    assert sum(len(split) for split in collection.splits.values()) == 22
    assert collection.notes[0] == "2 files ignored, no picture by its name: apple/Thumbs.db, apple/notes.txt"
    assert collection.notes[1] == "1 file ignored, outside the class folders: loose.jpg"
    assert collection.notes[2] == "1 file ignored, hidden: apple/.hidden.png"
    for split in collection.splits.values():
        for k in range(len(split)):
            split.read(k)


def test_every_ending_that_can_be_decoded_is_taken(tmp_path: Path) -> None:
    fill(tmp_path, {"apple": 6, "pear": 6})
    picture = Image.new("RGB", (4, 4))
    kinds = {"a.avif": "AVIF", "b.jfif": "JPEG", "c.JPE": "JPEG", "d.pnm": "PPM", "e.pbm": "PPM", "f.apng": "PNG"}
    for name, kind in kinds.items():
        picture.save(tmp_path / "apple" / name, kind)
    collection = opened(tmp_path)
    assert sum(len(split) for split in collection.splits.values()) == 18
    for split in collection.splits.values():
        for k in range(len(split)):
            split.read(k)


@pytest.mark.skipif(".heic" in EXTENSIONS, reason="a decoder for HEIC is installed")
def test_pictures_of_phones_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    fill(tmp_path, {"apple": 6, "pear": 6})
    for k in range(5):
        (tmp_path / "pear" / f"IMG_{k}.HEIC").write_bytes(b"")
    (tmp_path / "apple" / "raw.NEF").write_bytes(b"")
    notes = opened(tmp_path).notes
    assert "1 file ignored, a camera's raw format, convert to JPEG first, for example with ImageMagick: " in notes[0]
    assert notes[1] == (
        "5 files ignored, HEIC, convert to JPEG first, for example with ImageMagick: magick mogrify -format jpg *.heic"
        " (or pip install 'fixres[heic]'): pear/IMG_0.HEIC, pear/IMG_1.HEIC, pear/IMG_2.HEIC, ..."
    )
    (tmp_path / "plum").mkdir()
    (tmp_path / "plum" / "a.heif").write_bytes(b"")
    with pytest.raises(UserError, match=r"folder plum of .*, but 1 file in HEIF: convert to JPEG first.*\*\.heif"):
        opened(tmp_path)


def test_what_systems_leave_in_folders_is_no_class_and_no_picture(tmp_path: Path) -> None:
    fill(tmp_path, {"apple": 6, "apple/@eaDir/000.png": 2, "pear": 6, "__MACOSX/apple": 1, "pear/.thumbnails": 3})
    (tmp_path / "pear" / "._000.png").write_bytes(b"")
    collection = opened(tmp_path)
    assert (collection.classes, sum(map(len, collection.splits.values()))) == (("apple", "pear"), 12)
    assert collection.notes[:2] == (
        "2 folders ignored, a system's own: __MACOSX/, apple/@eaDir/",
        "1 file ignored, hidden: pear/._000.png",
    )


def test_classes_are_walked_to_any_depth_and_links_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple/2019/may": 6, "apple/2020": 6})
    fill(tmp_path / "elsewhere", {"pear": 12})
    (tmp_path / "data" / "pear").symlink_to(tmp_path / "elsewhere" / "pear")
    (tmp_path / "data" / "apple" / "2019" / "loop").symlink_to(tmp_path / "data" / "apple")
    (tmp_path / "data" / "apple" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    collection = opened(tmp_path / "data")
    found = sorted(path for split in collection.splits.values() for path in split.paths)
    assert len(found) == 25
    assert "apple/2019/may/000.png" in found
    # A link to nothing is a picture that is missing, and reading it will say so.
    assert "apple/broken.png" in found


def test_order_does_not_depend_on_the_order_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(three_splits(tmp_path))
    plain = os.scandir

    class Reversed:
        def __init__(self, folder: Any) -> None:
            with plain(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    second = opened(tmp_path)
    for name in first.splits:
        assert first.split(name).file_list_hash() == second.split(name).file_list_hash()


def test_a_missing_folder_names_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, {"photos/apple": 1, "music": 0})
    told = refusal(tmp_path / "photo")
    assert f"there is no folder {tmp_path}/photo - did you mean 'photos'?" in told
    assert "holds the folders music, photos" in told


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    assert "is a file; allowed is a folder with one sub-folder per class" in refusal(tmp_path / "photos.zip")


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, "no pictures in"),
        ({".": 3}, "3 pictures in the folder"),
        ({"apple": 3, "pear": 0}, "no pictures in the class folder pear of"),
        ({"train/apple": 3, "train/pear": 0, "train/plum": 0}, "no pictures in the class folders pear, plum of"),
        ({"apple": 3}, "holds only one class (apple)"),
        ({"train/apple": 3, "val/apple": 3}, "holds only one class (apple)"),
        ({"val/apple": 3, "test/apple": 3}, "holds val and test, but no train"),
        ({"apple": 1, "pear": 1}, "2 pictures are too few to carve out val and test (train 60%, val 20%, test 20%)"),
        ({"training/apple": 3, "testing/apple": 3}, "holds testing, training, which looks like a split"),
        ({"val/a": 1, "valid/a": 1, "train/a": 1}, "holds both val and valid"),
        (
            {"train/apple": 3, "train/pear": 3, "val/apple": 1, "val/pears": 1},
            "holds classes that train does not have: pears - did you mean 'pear'?",
        ),
        (
            {"train/apple": 3, "train/pear": 3, "val/plum": 1, "val/fig": 1},
            "holds classes that train does not have: fig, plum\n  train has apple, pear",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, counts: dict[str, int], told: str) -> None:
    assert told in refusal(fill(tmp_path, counts))


def test_other_folders_beside_the_splits_are_noted(tmp_path: Path) -> None:
    three_splits(tmp_path)
    fill(tmp_path, {"unlabelled/x": 2})
    assert opened(tmp_path).notes == (f"not a split, ignored: unlabelled in {tmp_path}",)


def test_a_picture_that_vanishes_is_named(tmp_path: Path) -> None:
    collection = opened(three_splits(tmp_path))
    (tmp_path / "val" / "pear" / "001.png").unlink()
    with pytest.raises(BadImage, match=r"^val/pear/001\.png: cannot be read \(No such file"):
        collection.split("val").read(3)


def test_imagenet_as_it_lies_there(tmp_path: Path) -> None:
    stem = "ILSVRC2012_img"
    fill(tmp_path, {f"{stem}_{split}/{name}": 5 for split in ("train", "val") for name in ("n01", "n02")})
    fill(tmp_path, {f"{stem}_val/n03": 0, f"{stem}_test": 4})
    collection = opened(tmp_path, holdout=0)
    assert ({name: len(split) for name, split in collection.splits.items()}, collection.classes) == (
        {"train": 10, "val": 10},
        ("n01", "n02"),
    )
    assert collection.notes[0] == f"splits recognised by their names: train in {stem}_train, val in {stem}_val"
    assert collection.notes[1].startswith(f"not a split, ignored: {stem}_test")


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "validation_images"),
        ("train2017", "val2017"),
        ("A-Train", "A-valid"),
        ("test_a_train", "test_a_val"),
    ],
)
def test_splits_are_a_common_stem_and_a_word(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path, {f"{name}/{cls}": 3 for name in names for cls in ("apple", "pear")})
    assert set(opened(tmp_path, holdout=0).splits) == {"train", "val"}


@pytest.mark.parametrize("others", [{}, {"car": 6}])
def test_classes_that_are_called_like_splits_stay_classes(tmp_path: Path, others: dict[str, int]) -> None:
    fill(tmp_path, {"bus_train": 6, "bus_val": 6, **others})
    collection = opened(tmp_path)
    assert collection.classes == ("bus_train", "bus_val", *others)
    assert collection.notes[0] == (
        "bus_train and bus_val are taken for classes and not for splits: bus_train holds no class folders"
    )


def test_words_inside_words_are_no_splits(tmp_path: Path) -> None:
    fill(tmp_path, {f"{name}/{cls}": 3 for name in ("contest", "restrain", "conval") for cls in "ab"})
    assert opened(tmp_path).classes == ("contest", "conval", "restrain")


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            {"x_train/apple": 3, "x_train/pear": 3, "x_val/fig": 3},
            "x_train and x_val of ROOT look like splits and not like classes, but no class folder has the same name",
        ),
        ({"x_train/apple": 3, "x_train/pear": 3, "x_val": 3}, "but x_val holds no class folders"),
        ({"training_set/a": 3, "test_set/a": 3}, "test_set and training_set of ROOT look like splits"),
        (
            {"train": 9, "test": 9},
            "test and train of ROOT look like splits and not like classes, but test holds",
        ),
        (
            {f"{k}_{s}/{c}": 3 for k in "xy" for s in ("train", "val") for c in "ab"},
            "holds more than one set of splits",
        ),
        (
            {f"seg_{s}/seg_{s}/{c}": 3 for s in ("train", "test") for c in "ab"},
            "lie one level down, in seg_test/seg_test, seg_train/seg_train",
        ),
        ({f"{s}/{s}/{c}": 3 for s in ("train", "test") for c in "ab"}, "lie one level down, in train/train, test/test"),
        ({f"photos/{c}": 3 for c in "ab"}, "the classes (a, b) lie one level down, in photos: give ROOT/photos"),
        (
            {f"photos/{s}/{c}": 3 for s in ("train", "val") for c in "ab"},
            "the splits of ROOT lie one level down, in photos",
        ),
        ({f"{s}/images/{c}": 3 for s in ("train", "val") for c in "ab"}, "in train/images, val/images\n  move them up"),
        ({"photos/a": 3, "photos/b": 3, "tables": 0}, "the classes (a, b) lie one level down, in photos"),
        (
            {f"{v}/{s}/{c}": 3 for v in ("v1", "v2") for s in ("train", "val") for c in "ab"},
            "the splits of ROOT lie one level down, in v1, v2\n  give one of them: ROOT/v1",
        ),
    ],
)
def test_folders_that_look_like_splits_or_lie_too_deep(tmp_path: Path, counts: dict[str, int], told: str) -> None:
    assert told.replace("ROOT", str(tmp_path)) in refusal(fill(tmp_path, counts))


def test_a_split_of_one_class_with_folders_in_it_is_measured(tmp_path: Path) -> None:
    fill(tmp_path, {"val/pear/2019": 3, "val/pear/2020": 3})
    collection = open_collection(Data(uri=str(tmp_path)), classes=("apple", "pear"), for_training=False)
    assert len(collection.split("val")) == 6


def test_splits_inside_the_classes_are_told(tmp_path: Path) -> None:
    fill(tmp_path, {f"{name}/{split}": 6 for name in ("apple", "pear") for split in ("train", "val")})
    assert "inside the classes apple, pear are not told apart" in opened(tmp_path).notes[0]


def test_a_link_to_nothing_is_a_missing_picture_not_clutter(photos: Path) -> None:
    (photos / "train" / "red" / "lost.jpg").symlink_to("/nowhere/lost.jpg")
    split = open_collection(Data(uri=f"folder:{photos}", holdout=0)).split("train")
    place = list(split.paths).index("train/red/lost.jpg")
    with pytest.raises(BadImage, match=r"lost\.jpg"):
        split.read(place)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            {**{f"seg_{s}/seg_{s}/{c}": 3 for s in ("train", "test") for c in "ab"}, "seg_pred/seg_pred": 3},
            "lie one level down, in seg_test/seg_test, seg_train/seg_train",
        ),
        ({f"{s}/{c}": 3 for s in ("01_train", "02_val", "03_test") for c in "ab"}, "have no stem in common"),
        ({f"{s}/{c}": 3 for s in ("dogs-train", "cats-test") for c in "ab"}, "have no stem in common"),
        (
            {f"{s}/{c}": 3 for s in ("traindata", "testdata") for c in "ab"},
            "testdata, traindata, which looks like a split",
        ),
        ({f"{s}/{c}": 3 for s in ("Training", "Test") for c in "ab"}, "Test and Training, which looks like a split"),
        ({f"{s}_set/{c}": 3 for s in ("training", "test") for c in "ab"}, "training is no word for a split here"),
    ],
)
def test_splits_by_other_names_are_no_classes(tmp_path: Path, counts: dict[str, int], told: str) -> None:
    assert told in refusal(fill(tmp_path, counts))


def test_folders_beside_train_may_be_called_as_they_like(tmp_path: Path) -> None:
    fill(tmp_path, {f"{s}/{c}": 3 for s in ("train", "val", "eval") for c in "ab"})
    assert set(open_collection(Data(uri=str(tmp_path), holdout=0)).splits) >= {"train", "val"}
