"""Class folders of photographs on white, without what would be tested twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.own_pictures.stamps import write_photographs
from fixres.errors import UserError


def test_photographs_on_white_without_drawings_and_copies(tmp_path: Path) -> None:
    stamps = tmp_path / "x" / "usr" / "share" / "tuxpaint" / "stamps"
    for number, name in enumerate(
        [
            "animals/birds/hen.png",
            "animals/birds/cartoon/duck.png",
            "household/tools/tape.png",
            "household/tools/tape_mirror.png",
            "symbols/money/euro/coins/1.png",
            "symbols/money/00_symbols/euro.png",
            "food/pizza.png",
            "food/drawn.png",
        ]
    ):
        (stamps / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (2, 1), (number, 0, 0, 255)).save(stamps / name)
    Image.new("RGBA", (2, 1), (9, 9, 9, 0)).save(stamps / "food" / "pizza.png")
    (stamps / "food" / "drawn.svg").touch()
    (stamps / "animals" / "birds" / "same_hen.png").write_bytes((stamps / "animals" / "birds" / "hen.png").read_bytes())

    counts = write_photographs(tmp_path / "x", tmp_path / "photos")

    assert {name: count for name, count in counts.items() if count} == {
        "birds": 1, "food": 1, "coins": 1, "household": 1
    }  # fmt: skip
    (pizza,) = (tmp_path / "photos" / "food").iterdir()
    assert Image.open(pizza).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(UserError, match="not empty"):
        write_photographs(tmp_path / "x", tmp_path / "photos")


def test_a_folder_without_stamps_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stamps below"):
        write_photographs(tmp_path, tmp_path / "photos")
