"""Data URIs: what is found, which roles the splits get, and what every mistake is told."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixres.config.recipe import Data
from fixres.data.collections import Collection, Names, Split, open_collection
from fixres.data.decode import BadImage
from fixres.errors import UserError

COLOURS = {"apple": (200, 10, 10), "pear": (10, 200, 10), "plum": (90, 10, 120)}


def fill(root: Path, counts: Mapping[str, int]) -> Path:
    """Write that many small pictures into every folder, `{"train/apple": 3}`, each in its class's colour."""
    for folder, count in counts.items():
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for k in range(count):
            Image.new("RGB", (6, 4), COLOURS.get(place.name, (9, 9, 9))).save(place / f"{k:03}.png")
    return root


def three_splits(root: Path) -> Path:
    """Write a collection with train, val and test of two classes."""
    return fill(root, {f"{s}/{c}": n for s, n in (("train", 5), ("val", 2), ("test", 3)) for c in ("apple", "pear")})


def opened(root: Path | str, classes: Iterable[str] | None = None, **settings: Any) -> Collection:
    """Open a collection without a split file."""
    return open_collection(Data(uri=str(root), **settings), None, None if classes is None else tuple(classes))


def message(root: Path | str, classes: Iterable[str] | None = None) -> str:
    """Return what the user is told when the collection cannot be opened."""
    with pytest.raises(UserError) as caught:
        opened(root, classes)
    return str(caught.value)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return every path below a folder with its size and time of change."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}


def paths(split: Split) -> list[str]:
    """Return the paths of a split."""
    return list(split.paths)


@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_three_folders_keep_their_names_and_roles(tmp_path: Path, prefix: str) -> None:
    collection = opened(prefix + str(three_splits(tmp_path)))
    assert collection.classes == ("apple", "pear")
    assert {name: len(split) for name, split in collection.splits.items()} == {"train": 10, "val": 4, "test": 6}
    assert (collection.select, collection.report) == ("val", "test")
    assert collection.notes == ()
    assert collection.uri == f"folder:{tmp_path}"
    train = collection.split("train")
    assert paths(train)[:2] == ["train/apple/000.png", "train/apple/001.png"]
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert train.read(0).getpixel((0, 0)) == COLOURS["apple"]
    assert train.read(9).getpixel((0, 0)) == COLOURS["pear"]


@pytest.mark.parametrize("name", ["valid", "validation", "val", "Val"])
def test_other_names_of_val_are_val(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {f"{s}/{c}": 10 for s in ("train", name) for c in ("apple", "pear")})
    assert set(opened(tmp_path).splits) == {"train", "holdout", "val"}


def test_train_and_val_carve_a_holdout_to_select_on(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 20, "train/pear": 30, "val/apple": 3, "val/pear": 3})
    collection = opened(tmp_path)
    assert (collection.select, collection.report) == ("holdout", "val")
    assert collection.split("holdout").counts().tolist() == [2, 3]
    assert collection.split("train").counts().tolist() == [18, 27]
    assert len(collection.split("val")) == 6
    assert "5 of 50 training pictures carved out as 'holdout'" in collection.notes[0]


def test_train_and_test_carve_a_val_to_select_on(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 20, "train/pear": 30, "test/apple": 3, "test/pear": 3})
    collection = opened(tmp_path)
    assert (collection.select, collection.report) == ("val", "test")
    assert sorted(paths(collection.split("train")) + paths(collection.split("val"))) == sorted(
        f"train/{c}/{k:03}.png" for c, n in (("apple", 20), ("pear", 30)) for k in range(n)
    )


@pytest.mark.parametrize("name", ["val", "test"])
def test_no_holdout_selects_on_the_reported_set_and_says_so(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {f"{s}/{c}": 4 for s in ("train", name) for c in ("apple", "pear")})
    collection = opened(tmp_path, holdout=0.0)
    assert (collection.select, collection.report) == (name, name)
    assert len(collection.split("train")) == 8
    assert "selected on the reported set" in collection.notes[0]


@pytest.mark.parametrize("top", ["", "train/"])
def test_one_folder_of_classes_is_divided(tmp_path: Path, top: str) -> None:
    fill(tmp_path, {f"{top}apple": 10, f"{top}pear": 20})
    collection = opened(tmp_path)
    counts = {name: split.counts().tolist() for name, split in collection.splits.items()}
    assert counts == {"train": [6, 12], "val": [2, 4], "test": [2, 4]}
    assert (collection.select, collection.report) == ("val", "test")
    assert "train 18, val 6, test 6" in collection.notes[0]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, {"train": 5, "bus": 5, "car": 5})
    assert opened(tmp_path).classes == ("bus", "car", "train")


def test_carved_splits_are_saved_and_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    split_file = tmp_path / "run" / "split.json"
    first = open_collection(Data(uri=str(tmp_path / "data")), split_file)
    saved = json.loads(split_file.read_text())
    assert saved["parts"]["val"] == paths(first.split("val"))
    # The file decides, not the seed.
    again = open_collection(Data(uri=str(tmp_path / "data"), split_seed=99), split_file)
    for name, split in first.splits.items():
        assert paths(again.split(name)) == paths(split)
        assert again.split(name).file_list_hash() == split.file_list_hash()
    assert paths(opened(tmp_path / "data", split_seed=99).split("val")) != paths(first.split("val"))
    assert [p.name for p in split_file.parent.iterdir()] == ["split.json"]


def test_a_saved_split_of_other_pictures_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    split_file = tmp_path / "split.json"
    open_collection(Data(uri=str(tmp_path / "data")), split_file)
    fill(tmp_path / "data", {"apple": 16})
    with pytest.raises(UserError, match=r"split\.json was made for other pictures \(30 then, 31 now") as caught:
        open_collection(Data(uri=str(tmp_path / "data")), split_file)
    assert "another --out folder" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"of": 1, "parts": 2, "remainder": 3}', "{"])
def test_a_damaged_split_file_is_refused(tmp_path: Path, content: str) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    split_file = tmp_path / "split.json"
    split_file.write_text(content)
    with pytest.raises(UserError, match="is not a saved split"):
        open_collection(Data(uri=str(tmp_path / "data")), split_file)


def test_a_split_file_of_another_division_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    split_file = tmp_path / "split.json"
    open_collection(Data(uri=str(tmp_path / "data")), split_file)
    fill(tmp_path / "two", {f"{s}/{c}": 15 for s in ("train", "val") for c in ("apple", "pear")})
    with pytest.raises(
        UserError, match="holds the parts train, val, test, but this collection is divided into train, hol"
    ):
        open_collection(Data(uri=str(tmp_path / "two")), split_file)


def test_nothing_is_saved_when_nothing_is_carved(tmp_path: Path) -> None:
    open_collection(Data(uri=str(three_splits(tmp_path / "data"))), tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


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
    told = message(tmp_path / "photo")
    assert f"there is no folder {tmp_path}/photo - did you mean 'photos'?" in told
    assert "holds the folders music, photos" in told


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    assert "is a file; allowed is a folder with one sub-folder per class" in message(tmp_path / "photos.zip")


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
    assert told in message(fill(tmp_path, counts))


def test_a_class_missing_in_val_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 9, "train/pear": 9, "val/pear": 2, "val/apple": 0, "test/apple": 1, "test/pear": 1})
    collection = opened(tmp_path)
    assert collection.notes == ("1 of 2 classes have no pictures in val: apple",)
    assert collection.split("val").labels.tolist() == [1, 1]


def test_other_folders_beside_the_splits_are_noted(tmp_path: Path) -> None:
    three_splits(tmp_path)
    fill(tmp_path, {"unlabelled/x": 2})
    assert opened(tmp_path).notes == (f"not a split, ignored: unlabelled in {tmp_path}",)


@pytest.mark.parametrize(
    ("names", "noted"), [(("0", "1", "10", "2"), True), (("0", "1", "2"), False), (("00", "01"), False)]
)
def test_numbers_that_sort_as_text_are_noted(tmp_path: Path, names: tuple[str, ...], noted: bool) -> None:
    collection = opened(fill(tmp_path, dict.fromkeys(names, 10)))
    assert collection.classes == names
    told = "class names are numbers and sort as text: label 0 is 0, then 1, 10, 2"
    assert (told in collection.notes) == noted


def test_the_classes_of_a_checkpoint_are_matched_by_name(tmp_path: Path) -> None:
    collection = opened(three_splits(tmp_path), classes=("pear", "plum", "apple"))
    assert collection.classes == ("pear", "plum", "apple")
    train = collection.split("train")
    assert train.labels.tolist() == [2] * 5 + [0] * 5
    assert train.read(0).getpixel((0, 0)) == COLOURS["apple"]
    assert "1 of 3 classes have no pictures in train: plum" in collection.notes


def test_classes_the_checkpoint_does_not_know_are_refused(tmp_path: Path) -> None:
    told = message(three_splits(tmp_path), classes=("apples", "pear"))
    assert "holds classes the checkpoint does not know: apple - did you mean 'apples'?" in told
    assert "it knows apples, pear" in told


def test_a_checkpoint_can_be_measured_without_training_pictures(tmp_path: Path) -> None:
    fill(tmp_path, {"test/apple": 3})
    collection = opened(tmp_path, classes=("apple", "pear"))
    assert (collection.select, collection.report) == ("test", "test")
    assert set(collection.splits) == {"test"}


def test_an_unknown_split_lists_the_allowed(tmp_path: Path) -> None:
    collection = opened(three_splits(tmp_path))
    with pytest.raises(UserError, match="has no split 'tests' - did you mean 'test'") as caught:
        collection.split("tests")
    assert "allowed here: train, val, test" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("", "no data given"),
        ("  ", "no data given"),
        ("fodler:photos", "unknown kind of data 'fodler:' in fodler:photos - did you mean 'folder'?"),
        ("s3:bucket", "allowed: folder:DIR or a bare path, csv:FILE, torchvision:NAME, hf:"),
        ("elpv:val", "has no settings"),
        ("synthetic:clases=3", "has no setting 'clases' - did you mean 'classes'?"),
        ("synthetic:classes=two", "classes must be a positive integer, got 'two'"),
        ("synthetic:size=0", "size must be a positive integer, got '0'"),
        ("synthetic:classes=9,images=4", "4 images cannot show 9 classes"),
        ("synthetic:classes=1", "holds only one class"),
    ],
)
def test_uris_that_cannot_be_used(uri: str, told: str) -> None:
    assert told in message(uri)


def test_a_folder_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"my:photos/apple": 5, "my:photos/pear": 5})
    monkeypatch.chdir(tmp_path)
    assert opened("my:photos").classes == ("apple", "pear")


def test_a_picture_that_vanishes_is_named(tmp_path: Path) -> None:
    collection = opened(three_splits(tmp_path))
    (tmp_path / "val" / "pear" / "001.png").unlink()
    with pytest.raises(BadImage, match=r"^val/pear/001\.png: cannot be read \(No such file"):
        collection.split("val").read(3)


def test_the_policy_of_the_recipe_and_of_the_call(tmp_path: Path) -> None:
    fill(tmp_path, {f"{s}/{c}": 1 for s in ("train", "val", "test") for c in ("apple", "pear")})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (8, 4), (200, 0, 0, 0)).save(tmp_path / "train" / "apple" / "000.png", exif=exif)
    plain, raw = (
        opened(tmp_path, exif=e, alpha=a).split("train") for e, a in (("apply", "white"), ("ignore", "ignore"))
    )
    assert (plain.read(0).size, plain.read(0).getpixel((0, 0))) == ((4, 8), (255, 255, 255))
    assert (raw.read(0).size, raw.read(0).getpixel((0, 0))) == ((8, 4), (200, 0, 0))
    assert (raw.read(0, exif="apply").size, plain.read(0, alpha="ignore").getpixel((0, 0))) == ((4, 8), (200, 0, 0))


@pytest.mark.parametrize("uri", ["synthetic:classes=3,images=12", "elpv:"])
def test_splits_can_be_sent_to_workers(uri: str) -> None:
    if uri == "elpv:":
        pytest.importorskip("elpv_dataset")
    split = opened(uri).split("train")
    packed = pickle.dumps(split)
    copy = pickle.loads(packed)
    assert copy.file_list_hash() == split.file_list_hash()
    assert np.array_equal(np.asarray(copy.read(1)), np.asarray(split.read(1)))
    assert len(packed) < 100 * len(split) + 2000


def test_elpv_is_stratified_by_class_and_cell_type() -> None:
    pytest.importorskip("elpv_dataset")
    collection = opened("elpv:")
    assert collection.classes == ("functional", "defective")
    assert (collection.select, collection.report) == ("val", "test")
    assert sum(len(split) for split in collection.splits.values()) == 2624
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    totals: dict[tuple[int, str], int] = {}
    strata = {}
    for name, split in collection.splits.items():
        assert split.subgroups is not None
        strata[name] = list(zip(split.labels.tolist(), split.subgroups, strict=True))
        for stratum in strata[name]:
            totals[stratum] = totals.get(stratum, 0) + 1
    assert len(totals) == 4
    for name, members in strata.items():
        for stratum, total in totals.items():
            assert abs(members.count(stratum) - shares[name] * total) < 1
    picture = collection.split("test").read(0)
    assert (picture.mode, picture.size) == ("RGB", (300, 300))


def test_elpv_labels_are_the_packages_own() -> None:
    elpv_dataset = pytest.importorskip("elpv_dataset")
    table = Path(elpv_dataset.__file__).parent / "data" / "labels.csv"
    probability = {line.split()[0]: float(line.split()[1]) for line in table.read_text().splitlines()}
    for split in opened("elpv:").splits.values():
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            assert label == (probability[path] >= 0.5)


def test_elpv_without_its_package_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    assert "pip install 'fixres[demo]'" in message("elpv:")


def test_synthetic_is_deterministic_balanced_and_mixed_in_shape() -> None:
    collection = opened("synthetic:classes=4,images=40,size=32,seed=3")
    assert {name: split.counts().tolist() for name, split in collection.splits.items()} == {
        "train": [10] * 4,
        "val": [4, 3, 3, 3],
        "test": [4, 3, 3, 3],
    }
    train = collection.split("train")
    pictures = [train.read(k) for k in range(40)]
    again = opened("synthetic:classes=4,images=40,size=32,seed=3").split("train")
    assert all(np.array_equal(np.asarray(a), np.asarray(again.read(k))) for k, a in enumerate(pictures))
    other = opened("synthetic:classes=4,images=40,size=32,seed=4").split("train")
    assert any(not np.array_equal(np.asarray(a), np.asarray(other.read(k))) for k, a in enumerate(pictures))
    assert min(min(picture.size) for picture in pictures) == 32
    ratios = [picture.width / picture.height for picture in pictures]
    assert min(ratios) < 0.8
    assert max(ratios) > 1.2
    first = {np.asarray(collection.split(name).read(0)).tobytes() for name in collection.splits}
    assert len(first) == 3


def test_synthetic_can_be_learnt_from_its_colours() -> None:
    """The most saturated pixels belong to the object: nearest centroid of their colour already tells the classes."""

    def features(split: Split) -> np.ndarray[Any, Any]:
        found = []
        for k in range(len(split)):
            pixels = np.asarray(split.read(k)).reshape(-1, 3).astype(float)
            found.append(pixels[np.argsort(np.ptp(pixels, axis=1))[-40:]].mean(axis=0))
        return np.array(found)

    collection = opened("synthetic:classes=4,images=80")
    train, test = collection.split("train"), collection.split("test")
    known = features(train)
    centroids = np.array([known[train.labels == k].mean(axis=0) for k in range(4)])
    distance = ((features(test)[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == test.labels).mean() > 0.9


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=20))
def test_names_hold_any_strings(strings: list[str]) -> None:
    names = Names(strings)
    assert list(names) == strings
    assert names == pickle.loads(pickle.dumps(names))
    assert list(names[1:]) == strings[1:]
    assert [names[-k - 1] for k in range(len(strings))] == strings[::-1]


def test_names_hold_what_a_disk_can_hold_and_end_where_they_end() -> None:
    names = Names(["caf\udce9.jpg"])
    assert names[0] == "caf\udce9.jpg"
    with pytest.raises(IndexError):
        names[1]


def test_a_link_to_nothing_is_a_missing_picture_not_clutter(photos: Path) -> None:
    (photos / "train" / "red" / "lost.jpg").symlink_to("/nowhere/lost.jpg")
    split = open_collection(Data(uri=f"folder:{photos}", holdout=0)).split("train")
    place = list(split.paths).index("train/red/lost.jpg")
    with pytest.raises(BadImage, match=r"lost\.jpg"):
        split.read(place)
