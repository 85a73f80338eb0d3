"""The headline: what an interval allows to say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.reporting.headline import headline, verdict_of
from fixres.reporting.run_record import read_run
from tests.support.report_pages import fixed_events, write_run


@given(st.floats(-100, 100), st.floats(0, 100))
def test_a_verdict_needs_an_interval_without_zero(low: float, width: float) -> None:
    verdict = verdict_of({"ci95": [low, low + width]})
    assert (verdict == "open") == (low <= 0 <= low + width)
    assert verdict_of({"ci95": [-low - width, -low]}) == {"better": "worse", "worse": "better"}.get(verdict, verdict)


@pytest.mark.parametrize(
    ("ci95", "verdict", "words"),
    [
        ((0.5, 9.5), "better", "5.0 points more"),
        ((-1.0, 11.0), "open", "not distinguishable"),
        ((0.0, 10.0), "open", "not distinguishable"),
        ((-9.5, -0.5), "worse", "5.0 points fewer"),
    ],
)
def test_headline_is_no_stronger_than_the_interval(
    tmp_path: Path, ci95: tuple[float, float], verdict: str, words: str
) -> None:
    said = headline(read_run(write_run(tmp_path / "run", fixed_events(ci95))))
    assert said.verdict == verdict
    assert words in said.sentence
    assert ("contains 0" in said.detail) == (verdict == "open")
