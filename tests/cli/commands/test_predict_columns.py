"""`fixres predict --keep --columns`: a form that was handed out comes back filled in, row for row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixres.cli.main import main
from fixres.io.resumable_table import Unfinished
from fixres.models.build import build_model
from tests.support.command_line import Run

FORM = "sample_submission.csv"
IDS = [f"x{k:02}" for k in (5, 3, 11, 0, 7, 2, 1, 9, 4)]


@pytest.fixture
def predict(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a small network of three classes beside a form of ids and a folder test."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(build_model("test_resnet", 3, init="torch").state_dict(), "w.pth")
    Path("test").mkdir()
    for k in range(12):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (40, 50, 3), np.uint8)).save(f"test/x{k:02}.png")
    Path(FORM).write_text("id,label,fold\n" + "".join(f"{name},0,7\n" for name in IDS))

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        given = ["predict", "w.pth", "--model", "test_resnet", "--size", "32", "--quiet", "--batch-size", "4"]
        code = main([*given, *map(str, words)])
        return code, *capfd.readouterr()

    return run


def rows_of(file: str) -> list[dict[str, Any]]:
    if file.endswith(".jsonl"):
        return [json.loads(line) for line in Path(file).read_text().splitlines()]
    if file.endswith(".json"):
        return list(json.loads(Path(file).read_text()))
    if file.endswith(".parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        return list(parquet.read_table(file).to_pylist())
    with Path(file).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("file", ["out.csv", "out.jsonl", "out.json", "out.parquet"])
def test_a_form_comes_back_in_its_own_order(predict: Run, file: str) -> None:
    assert predict(FORM, "--format", "csv", "--out", "all")[0] == 0
    best = {Path(row["path"]).stem: row["name1"] for row in rows_of("all")}
    code, _, err = predict(FORM, "--keep", "id", "--columns", "id,label", "--out", file)
    assert code == 0, err
    assert [list(row) for row in rows_of(file)] == [["id", "label"]] * len(IDS)
    assert [row["id"] for row in rows_of(file)] == IDS
    assert [row["label"] for row in rows_of(file)] == [best[name] for name in IDS]
    assert predict(FORM, "--keep", "fold,id", "--out", f"kept-{file}")[0] == 0
    kept = rows_of(f"kept-{file}")
    assert list(kept[0])[:3] == ["fold", "id", "path"]
    assert [(row["fold"], row["id"], Path(row["path"]).stem) for row in kept] == [("7", name, name) for name in IDS]


def test_columns_may_be_called_otherwise_and_be_one_for_each_class(predict: Run) -> None:
    words = ("--keep", "id,label", "--columns")
    assert predict(FORM, *words, "id,probabilities", "--out", "p.csv")[0] == 0
    for row in rows_of("p.csv"):
        assert list(row) == ["id", "0", "1", "2"]
        assert sum(float(row[name]) for name in "012") == pytest.approx(1, abs=1e-5)
    assert predict(FORM, *words, "was=kept:label,best=name1,is_2=probability:2,id", "--out", "q.csv")[0] == 0
    for row, other in zip(rows_of("q.csv"), rows_of("p.csv"), strict=True):
        assert list(row) == ["was", "best", "is_2", "id"]
        assert (row["was"], row["id"], row["is_2"]) == ("0", other["id"], other["2"])
        assert float(other[row["best"]]) == max(float(other[name]) for name in "012")
    assert predict("test", "--columns", "path,label", "--out", "r.csv")[0] == 0
    assert len(rows_of("r.csv")) == 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((FORM, "--columns", "id,label"), "--columns id: there is no column 'id'"),
        ((FORM, "--keep", "id", "--columns", "id,lable"), "there is no column 'lable' - did you mean 'label'?"),
        (
            (FORM, "--keep", "id,label", "--columns", "id,label"),
            "label=kept:label is the table's; without --keep label",
        ),
        ((FORM, "--keep", "id", "--columns", "id,x=probability:9"), "the network knows no such class"),
        ((FORM, "--keep", "id", "--columns", "id,id"), "--columns id,id: a name comes twice"),
        ((FORM, "--keep", "id,"), "--keep id,: a name is empty"),
        ((FORM, "--keep", "who"), "has no column 'who'"),
        (("test", "--keep", "id"), "--keep carries columns of a table, which test is not"),
        ((FORM, "--keep", "id", "--format", "table"), "--keep is about columns, which a table for people has not"),
    ],
)
def test_columns_that_cannot_be_are_refused(predict: Run, words: tuple[str, ...], told: str) -> None:
    code, _, err = predict(*words, *(() if "table" in words else ("--out", "o.csv")))
    assert code == 2
    assert told in err
    assert not Path("o.csv").exists()


@pytest.mark.parametrize("file", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("columns", ["id,label,error", "label,error", ""])
def test_an_interrupted_form_is_gone_on_with(
    predict: Run, monkeypatch: pytest.MonkeyPatch, file: str, columns: str
) -> None:
    Path("test/x03.png").write_text("no picture")
    words = (FORM, "--keep", "id", *(("--columns", columns) if columns else ()), "--out")
    assert predict(*words, f"whole-{file}")[0] == 2
    whole = Path(f"whole-{file}").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", lambda self: None)
        predict(*words, file)
    part = Path(f"{file}.part")
    part.write_bytes(part.read_bytes()[:-30])
    assert predict(*words, file, "--resume")[0] == 2, "the picture that cannot be read is counted again"
    assert Path(file).read_bytes() == whole
    assert len(rows_of(file)) == len(IDS)


def test_a_form_of_other_rows_is_not_gone_on_with(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (FORM, "--keep", "id", "--columns", "id,label", "--out", "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", lambda self: None)
        predict(*words)
    lines = Path(FORM).read_text().splitlines()
    Path(FORM).write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    code, _, err = predict(*words, "--resume")
    assert code == 2
    assert "row 1 of out.csv.part is of x05, the list has x03 there" in err
    assert "asked for is" in predict(*words[:-3], "label,id", "--out", "out.csv", "--resume")[2]


def test_without_a_column_for_it_an_unreadable_picture_stops_the_form(predict: Run) -> None:
    Path("test/x03.png").write_text("no picture")
    code, _, err = predict(FORM, "--keep", "id", "--columns", "id,label", "--out", "o.csv")
    assert code == 2
    assert "1 picture cannot be read, and no column could say so: test/x03.png: not a picture" in err
    assert "add error to --columns; --resume goes on" in err
    assert not Path("o.csv").exists()
