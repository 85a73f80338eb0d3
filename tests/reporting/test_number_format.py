"""Numbers in words: signs, times and intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.reporting.number_format import duration, interval, points


@given(st.floats(-100, 100))
def test_differences_keep_their_sign(value: float) -> None:
    written = points(value)
    assert written[0] == ("−" if value < 0 else "+")
    assert float(written[1:]) == pytest.approx(abs(round(value, 1)))


def test_times_and_intervals_in_words() -> None:
    assert [duration(s) for s in (4.25, 59.0, 125, 7980, None, float("nan"))] == [
        "4.2 s",
        "59 s",
        "2 min 5 s",
        "2 h 13 min",
        "–",
        "–",
    ]
    assert interval([-0.44, 3.26], is_signed=True) == "−0.4 to +3.3"
    assert interval([1.0, None]) == "–"  # type: ignore[list-item]
