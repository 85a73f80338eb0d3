"""The table of predictions: refused before any work where it cannot be written, and its names."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import Sheet
from fixres.cli.main import main
from fixres.models.build import build_model
from fixres.resolution import Preprocess
from tests.support.class_folders import fill


def refuse(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """Return what an evaluation is refused with; its checkpoint is one that would be when it is opened."""
    broken = folder / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "config.json").write_text("{")
    assert main(["eval", str(broken), *words]) == 2
    return capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for flag, name in (("--predictions", "p.csv"), ("--json", "r.json")):
        # The checkpoint cannot be read: its message would come if the place were not looked at first.
        assert "cannot write" in refuse(capsys, tmp_path, flag, str(tmp_path / "file" / name))
        if os.geteuid():
            (tmp_path / "locked").mkdir(mode=0o500, exist_ok=True)
            assert "cannot write" in refuse(capsys, tmp_path, flag, str(tmp_path / "locked" / name))
    assert "is a folder" in refuse(capsys, tmp_path, "--json", str(tmp_path))
    assert "allowed: .csv, .parquet" in refuse(capsys, tmp_path, "--predictions", str(tmp_path / "p.txt"))
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("broken", "locked")] == ["file"]


def test_a_parquet_file_without_pyarrow_names_the_install_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'fixres[parquet]'" in refuse(capsys, tmp_path, "--predictions", str(tmp_path / "p.parquet"))


def test_a_table_for_a_spreadsheet_is_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "--spreadsheet is about a CSV of predictions"
    assert said in refuse(capsys, tmp_path, "--spreadsheet")
    assert said in refuse(capsys, tmp_path, "--spreadsheet", "--predictions", str(tmp_path / "p.parquet"))


def test_class_names_are_as_they_are_unless_a_spreadsheet_opens_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["-1abc", '=HYPERLINK("http:evil","x")', "@SUM(1)"]
    fill(tmp_path / "photos", {f"val/{name}": 2 for name in names})
    model = build_model("test_resnet", 3, init="torch")
    sheet = Sheet(tuple(names), Preprocess(32), 32, "nothing", "raw", (), {}, {}, {})
    save_product(tmp_path / "model", model, sheet, {})
    words = ["eval", str(tmp_path / "model"), "--data", f"folder:{tmp_path / 'photos'}", "--split", "val"]
    found = {}
    for flags in ((), ("--spreadsheet",)):
        assert main([*words, "--workers", "0", "--predictions", str(tmp_path / "p.csv"), *flags]) == 0
        told = capsys.readouterr().err
        assert ("takes '-1abc' for a formula" in told) is not bool(flags)
        with (tmp_path / "p.csv").open(newline="") as file:
            found[flags] = list(csv.DictReader(file))
    plain, marked = found.values()
    assert [row["label"] for row in plain] == [name for name in names for _ in range(2)]
    assert [row["label"] for row in marked] == [f"'{row['label']}" for row in plain]
    assert [row["prediction"] for row in marked] == [f"'{row['prediction']}" for row in plain]
    assert [row["probability"] for row in marked] == [row["probability"] for row in plain]
