"""Sets that come with lists are divided as their lists say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support import archive_makers as made
from tests.support.known_sets import by_path, prepared


def test_birds_are_divided_as_their_table_says(shrink: Callable[..., None], tmp_path: Path) -> None:
    files = made.cub()
    shrink("cub-200-2011", files, {"train": 3, "test": 3}, 2)
    prepared("cub", files, tmp_path)
    first, second = "001.Black_footed_Albatross", "002.Laysan_Albatross"
    numbers = {"train": [(first, 0), (first, 2), (second, 2)], "test": [(first, 1), (second, 0), (second, 1)]}
    assert set(by_path(tmp_path / "out")) == {
        f"{split}/{label}/{label[4:]}_{i:04}.jpg" for split, rows in numbers.items() for label, i in rows
    }
    assert by_path(tmp_path / "out")[f"train/{second}/Laysan_Albatross_0002.jpg"] == made.jpeg(505)
