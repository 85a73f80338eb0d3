"""The division of a fold, and pictures without the detail of a larger size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.own_pictures.folds import Row
from benchmarks.resolution.measure import LARGE, SMALL, divided, reduced


def test_a_quarter_of_the_training_pictures_selects_in_every_class() -> None:
    rows = [Row(f"p{i}", "ab"[i % 2], "test" if i % 5 == 0 else "train") for i in range(100)]
    found = divided(rows)
    assert [row.path for row in found] == [row.path for row in rows]
    assert Counter(row.split for row in found) == {"test": 20, "val": 20, "train": 60}
    assert all((row.split == "test") == (old.split == "test") for row, old in zip(found, rows, strict=True))
    assert Counter(row.label for row in found if row.split == "val") == {"a": 10, "b": 10}


def test_reduced_pictures_are_as_large_and_have_no_more_detail(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        path = tmp_path / f"{'cab'[number]}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (300, 300), dtype=np.uint8)).save(path)
        rows.append(Row(str(path), "x", "train"))
    found = reduced(rows, tmp_path / "reduced")
    for own, row in zip(found, rows, strict=True):
        with Image.open(own.path) as made, Image.open(row.path) as picture:
            assert made.size == (LARGE, LARGE)
            small = picture.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BICUBIC)
            assert np.array_equal(np.asarray(made), np.asarray(small.resize((LARGE, LARGE), Image.Resampling.BICUBIC)))
        assert (own.label, own.split) == (row.label, row.split)
