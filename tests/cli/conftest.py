"""The command, run in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.cli.main import main
from tests.support.command_line import Run


@pytest.fixture
def fixres(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run
