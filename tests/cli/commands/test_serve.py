"""`fixres serve`: mistakes on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere"],
        ["RUN", "--port", "99999"],
        ["RUN", "--backend", "tensorrt"],
        ["RUN", "--token-file", "nowhere"],
        ["RUN", "--host", "203.0.113.7", "--port", "1"],
        ["RUN", "--sizes", "0"],
    ],
)
def test_mistakes_on_the_command_line_exit_with_2(
    fixed_run: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(str(fixed_run) if word == "RUN" else word for word in words)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_taken_port_is_said(fixed_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(fixed_run), "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", "  ", "schlüssel", "two\nlines"])
def test_a_variable_that_holds_no_token_is_refused(
    fixed_run: Path, token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was set by somebody who wants to be asked for one; an open server is not what they mean."""
    monkeypatch.setenv("FIXRES_TOKEN", token)
    assert main(["serve", str(fixed_run)]) == 2
    assert "FIXRES_TOKEN holds no token" in capsys.readouterr().err
