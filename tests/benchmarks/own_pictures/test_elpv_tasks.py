"""The labels of the further tasks are those of the package."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.own_pictures.elpv_tasks import labelled


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("type", {"mono": 1074, "poly": 1550}),
        ("grade", {"intact": 1508, "probably intact": 295, "probably defective": 106, "defective": 715}),
    ],
)
def test_every_picture_has_a_label_of_the_task(task: str, counts: dict[str, int]) -> None:
    rows = labelled(task)
    assert len({path for path, _ in rows}) == len(rows) == 2624
    assert Counter(label for _, label in rows) == counts
