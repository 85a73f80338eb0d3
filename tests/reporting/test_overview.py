"""Several runs side by side: mean and spread, and differences in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.reporting.page import read_report, write_report
from tests.support.report_pages import Page, answer, fixed_events, write_run


def test_repeats_give_mean_and_spread_of_the_paired_difference(tmp_path: Path) -> None:
    runs = []
    for seed, difference in enumerate((1.0, 2.0, 3.0)):
        events = fixed_events((difference - 1.5, difference + 1.5))
        comparison = next(event for event in events if event["event"] == "comparison")
        comparison["paired"]["difference"] = difference
        comparison["rows"][2]["top1"] = 80.0 + difference
        runs.append(write_run(tmp_path / f"seed{seed}", events, seed=seed))
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert "Over 3 seeds, fixing changes accuracy by +2.0 ± 1.0 points" in page.text
    assert "In 2 of 3 runs the run's own 95 % interval excludes 0" in page.text
    assert "82.0 ± 1.0" in page.text
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert targets <= {f"#{attributes['id']}" for tag, attributes in page.tags if "id" in attributes}
    assert {f"#run{number}-result" for number in (1, 2, 3)} <= targets

    mixed = write_run(tmp_path / "other", fixed_events(), seed=9, split_seed=4)
    page = Page(write_report([*runs, mixed], tmp_path / "mixed.html"))
    assert "Over" not in page.text.split("Results")[0]
    assert "4 runs side by side" in page.text
    for folder in [*runs, mixed]:
        assert f"{folder.name}, fixed" in page.text


def test_runs_on_the_same_pictures_are_compared_in_pairs(answered_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", fixed_events(), split_seed=3)
    elsewhere = write_run(tmp_path / "elsewhere", fixed_events(), uri="synthetic:classes=4,images=40,size=80,seed=9")
    rows, theirs = answer(answered_run), answer(other, seed=1)
    gain = [(b["fixed"] == b["label"]) - (a["fixed"] == a["label"]) for a, b in zip(rows, theirs, strict=True)]
    found = read_report([answered_run, other, elsewhere])
    first, none = found.content()["against_first"]
    assert first["difference"] == pytest.approx(100 * sum(gain) / len(gain))
    assert (first["num_better"], first["num_worse"]) == (gain.count(1), gain.count(-1))
    assert none is None
    page = Page(found.write_html(tmp_path / "page.html"))
    assert "Against cells" in page.text
    assert "The runs do not share these pictures" in page.text
