"""Stanford Cars, the same from every layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.data.prepare.writer import prepare
from fixres.errors import UserError
from tests.support import archive_makers as made
from tests.support.known_sets import by_path


def test_cars_come_out_equal_from_all_three_layouts(shrink: Callable[..., None], tmp_path: Path) -> None:
    def contents(folder: Path) -> set[tuple[str, bytes]]:
        return {(path.rsplit("/", 1)[0], content) for path, content in by_path(folder).items()}

    one = made.cars_one_archive()
    shrink("stanford-cars", one, {"train": 3, "test": 2}, 2)
    made.write_all(tmp_path / "one", one)
    made.write_all(tmp_path / "two", made.cars_two_archives())
    for layout in ("one", "two"):
        prepare("stanford-cars", tmp_path / layout, tmp_path / f"out-{layout}")
    prepare("stanford-cars", tmp_path / "out-one", tmp_path / "out-ready")
    assert contents(tmp_path / "out-one") == contents(tmp_path / "out-two") == contents(tmp_path / "out-ready")
    assert {place for place, _ in contents(tmp_path / "out-one")} == {
        f"{split}/{label}" for split in ("train", "test") for label in (made.CARS[0], "Ram C-V Cargo Van Minivan 2012")
    }
    (tmp_path / "two/cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"does not hold cars_test_annos_withlabels\.mat"):
        prepare("stanford-cars", tmp_path / "two", tmp_path / "out-none")
