"""Tables on the console."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixres.cli.console import Console, study_table
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
