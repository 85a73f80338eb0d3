"""What a run folder says, and folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.cli.commands.report import report
from fixres.errors import UserError
from fixres.reporting.page import read_report


def test_foreign_folders_are_refused_with_one_message(run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(UserError, match=r"no metrics.jsonl(?s:.*)`fixres train` wrote"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match="no event of fixres"):
        read_report([foreign])
    (foreign / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_report([foreign])
    with pytest.raises(UserError, match=rf"there are runs in it: fixres report {run}"):
        read_report([run.parent])
    with pytest.raises(UserError, match="is a file"):
        read_report([run / "recipe.yaml"])
    out = tmp_path / "page.html"
    with pytest.raises(UserError, match="there is a file of this name"):
        report([str(run), "--out", str(out), "--png", str(run / "recipe.yaml")])
    with pytest.raises(UserError, match="cannot write"):
        report([str(run), "--out", str(out), "--json", str(run / "recipe.yaml" / "x.json")])
    assert not out.exists()
