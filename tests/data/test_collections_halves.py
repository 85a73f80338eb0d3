"""One rule for who selects and who reports: never the same pictures."""

from __future__ import annotations

from typing import Any

import pytest

from fixres.config.recipe import Data
from fixres.data.collections import Collection, open_collection
from fixres.errors import UserError

WHOLE = open_collection(Data(uri="synthetic:classes=3,images=63"))


def collection(select: str, report: str, *names: str) -> Collection:
    return Collection("x:", WHOLE.classes, {name: WHOLE.split(name) for name in names}, select, report)


BOTH = collection("val", "test", "train", "val", "test")
ONE = collection("test", "test", "train", "test")


def shape(made: Collection, **asked: Any) -> list[tuple[str, int] | None]:
    return [part and (part.name, len(part)) for part in made.select_and_report(**asked)]


@pytest.mark.parametrize(
    ("made", "asked", "expected"),
    [
        (BOTH, {}, [("val", 21), ("test", 21)]),
        (BOTH, {"split": "train"}, [("val", 21), ("train", 63)]),
        (BOTH, {"split": "val"}, [("val", 10), ("val", 11)]),
        (ONE, {}, [("test", 10), ("test", 11)]),
        (ONE, {"split": "train"}, [("test", 21), ("train", 63)]),
        (collection("train", "train", "train"), {}, [("train", 31), ("train", 32)]),
        # The split to report on is spared.
        (BOTH, {"halves_from": 21}, [("val", 10), ("val", 11)]),
        (BOTH, {"halves_from": 22}, [("val", 21), None]),
        (ONE, {"halves_from": 22}, [("test", 10), ("test", 11)]),
    ],
)
def test_who_selects_and_who_reports(made: Collection, asked: dict[str, Any], expected: list[Any]) -> None:
    assert shape(made, **asked) == expected


def test_halves_share_no_picture_and_are_the_same_every_time() -> None:
    first, second = BOTH.select_and_report(split="val")
    assert second is not None
    assert sorted([*first.paths, *second.paths]) == sorted(BOTH.split("val").paths)
    assert list(BOTH.select_and_report(split="val")[0].paths) == list(first.paths)
    with pytest.raises(UserError, match="has no split 'vol'"):
        BOTH.select_and_report(split="vol")
