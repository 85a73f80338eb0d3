"""Numbers in words: what an interval allows to say, signs, times, and counts per class."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.reporting.headline import verdict_of
from fixres.reporting.number_format import duration, interval, points
from fixres.reporting.sections import class_rows, most_confused


@given(st.floats(-100, 100), st.floats(0, 100))
def test_a_verdict_needs_an_interval_without_zero(low: float, width: float) -> None:
    verdict = verdict_of({"ci95": [low, low + width]})
    assert (verdict == "open") == (low <= 0 <= low + width)
    assert verdict_of({"ci95": [-low - width, -low]}) == {"better": "worse", "worse": "better"}.get(verdict, verdict)


def test_classes_and_confusions_are_counted_from_the_matrix() -> None:
    confusion = [[8, 2, 0], [1, 9, 0], [0, 0, 0]]
    rows = class_rows(confusion, [[5, 5, 0], [0, 10, 0], [0, 0, 0]], ["cat", "dog"])
    assert [row.name for row in rows] == ["cat", "dog", "2"]
    assert [(row.num_right, row.num_images) for row in rows] == [(8, 10), (9, 10), (0, 0)]
    assert [row.recall for row in rows] == [80.0, 90.0, 0.0]
    assert [row.recall_before for row in rows] == [50.0, 100.0, None]
    assert [row.precision for row in rows] == [pytest.approx(800 / 9), pytest.approx(900 / 11), None]
    assert most_confused(confusion, ["cat", "dog"]) == [("cat", "dog", 2), ("dog", "cat", 1)]


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
