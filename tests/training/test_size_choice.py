"""The size of a fix: measured on the selecting split, never below the matching one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.config.loading import validate
from fixres.training.run import run_recipe
from fixres.training.size_choice import sweep_sizes


def test_before_a_fix_at_auto_the_matching_size_is_measured_and_kept_to(tmp_path: Path) -> None:
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=2,images=12,size=64", "workers": 0},
            "model": {"name": "test_resnet"},
            "train": {"size": 64, "epochs": 1, "batch_size": 6},
            "fix": {"size": "auto", "moves": "stats"},
            "output": {"tracker": "none"},
            "runtime": {"threads": 1},
        }
    )
    outcome = run_recipe(recipe, tmp_path / "r")
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    sweeps = [[result["size"] for result in line["results"]] for line in lines if line["event"] == "sweep"]
    assert sweeps == [[64, 96, 128]] * 2
    assert outcome.size >= 96


@pytest.mark.parametrize(
    ("wanted", "stage_size", "sizes"),
    [((64, 48), "auto", [32, 48, 64]), ((64,), 48, [32, 48, 64]), ((), 32, [32]), ((), "auto", [32])],
)
def test_the_train_size_and_the_stages_own_are_always_measured(
    wanted: tuple[int, ...], stage_size: int | str, sizes: list[int]
) -> None:
    assert sweep_sizes(wanted, 32, stage_size) == sizes
