"""`fixres doctor`: what is here and works."""

from __future__ import annotations

from tests.support.command_line import Run


def test_doctor_tells_what_is_here(fixres: Run) -> None:
    code, _, err = fixres("doctor", "--offline")
    assert code == 0
    assert "a sum over 2 processes (gloo) works" in err
    assert " cores" in err
    assert "extra demo: installed" in err
