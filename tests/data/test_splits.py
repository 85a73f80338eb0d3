"""Splits that are carved and saved, sent to workers, and lists of their names that take no room."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.splits import Names
from fixres.errors import UserError
from tests.support.class_folders import fill, three_splits
from tests.support.opening import opened


def test_carved_splits_are_saved_and_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"apple": 15, "pear": 15})
    split_file = tmp_path / "run" / "split.json"
    first = open_collection(Data(uri=str(tmp_path / "data")), split_file)
    saved = json.loads(split_file.read_text())
    assert saved["parts"]["val"] == list(first.split("val").paths)
    # The file decides, not the seed.
    again = open_collection(Data(uri=str(tmp_path / "data"), split_seed=99), split_file)
    for name, split in first.splits.items():
        assert list(again.split(name).paths) == list(split.paths)
        assert again.split(name).file_list_hash() == split.file_list_hash()
    assert list(opened(tmp_path / "data", split_seed=99).split("val").paths) != list(first.split("val").paths)
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
