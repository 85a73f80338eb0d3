"""The charts: true to the numbers, ready for any theme, the same every time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fixres.reporting.charts import (
    Curve,
    Series,
    accuracy_against_cost,
    accuracy_against_size,
    best_for_their_cost,
    confusion_heatmap,
    history,
)

SIZES = (24, 32, 48)


def result(size: int, top1: float) -> dict[str, Any]:
    """What a chart needs of one measurement."""
    return {"size": size, "top1": top1, "top1_ci95": [top1 - 4, top1 + 4], "gmacs": size**2 / 10_000}


def charts() -> list[str]:
    """One chart of each kind."""
    low = Curve("before the fix", [result(s, 60.0 + s / 8) for s in SIZES], "before", is_dashed=True)
    high = Curve("fixed", [result(s, 80.0 + s / 8) for s in SIZES], "after")
    line = Series("training", [1.0, 2.0], [0.5, 0.2], "before")
    return [
        accuracy_against_size([low, high], {"train size": 32, "test size": 48}, "a & b"),
        accuracy_against_cost([low, high], {"train size": 32}, "cost"),
        history([line, Series("selecting split", [2.0], [0.4], "after")], "loss", {"train": 0.0, "fix": 1.0}),
        confusion_heatmap([[3, 1], [0, 4]], "confusion"),
    ]


def test_charts_follow_the_theme_and_repeat_to_the_byte() -> None:
    for chart, again in zip(charts(), charts(), strict=True):
        assert chart == again
        tree = ElementTree.fromstring(chart)
        assert tree.get("viewBox")
        colours = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", chart)))
        assert not {colour for colour in colours if colour.startswith("#0101")}
        assert "var(--ink" in chart or "var(--muted" in chart


def test_the_more_accurate_curve_is_drawn_higher() -> None:
    drawn = {}
    for role in ("before", "after"):
        found = re.findall(
            rf'd="(M[^"]+)"[^>]*style="fill: none; stroke: var\(--{role},[^"]*stroke-width: 2;', charts()[0]
        )
        found += re.findall(
            rf'd="(M[^"]+)"[^>]*style="fill: none; stroke-dasharray[^"]*stroke: var\(--{role},', charts()[0]
        )
        drawn[role] = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", found[0])]
    assert len(drawn["before"]) == len(drawn["after"]) == len(SIZES)
    assert all(after < before for before, after in zip(drawn["before"], drawn["after"], strict=True))
    assert drawn["after"] == sorted(drawn["after"], reverse=True)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=12))
def test_nothing_is_cheaper_and_as_accurate_as_the_front(places: list[tuple[int, int]]) -> None:
    results = [{"gmacs": float(cost), "top1": float(top1)} for cost, top1 in places]
    front = best_for_their_cost(results)
    for result_ in results:
        beaten = [r for r in front if r["gmacs"] <= result_["gmacs"] and r["top1"] >= result_["top1"]]
        assert beaten, result_
    for one in front:
        assert not [r for r in results if r["gmacs"] <= one["gmacs"] and r["top1"] > one["top1"]]
        assert not [r for r in results if r["gmacs"] < one["gmacs"] and r["top1"] >= one["top1"]]
