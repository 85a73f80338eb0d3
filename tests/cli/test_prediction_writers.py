"""Predictions as text: every style, file names that no terminal can print, and files that are gone on with."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from fixres.cli.commands.predict import RESUMABLE, Format
from fixres.cli.prediction_writers import ParquetWriter, TextWriter
from fixres.inference.predict import Prediction

SURE = Prediction("a,b.png", (("n01", 0.75), ("n02", 0.25)), 32, said=("tench", "n02"), unsure=False)
BAD = Prediction("c.png", (), 32, error="no such file or directory")
LATE = Prediction("d.png", (("n02", 0.5),), 32, said=("n02",), unsure=True)


def written(style: Format, *parts: tuple[Prediction, ...], goes_on: bool = False, with_unsure: bool = True) -> str:
    file = io.StringIO()
    writer = TextWriter(file, style, 2, marks=("unsure",) if with_unsure else (), goes_on=goes_on)
    for part in parts:
        writer.write(part)
    writer.close()
    return file.getvalue()


def test_people_get_the_spoken_names_and_percent() -> None:
    lines = written("table", (SURE, BAD), (LATE,)).splitlines()
    assert lines[0] == "a,b.png"
    assert lines[1].split() == ["tench", "(75.00", "%)"]
    assert lines[3:5] == ["c.png  cannot be read: no such file or directory", "d.png  unsure"]


def test_names_cannot_reach_into_the_terminal() -> None:
    evil = Prediction("a.png", (("x", 1.0),), 32, said=("red \x1b[31m\nnext",))
    text = written("table", (evil,))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("parts", [(), ((SURE,), (BAD, LATE)), ((SURE, BAD, LATE),)])
def test_json_is_one_list_however_it_is_written(parts: tuple[tuple[Prediction, ...], ...]) -> None:
    rows = json.loads(written("json", *parts))
    assert rows == [prediction.as_dict() for part in parts for prediction in part]
    assert [json.loads(line) for line in written("jsonl", *parts).splitlines()] == rows


def test_a_table_has_a_cell_for_everything() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", (SURE, BAD, LATE)))))
    assert [row["path"] for row in rows] == ["a,b.png", "c.png", "d.png"]
    assert [row["unsure"] for row in rows] == ["false", "", "true"]
    assert [row["error"] for row in rows] == ["", BAD.error, ""]
    assert [(row["name2"], row["probability2"]) for row in rows] == [("n02", "0.250000"), ("", ""), ("", "")]
    (header, *_) = written("csv", (SURE,), with_unsure=False).splitlines()
    assert header == "path,size,name1,probability1,name2,probability2,error"


@pytest.mark.parametrize("style", RESUMABLE)
def test_a_file_that_is_gone_on_with_is_as_if_it_had_never_stopped(style: Format) -> None:
    whole = written(style, (SURE, BAD, LATE))
    assert written(style, (SURE,)) + written(style, (BAD, LATE), goes_on=True) == whole


def test_every_row_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        TextWriter(file, "jsonl", 2).write((SURE,))
        assert json.loads((tmp_path / "out").read_text()) == SURE.as_dict()


def test_parquet_takes_names_that_are_no_text(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    writer = ParquetWriter(tmp_path / "p.parquet")
    writer.write((SURE, BAD))
    writer.write((Prediction("odd\udcff.png", (("n02", 0.5),), 32, said=("n02",)),))
    writer.close()
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["a,b.png", "c.png", "odd\\xff.png"]
    assert [row["names"] for row in rows] == [["n01", "n02"], [], ["n02"]]
    assert [(row["unsure"], row["error"]) for row in rows] == [(False, None), (None, BAD.error), (None, None)]
