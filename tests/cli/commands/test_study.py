"""`fixres study`: seeds side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.runtime.run_folder import read_events
from tests.support.command_line import Run


def test_study_puts_seeds_side_by_side(fixres: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "data: {uri: 'synthetic:classes=3,images=48,size=48', workers: 0}\n"
        "model: {name: test_resnet}\n"
        "train: {size: 32, epochs: 1, batch_size: 16}\n"
        "fix: {size: 64, epochs: 1}\n"
        "output: {tracker: none}\n"
    )
    code, _, err = fixres("study", "s.yaml", "--seeds", "0,1", "--out", "st")
    assert code == 0, err
    table = json.loads((tmp_path / "st" / "study.json").read_text())
    runs = [tmp_path / "st" / f"seed-{seed}" for seed in (0, 1)]
    fixed = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["rows"][-1]["top1"] for r in runs]
    assert table["rows"][-1]["top1"] == fixed
    paired = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["paired"]["difference"] for r in runs]
    assert table["top1_difference"]["per_seed"] == pytest.approx(paired)
    assert table["top1_difference"]["mean"] == pytest.approx(sum(paired) / 2)
    losses = [[e for e in read_events(r) if e["event"] == "comparison"][-1]["rows"] for r in runs]
    expected = [rows[-1]["loss"] - rows[0]["loss"] for rows in losses]
    assert table["loss_difference"]["per_seed"] == pytest.approx(expected, abs=1e-5)
    code, _, err = fixres("study", *runs)
    assert code == 0
    assert "2 seeds (0, 1)" in err
    code, _, err = fixres("study", runs[0], runs[0])
    assert (code, "a seed comes twice" in err) == (2, True)
    fixres("train", "s.yaml", "--optim.lr", "0.01", "--seed", "2", "--out", "other")
    code, _, err = fixres("study", runs[0], "other")
    assert (code, "different recipes" in err, "optim.lr" in err) == (2, True, True)
