"""Tables on the console."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixres.cli.console import Console, paired_sentence, results_table, study_table
from fixres.experiments.seeds import Difference, Row, Study


def test_a_table_in_a_pipe_has_every_number_whole(capsys: pytest.CaptureFixture[str]) -> None:
    header = ["", *(f"column {i}" for i in range(20))]
    Console().table("title", header, [["row", *(f"{i}123.4567" for i in range(20))]])
    printed = capsys.readouterr().err
    assert "…" not in printed
    assert all(f"{i}123.4567" in printed for i in range(20))
    assert len(printed.strip().splitlines()) == 3


def study(*top1: float) -> Study:
    difference = Difference(1.0, 0.5 if len(top1) > 1 else 0.0, (0.2, 1.8), top1, 100)
    row = Row("fixed", (48,), top1, 0.5, 60.0)
    return Study("test", 100, tuple(range(len(top1))), (row,), difference, replace(difference, mean=-0.1))


def test_one_seed_has_no_spread() -> None:
    title, _, rows = study_table(study(80.0))
    assert rows[0][2] == "80.00"
    assert "+-" not in title
    assert "1 seed (0)" in title
    assert "fixed minus before: +1.00 points of top-1, 95 % interval" in title
    title, _, rows = study_table(study(80.0, 82.0))
    assert rows[0][2] == "81.00 +- 1.41"
    assert "+1.00 +- 0.50 points of top-1 over seeds" in title


RESULT = {
    "size": 48,
    "top1": 80.0,
    "top1_ci95": (70.0, 90.0),
    "top5": 99.0,
    "loss": 0.5,
    "ece": 0.1,
    "balanced_accuracy": 75.0,
    "gmacs": 0.5,
    "images_per_second": 100.0,
}


@pytest.mark.parametrize(("num_classes", "has_top5"), [(6, False), (10, False), (11, True), (1000, True)])
def test_top5_is_for_more_than_ten_classes(num_classes: int, has_top5: bool) -> None:
    header, rows = results_table([RESULT], None, num_classes)
    assert ("top-5 %" in header) == ("99.00" in rows[0]) == has_top5


@pytest.mark.parametrize(("imbalance", "is_shown"), [(None, False), (1.0, False), (1.5, False), (1.51, True)])
def test_balanced_accuracy_stands_beside_top1_where_classes_are_uneven(imbalance: float | None, is_shown: bool) -> None:
    header, rows = results_table([RESULT], ["fixed"], 6, imbalance)
    assert ("balanced %" in header) == ("75.00" in rows[0]) == is_shown
    row = replace(study(80.0).rows[0], metrics={"balanced_accuracy": (75.0,)})
    _, header, (cells,) = study_table(replace(study(80.0), rows=(row,), imbalance=imbalance))
    assert ("balanced %" in header) == ("75.00" in cells) == is_shown


def test_a_small_p_is_a_bound_and_never_zero() -> None:
    paired = {"difference": 9.0, "ci95": (8.0, 10.0), "p_value": 1e-9, "num_better": 1, "num_worse": 0}
    assert "better on 1 picture, worse on 0, p < 0.001)" in paired_sentence(paired)
