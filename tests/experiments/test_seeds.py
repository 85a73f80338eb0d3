"""Several runs of one recipe in one table: means, spreads, paired differences, and what cannot be averaged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fixres.errors import UserError
from fixres.experiments.seeds import Row, difference, summarise
from fixres.training.comparison_table import PICTURES

Change = Callable[[Path], None]


def test_the_interval_is_over_pictures_and_the_spread_over_seeds() -> None:
    gains = 100.0 * np.random.default_rng(0).integers(-1, 2, (3, 50))
    found = difference(gains)
    assert found.mean == pytest.approx(gains.mean())
    assert found.per_seed == pytest.approx(gains.mean(axis=1))
    assert found.std == pytest.approx(np.std(found.per_seed, ddof=1))
    low, high = stats.norm.interval(0.95, found.mean, stats.sem(gains.mean(axis=0)))
    assert found.ci95 == pytest.approx((low, high), rel=1e-6)
    assert found.num_images == 50


def test_seeds_that_repeat_each_other_make_the_interval_no_narrower() -> None:
    once = 100.0 * np.random.default_rng(1).integers(-1, 2, (1, 40))
    one, three = difference(once), difference(np.repeat(once, 3, axis=0))
    assert one.std == three.std == 0
    assert three.ci95 == pytest.approx(one.ci95)


def test_one_seed_has_no_spread() -> None:
    assert (Row("fixed", (48,), (70.0,), 1.0, 2.0).mean, Row("fixed", (48,), (70.0,), 1.0, 2.0).std) == (70, 0)
    two = Row("fixed", (48,), (70.0, 74.0), 1.0, 2.0)
    assert (two.mean, two.std) == (72, pytest.approx(math.sqrt(8)))


# --- runs


@pytest.fixture
def runs(fixed_run: Path, tmp_path: Path) -> list[Path]:
    """Return a run and a copy of it that looks like that of another seed, with other results."""
    other = tmp_path / "seed-1"
    shutil.copytree(fixed_run, other)
    rewrite(other / "recipe.yaml", "seed: 0\n", "seed: 1\n")
    events = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "comparison":
            for row in event["rows"]:
                row["top1"] += 10
        if event["event"] == "stage_done":
            event["seconds"] = 100.0
    (other / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return [fixed_run, other]


def rewrite(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_runs_of_one_recipe_are_put_side_by_side(runs: list[Path]) -> None:
    found = summarise(runs)
    assert (found.split, found.num_images, found.seeds) == ("test", 16, (0, 1))
    assert [(row.label, row.sizes) for row in found.rows] == [
        ("train size", (32,)),
        ("larger size only", (48,)),
        ("fixed", (48,)),
    ]
    events = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    rows = next(event for event in events if event["event"] == "comparison")["rows"]
    seconds = {event["stage"]: event["seconds"] for event in events if event["event"] == "stage_done"}
    for row, own in zip(found.rows, rows, strict=True):
        assert row.top1 == (own["top1"], own["top1"] + 10)
        assert row.std == pytest.approx(math.sqrt(50))
    # Only the fixed row took the fix.
    assert found.rows[0].train_seconds == pytest.approx((seconds["train"] + 100) / 2)
    assert found.rows[2].train_seconds == pytest.approx((seconds["train"] + seconds["fix"] + 200) / 2)
    assert found.top1 is not None
    assert found.top1.mean == pytest.approx(rows[2]["top1"] - rows[0]["top1"])
    assert found.loss is not None
    assert found.loss.mean == pytest.approx(rows[2]["loss"] - rows[0]["loss"], abs=1e-5)
    assert json.loads(json.dumps(found.as_dict()))["top1_difference"]["num_images"] == 16


def test_runs_without_a_fix_have_no_difference(trained_run: Path, other_seed_run: Path) -> None:
    found = summarise([trained_run, other_seed_run])
    assert (found.top1, found.loss, [row.label for row in found.rows]) == (None, None, ["trained"])
    assert found.as_dict()["top1_difference"] is None


def no_result(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"event": "begin", "text": "start"}\n')


CHANGES: dict[str, tuple[Change, str]] = {
    "the same seed": (lambda run: rewrite(run / "recipe.yaml", "seed: 1\n", "seed: 0\n"), "a seed comes twice: 0, 0"),
    "another recipe": (
        lambda run: rewrite(run / "recipe.yaml", "momentum: 0.9", "momentum: 0.5"),
        r"made by different recipes and cannot be averaged: optim.momentum$",
    ),
    "no result": (no_result, r"has no result yet\n  fixres train .*recipe.yaml --out .*seed-1 --resume"),
    "fewer pictures": (
        lambda run: rewrite(run / "metrics.jsonl", '"num_images": 16, "rows"', '"num_images": 15, "rows"'),
        "report on different pictures",
    ),
    "other pictures": (lambda run: rewrite(run / PICTURES, "\n", "\nx"), "report on different pictures"),
    "no pictures": (lambda run: (run / PICTURES).unlink(), "comparison.csv is missing: the run has no comparison"),
    "other rows": (
        lambda run: rewrite(run / "metrics.jsonl", '"label": "', '"label": "my ', -1),
        "not made by one recipe",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_cannot_be_averaged_is_refused(runs: list[Path], what: str) -> None:
    change, said = CHANGES[what]
    change(runs[1])
    with pytest.raises(UserError, match=said):
        summarise(runs)


def test_what_decides_nothing_may_differ(runs: list[Path]) -> None:
    rewrite(runs[1] / "recipe.yaml", "threads: 1", "threads: 2")
    rewrite(runs[1] / "recipe.yaml", "tracker: none", "tracker: tensorboard")
    assert summarise(runs).seeds == (0, 1)
