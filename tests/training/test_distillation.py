"""A student learns from a teacher that knows its classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.config.recipe import Recipe
from fixres.errors import UserError
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe

Make = Callable[..., Recipe]


def test_a_student_follows_its_teacher(make_recipe: Make, trained_run: Path, tmp_path: Path) -> None:
    """With the teacher's loss alone, wrong labels do not matter, and a student that is the teacher has no loss."""
    source = str(trained_run / "model")
    stage = {"size": 32, "epochs": 1, "batch_size": 16, "lr": 1e-9, "moves": "head", "mixup": 0.2}
    distill = {"teacher": source, "alpha": 1.0}
    run_recipe(make_recipe(model={"weights": source}, train=stage, distill=distill), tmp_path / "same")
    assert next(e["loss"] for e in read_events(tmp_path / "same") if e["event"] == "train") < 1e-5
    labels = {"teacher": source, "alpha": 0.0}
    run_recipe(make_recipe(model={"weights": source}, train=stage, distill=labels), tmp_path / "labels")
    assert next(e["loss"] for e in read_events(tmp_path / "labels") if e["event"] == "train") > 0.05


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(
    make_recipe: Make, trained_run: Path, tmp_path: Path
) -> None:
    other = make_recipe(data={"uri": "synthetic:classes=4,images=64,size=48"}, distill={"teacher": str(trained_run)})
    with pytest.raises(UserError, match=r"the teacher .* does not know '"):
        run_recipe(other, tmp_path / "r")
    assert not (tmp_path / "r").exists()
