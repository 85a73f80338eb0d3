"""`fixres advise`: what it writes, says and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.cli.main import main


def test_the_command_writes_what_it_says(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "advice.json"
    assert main(["advise", str(trained_run), "--sizes", "32,64", "--fixed", "false", "--json", str(path)]) == 0
    answer = json.loads(path.read_text())
    text = capsys.readouterr().err
    assert f"advice: as it is at {answer['advice']['size']} px" in text
    assert "objects look 0.797 times as large" in text
    assert "as large at about 40 px, for which 64 px is used" in text


def test_the_plot_is_drawn_as_svg_and_png(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["advise", str(trained_run), "--sizes", "32,64", "--fixed", "false", "--plot"]
    assert main([*words, str(tmp_path / "a.svg")]) == 0
    svg = (tmp_path / "a.svg").read_text()
    assert "as it is, crop 0.875" in svg
    assert "nothing is cheaper and as good" in svg
    assert main([*words, str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*words, str(tmp_path / "a.jpg")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err
