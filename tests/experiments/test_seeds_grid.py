"""Differences are paired by picture, seed and training."""

from __future__ import annotations

from typing import Any

import pytest

from fixres.experiments.seeds import as_markdown, summarise_grid


def found(arm: str, train: int, test: int, seed: int, correct: list[int]) -> dict[str, Any]:
    return {
        "arm": arm,
        "train_size": train,
        "test_size": test,
        "seed": seed,
        "num_images": len(correct),
        "top1": 100 * sum(correct) / len(correct),
        "loss": 1.0,
        "gmacs": 0.1,
        "seconds": 1.0,
        "train_seconds": 2.0,
        "training_gmacs": 10.0,
        "solver": "",
        "correct": correct,
    }


def test_the_difference_is_paired_by_picture_seed_and_training() -> None:
    cells = [
        found("none", 64, 96, 0, [1, 0, 0, 0]),
        found("none", 64, 96, 1, [1, 1, 0, 0]),
        found("head", 64, 96, 0, [1, 1, 0, 0]),
        found("head", 64, 96, 1, [1, 1, 1, 0]),
        found("direct", 96, 96, 0, [0, 0, 0, 0]),
        found("direct", 96, 96, 1, [1, 1, 1, 1]),
    ]
    entries = {entry["arm"]: entry for entry in summarise_grid(cells)}
    assert (entries["none"]["mean"], entries["none"]["std"]) == (37.5, pytest.approx(17.68, abs=0.01))
    assert entries["head"]["differences"]["64"]["mean"] == 25
    assert entries["head"]["differences"]["64"]["std"] == 0
    assert entries["direct"]["differences"]["64"]["mean"] == 12.5
    text = as_markdown(list(entries.values()), "T")
    assert "| 64 px | head | 62.5 ± 17.7 |" in text
    assert "| the test size | direct, minus 64 px | +12.5" in text
    assert "of the same training but for `direct`" in text


def test_one_seed_has_no_spread() -> None:
    cells = [found("none", 64, 96, 0, [1, 0, 0, 0]), found("head", 64, 96, 0, [1, 1, 0, 0])]
    text = as_markdown(summarise_grid(cells), "T")
    assert "| 64 px | head | 50.0 |" in text
    assert "±" not in text
    assert "n = 4 pictures, 1 seed)" in text
