"""`--help`: every command answers, and every flag says what it takes and what it is for."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fixres.cli.main import COMMANDS, main

ONE_LEVEL = [(name,) for name in COMMANDS if name not in ("data", "bench")]
TWO_LEVELS = [("data", part) for part in ("check", "stats", "preview", "split", "pack", "prepare", "download")]
TWO_LEVELS += [("bench", part) for part in ("loader", "train", "fix", "eval")]


@pytest.mark.parametrize("words", ONE_LEVEL + TWO_LEVELS, ids=" ".join)
def test_every_flag_says_what_it_is_for(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: fixres {' '.join(words)} ")
    entries = [number for number, line in enumerate(lines) if re.match(r"  \S", line)]
    assert entries
    for number in entries:
        assert lines[number + 1].startswith(" " * 8), lines[number]
    assert max(map(len, lines)) <= 120


def test_flags_that_a_request_hands_on_keep_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\n  --bootstrap  an integer >= 0; default 1000\n        Resamples for the intervals" in text
    assert "\n  --tta  one of 'none', 'flip', 'five', 'ten'; default none\n" in text
    assert "\n  --calibrate\n        Fit a temperature" in text
    assert main(["advise", "--help"]) == 0
    assert "\n  --fixed  true or false; default true\n" in capsys.readouterr().out


def test_help_is_as_wide_as_the_terminal_and_at_most_120(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, limit in (("60", 60), ("400", 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["predict", "--help"]) == 0
        assert limit - 25 < max(map(len, capsys.readouterr().out.splitlines())) <= limit


def test_help_of_a_command_needs_no_torch() -> None:
    code = f"import sys; from fixres.cli.main import main\nfor name in {list(COMMANDS)}: main([name, '--help'])\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
