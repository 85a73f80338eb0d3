"""`fixres report`: its JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.cli.commands.report import report
from tests.support.report_pages import answer, fixed_events, write_run


def test_json_to_stdout_is_alone_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "cells", fixed_events())
    answer(run)
    assert report([str(run), "--out", str(tmp_path / "r.html"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["name"] == "cells"
