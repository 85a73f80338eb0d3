"""What is recounted from the answers of a run is what the run measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.config.recipe import Recipe
from fixres.reporting.page import read_report, write_report
from fixres.reporting.per_image import Answers, bins, expected_calibration_error, read_answers
from fixres.reporting.run_record import read_run
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.outcomes import outcomes_of, result_of
from tests.support.report_pages import (
    Page,
    fixed_events,
    write_run,
)


def test_what_is_recounted_is_what_the_run_measured(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    run_recipe(make_recipe(train={"epochs": 1}), tmp_path / "r")
    (row,) = next(e for e in read_events(tmp_path / "r") if e["event"] == "comparison")["rows"]
    answers = read_answers(read_run(tmp_path / "r"))
    assert answers is not None
    assert answers.final == "trained"
    assert 100 * answers.columns["trained"].hits.mean() == pytest.approx(row["top1"])
    assert answers.columns["trained"].losses.mean() == pytest.approx(row["loss"], abs=1e-6)
    found = bins(answers, "trained")
    assert sum(one["num_images"] for one in found) == len(answers.paths)
    assert expected_calibration_error(found) == pytest.approx(row["ece"], abs=1e-5)

    (scores,) = read_report([tmp_path / "r"]).content()["runs"][0]["scores"]
    assert scores["metrics"]["top1"]["ci95"] == pytest.approx(row["top1_ci95"])
    for name in ("loss", "ece", "macro_f1", "balanced_accuracy"):
        low, high = scores["metrics"][name]["ci95"]
        assert low <= high
        assert scores["metrics"][name]["value"] == row[name]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 60))
def test_the_bins_of_any_answers_give_the_error_of_the_evaluation(seed: int, num_classes: int, num: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_classes, (num,), generator=generator)
    said = outcomes_of(logits, labels)
    names = tuple(str(k) for k in range(num_classes))
    answers = Answers(tuple(map(str, range(num))), labels.numpy(), names, {"trained": said})
    found = bins(answers, "trained")
    assert expected_calibration_error(found) == pytest.approx(result_of(logits, labels)["ece"], abs=1e-9)
    for one in found:
        assert one["low"] <= one["confidence"] <= one["high"] + 1e-9
        assert one["ci95"][0] <= one["right"] <= one["ci95"][1]


def test_two_classes_need_no_column_of_probabilities(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", fixed_events())
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "label_names": ["no", "yes"]}))
    text = "path,label,fixed,fixed loss\na,no,no,0.105361\nb,no,yes,1.203973\n"
    (folder / "comparison.csv").write_text(text)
    answers = read_answers(read_run(folder))
    assert answers is not None
    assert answers.columns["fixed"].confidences.tolist() == pytest.approx([0.9, 0.7], abs=1e-5)
    (folder / "comparison.csv").write_text(text.replace("b,no", "b,perhaps"))
    answers = read_answers(read_run(folder))
    assert answers is not None
    assert np.isnan(answers.columns["fixed"].confidences).all()
    assert bins(answers, "fixed") == []
    assert "with the probability of every prediction" in Page(write_report([folder], tmp_path / "r.html")).text
