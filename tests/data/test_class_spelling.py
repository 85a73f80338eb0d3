"""Class names in two Unicode forms are one class, whichever split, checkpoint or system wrote them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.inspect.check import open_anyhow
from tests.support.class_folders import fill
from tests.support.opening import opened

NAMES = ("K\N{LATIN SMALL LETTER A WITH DIAERESIS}se", "p\N{LATIN SMALL LETTER A WITH CIRCUMFLEX}t")
OTHERS = tuple(unicodedata.normalize("NFD", name) for name in NAMES)


@pytest.mark.parametrize("stem", ["", "x_"])
@pytest.mark.parametrize(("train", "val"), [(NAMES, OTHERS), (OTHERS, NAMES)])
def test_splits_in_two_forms_are_of_the_same_classes(
    tmp_path: Path, train: tuple[str, ...], val: tuple[str, ...], stem: str
) -> None:
    fill(tmp_path, {f"{stem}{split}/{name}": 4 for split, names in (("train", train), ("val", val)) for name in names})
    collection = opened(tmp_path, holdout=0)
    assert collection.classes == train
    assert collection.split("val").labels.tolist() == [0] * 4 + [1] * 4
    collection.split("val").read(0)
    told = f"2 class names of val differ in their Unicode form only and are taken for the others: {', '.join(val)}"
    assert told in collection.notes


def test_a_checkpoint_keeps_its_spelling(tmp_path: Path) -> None:
    fill(tmp_path, {f"val/{name}": 4 for name in OTHERS})
    collection = open_collection(Data(uri=str(tmp_path)), classes=("a", *NAMES), for_training=False)
    assert collection.classes == ("a", *NAMES)
    assert collection.split("val").labels.tolist() == [1] * 4 + [2] * 4


def test_two_forms_side_by_side_are_one_class(tmp_path: Path) -> None:
    fill(tmp_path, {NAMES[0]: 6, OTHERS[0]: 6, "plain": 6})
    collection = open_collection(Data(uri=str(tmp_path)), for_training=False)
    assert len(collection.classes) == 2
    assert collection.split("all").counts().tolist() == [12, 6]


def test_a_checkpoint_that_knows_both_forms_keeps_them_apart(tmp_path: Path) -> None:
    fill(tmp_path, {f"val/{name}": 2 for name in (NAMES[0], OTHERS[0])})
    collection = open_collection(Data(uri=str(tmp_path)), classes=(NAMES[0], OTHERS[0]), for_training=False)
    assert sorted(collection.split("val").labels.tolist()) == [0, 0, 1, 1]
    assert collection.notes == ()


def test_a_check_takes_them_for_the_same(tmp_path: Path) -> None:
    fill(tmp_path, {f"{split}/{name}": 4 for split, names in (("train", NAMES), ("val", OTHERS)) for name in names})
    opened = open_anyhow(Data(uri=str(tmp_path)))
    assert opened.splits["val"].classes == NAMES
    assert "2 class names of val differ in their Unicode form only" in opened.notes[0]
