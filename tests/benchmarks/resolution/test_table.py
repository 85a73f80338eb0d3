"""The tables of the clean experiment: differences are paired, seeds averaged, and intervals wide enough."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.resolution.table import CONTROL, by_picture, differences, interaction, interval, markdown, read_arms

GAINS = {"crops": -0.10, "resize": -0.02}
"""In loss, of fixed 96 over the control."""


def write(folder: Path, seeds: tuple[int, ...] = (0, 1), folds: int = 5, num: int = 200) -> None:
    for training, gain in GAINS.items():
        for fold in range(folds):
            for seed in seeds:
                rng = np.random.default_rng([fold, seed, len(training)])
                base = rng.exponential(0.4, num)
                for arm, shift in ((CONTROL, 0.0), ("fixed 96", gain)):
                    found = {
                        **{"arm": arm, "training": training, "fold": fold, "seed": seed},
                        "loss": (base + shift + rng.normal(0, 0.05, num)).tolist(),
                        "right": (rng.random(num) < 0.8).astype(int).tolist(),
                    }
                    name = f"{arm.replace(' ', '-')}_{training}_{fold}_{seed}.json"
                    folder.mkdir(exist_ok=True)
                    (folder / name).write_text(json.dumps(found))


def test_differences_are_of_the_same_pictures_and_their_seeds_are_averaged(tmp_path: Path) -> None:
    write(tmp_path / "arms")
    arms = read_arms(tmp_path / "arms")
    for training, gain in GAINS.items():
        parts = differences(arms, "fixed 96", training, "loss")
        assert set(parts) == {(fold, seed) for fold in range(5) for seed in (0, 1)}
        values = by_picture(parts)
        assert len(values) == 1_000
        assert values[:200] == pytest.approx((parts[0, 0] + parts[0, 1]) / 2)
        mean, low, high = interval(values, np.random.default_rng(0))
        assert low < mean < high
        assert mean == pytest.approx(gain, abs=0.01)


def test_the_interaction_is_that_of_the_trainings_and_widens_with_what_folds_differ_in(tmp_path: Path) -> None:
    write(tmp_path / "arms")
    arms = read_arms(tmp_path / "arms")
    both = [differences(arms, "fixed 96", training, "loss") for training in GAINS]
    mean, low, high = interaction(both[0], both[1], np.random.default_rng(0))
    assert mean == pytest.approx(-0.08, abs=0.01)
    assert low < mean < high
    assert high - low < 0.02
    moved = {key: gaps + 0.1 * key[0] for key, gaps in both[0].items()}
    _, wide_low, wide_high = interaction(moved, both[1], np.random.default_rng(0))
    assert wide_high - wide_low > 3 * (high - low)


def test_the_tables_hold_what_there_is_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "arms", seeds=(0,), folds=2)
    text = markdown(read_arms(tmp_path / "arms"))
    assert "| fixed 96 | crops | 2 | 400 | -0.1" in text
    assert "fixed 128" not in text
    assert "(5) crops less resize, in loss: -0.0" in text
