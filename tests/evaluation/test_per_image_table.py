"""A table that could not be written is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixres.cli.main import main


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["eval", "nowhere", *words]) == 2
    return capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for flag, name in (("--predictions", "p.csv"), ("--json", "r.json")):
        # The checkpoint does not exist: its message would come if the place were not looked at first.
        assert "cannot write" in refuse(capsys, flag, str(tmp_path / "file" / name))
        if os.geteuid():
            (tmp_path / "locked").mkdir(mode=0o500, exist_ok=True)
            assert "cannot write" in refuse(capsys, flag, str(tmp_path / "locked" / name))
    assert "is a folder" in refuse(capsys, "--json", str(tmp_path))
    assert "allowed: .csv, .parquet" in refuse(capsys, "--predictions", str(tmp_path / "p.txt"))
    assert [path.name for path in tmp_path.iterdir() if path.name != "locked"] == ["file"]


def test_a_parquet_file_without_pyarrow_names_the_install_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'fixres[parquet]'" in refuse(capsys, "--predictions", str(tmp_path / "p.parquet"))
