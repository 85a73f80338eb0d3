"""All arms see the same folds, and every picture is tested once."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.own_pictures.folds import fold_files, fold_numbers, read_fold, write_folds
from fixres.config.recipe import Data
from fixres.data.collections import open_splits
from fixres.errors import UserError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 10 pictures of one class in train/, and 5 of the other in each of train/ and val/."""
    for split, name, count in [("train", "cat", 10), ("train", "dog", 5), ("val", "cat", 1), ("val", "dog", 5)]:
        folder = tmp_path / "photos" / split / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_every_picture_of_every_split_is_tested_once(photos: Path, tmp_path: Path) -> None:
    files = write_folds(f"folder:{photos}", tmp_path / "folds")
    tested = [row.path for file in files for row in read_fold(file) if row.split == "test"]
    assert sorted(tested) == sorted(map(str, photos.rglob("*.png")))
    for file in files:
        labels = Counter(row.label for row in read_fold(file) if row.split == "test")
        assert labels["dog"] == 2
        assert labels["cat"] in (2, 3)


def test_the_training_table_holds_no_tested_picture_and_opens(photos: Path, tmp_path: Path) -> None:
    (file, *_) = write_folds(f"folder:{photos}", tmp_path / "folds")
    with (tmp_path / "folds" / "train-0.csv").open(encoding="utf-8") as lines:
        given = {row["path"] for row in csv.DictReader(lines)}
    assert given == {row.path for row in read_fold(file) if row.split == "train"}
    splits = open_splits(Data(uri=f"csv:{tmp_path / 'folds' / 'train-0.csv'}"))[1]
    assert {name: len(split) for name, split in splits.items()} == {"train": len(given)}
    assert {*open_splits(Data(uri=f"csv:{file}"))[1]} == {"train", "test"}


def test_the_seed_decides_the_folds() -> None:
    strata = np.repeat(np.arange(3), [40, 30, 7])
    first, again, other = (fold_numbers(strata, 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for stratum in range(3):
        sizes = np.bincount(first[strata == stratum], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_folds_that_arms_were_measured_on_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    write_folds(f"folder:{photos}", tmp_path / "folds")
    write_folds(f"folder:{photos}", tmp_path / "folds")
    with pytest.raises(UserError, match="holds another fold"):
        write_folds(f"folder:{photos}", tmp_path / "folds", seed=1)


def test_some_folds_can_be_asked_for(photos: Path, tmp_path: Path) -> None:
    write_folds(f"folder:{photos}", tmp_path / "folds")
    assert list(fold_files(tmp_path / "folds")) == [0, 1, 2, 3, 4]
    assert list(fold_files(tmp_path / "folds", [3])) == [3]
    with pytest.raises(UserError, match="no such folds"):
        fold_files(tmp_path / "folds", [7])
