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
    for split in collection.splits.values():
        for k in range(len(split)):
            split.read(k)


def test_pictures_of_phones_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    fill(tmp_path, {"apple": 6, "pear": 6})
    for k in range(5):
        (tmp_path / "pear" / f"IMG_{k}.HEIC").write_bytes(b"")
    (tmp_path / "apple" / "web.avif").write_bytes(b"")
    notes = opened(tmp_path).notes
    assert "1 file ignored, AVIF, convert to JPEG first, for example with ImageMagick: " in notes[0]
    assert notes[1] == (
        "5 files ignored, HEIC, convert to JPEG first, for example with ImageMagick: magick mogrify -format jpg *.heic"
        ": pear/IMG_0.HEIC, pear/IMG_1.HEIC, pear/IMG_2.HEIC, ..."
    )
    (tmp_path / "plum").mkdir()
    (tmp_path / "plum" / "a.heif").write_bytes(b"")
    with pytest.raises(UserError, match=r"folder plum of .*, but 1 file in HEIF: convert to JPEG first.*\*\.heif"):
        opened(tmp_path)


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


def test_a_link_to_nothing_is_a_missing_picture_not_clutter(photos: Path) -> None:
    (photos / "train" / "red" / "lost.jpg").symlink_to("/nowhere/lost.jpg")
    split = open_collection(Data(uri=f"folder:{photos}", holdout=0)).split("train")
    place = list(split.paths).index("train/red/lost.jpg")
    with pytest.raises(BadImage, match=r"lost\.jpg"):
        split.read(place)
