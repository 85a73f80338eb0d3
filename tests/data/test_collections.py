"""Collections by their URIs: which roles the splits get, whose classes count, and what mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fixres.data.collections import absolute_uri
from fixres.errors import UserError
from tests.conftest import tiny_recipe
from tests.support.class_folders import COLOURS, fill, three_splits
from tests.support.opening import opened, refusal


def test_train_and_val_carve_a_holdout_to_select_on(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 20, "train/pear": 30, "val/apple": 3, "val/pear": 3})
    collection = opened(tmp_path)
    assert (collection.select, collection.report) == ("holdout", "val")
    assert collection.split("holdout").counts().tolist() == [2, 3]
    assert collection.split("train").counts().tolist() == [18, 27]
    assert len(collection.split("val")) == 6
    assert "5 of 50 training pictures set aside at random as 'holdout'" in collection.notes[0]


def test_train_and_test_carve_a_val_to_select_on(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 20, "train/pear": 30, "test/apple": 3, "test/pear": 3})
    collection = opened(tmp_path)
    assert (collection.select, collection.report) == ("val", "test")
    assert sorted(path for name in ("train", "val") for path in collection.split(name).paths) == sorted(
        f"train/{c}/{k:03}.png" for c, n in (("apple", 20), ("pear", 30)) for k in range(n)
    )


@pytest.mark.parametrize("name", ["val", "test"])
def test_no_holdout_selects_on_the_reported_set_and_says_so(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {f"{s}/{c}": 4 for s in ("train", name) for c in ("apple", "pear")})
    collection = opened(tmp_path, holdout=0.0)
    assert (collection.select, collection.report) == (name, name)
    assert len(collection.split("train")) == 8
    assert "selected on the reported set" in collection.notes[0]
    chosen = tiny_recipe(evaluation={"keep": "best"})
    last = tiny_recipe(evaluation={"keep": "last"})
    assert collection.notes_for(chosen) == list(collection.notes)
    assert collection.notes_for(last) == ["no validation split, and nothing is chosen"]
    # A size that is chosen, a stage that may stop early and a solver that chooses its pull are choices too.
    for more in ({"fix": {"size": "auto", "epochs": 1, "solver": "sgd"}}, {"train": {"patience": 2}}):
        assert collection.notes_for(tiny_recipe(evaluation={"keep": "last"}, **more)) == list(collection.notes)


@pytest.mark.parametrize("top", ["", "train/"])
def test_one_folder_of_classes_is_divided(tmp_path: Path, top: str) -> None:
    fill(tmp_path, {f"{top}apple": 10, f"{top}pear": 20})
    collection = opened(tmp_path)
    counts = {name: split.counts().tolist() for name, split in collection.splits.items()}
    assert counts == {"train": [6, 12], "val": [2, 4], "test": [2, 4]}
    assert (collection.select, collection.report) == ("val", "test")
    assert "train 18, val 6, test 6" in collection.notes[0]


def test_a_class_missing_in_val_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, {"train/apple": 9, "train/pear": 9, "val/pear": 2, "val/apple": 0, "test/apple": 1, "test/pear": 1})
    collection = opened(tmp_path)
    assert collection.notes == ("1 of 2 classes have no pictures in val: apple",)
    assert collection.split("val").labels.tolist() == [1, 1]


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
    told = refusal(three_splits(tmp_path), classes=("apples", "pear"))
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
    assert told in refusal(uri)


def test_a_folder_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"my:photos/apple": 5, "my:photos/pear": 5})
    monkeypatch.chdir(tmp_path)
    assert opened("my:photos").classes == ("apple", "pear")


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


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("csv:a/t.csv?split=s&root=pics", "csv:{}/a/t.csv?root={}/pics&split=s"),
        ("CSV:a%20b.csv", "csv:{}/a b.csv"),
        ("torchvision:MNIST?download=true&root=x", "torchvision:MNIST?root={}/x&download=true"),
        ("hf:user/name?revision=main", "hf:user/name?revision=main"),
        ("hf:here", "hf:{}/here"),
        ("wds:d/t-{0..3}.tar", "wds:{}/d/t-{0..3}.tar"),
        ("wds:?train=a-*.tar&val=b.tar", "wds:?train={}/a-*.tar&val={}/b.tar"),
        ("wds:https://h.example/d?train=a.tar", "wds:https://h.example/d?train=a.tar"),
        ("folder:here", "folder:{}/here"),
        ("here", "folder:{}/here"),
        ("synthetic:classes=3", "synthetic:classes=3"),
    ],
)
def test_stored_uris_mean_the_same_from_anywhere(
    given: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = stored.replace("{}", str(tmp_path))
    assert absolute_uri(given) == expected
    monkeypatch.chdir("/")
    assert absolute_uri(expected) == expected
