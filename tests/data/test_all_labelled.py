"""All pictures with a label as one training split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.config.recipe import Data
from fixres.data.all_labelled import open_to_train
from fixres.data.collections import open_collection
from tests.support.class_folders import fill, three_splits


@pytest.mark.parametrize("is_carved", [True, False])
def test_every_labelled_picture_is_trained_on_once_under_its_own_label(is_carved: bool, tmp_path: Path) -> None:
    root = fill(tmp_path / "c", {"apple": 10, "pear": 7}) if is_carved else three_splits(tmp_path / "c")
    parts = open_collection(Data(uri=str(root)))
    whole = open_to_train(Data(uri=str(root), train_on="all"))
    assert list(whole.splits) == ["train"]
    train = whole.split("train")
    own = [
        (label, split.read(k).getpixel((0, 0)))
        for split in parts.splits.values()
        for k, label in enumerate(split.labels)
    ]
    assert [(label, train.read(k).getpixel((0, 0))) for k, label in enumerate(train.labels)] == own
    assert len(set(train.paths)) == len(train) == sum(map(len, parts.splits.values()))
    np.testing.assert_array_equal(train.counts(), sum(split.counts() for split in parts.splits.values()))


def test_a_change_of_any_picture_shows(tmp_path: Path) -> None:
    root = three_splits(tmp_path)
    before = open_to_train(Data(uri=str(root), train_on="all")).split("train").stamp()
    (root / "test" / "pear" / "000.png").write_bytes(b"another")
    assert open_to_train(Data(uri=str(root), train_on="all")).split("train").stamp() != before
