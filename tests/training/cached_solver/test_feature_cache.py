"""Features serve every objective, and no other input than their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.io.tensors import changed_tensors, copy_state
from fixres.models.build import reset_head
from fixres.models.moves import make_plan
from fixres.resolution import Preprocess
from fixres.training.cached_solver import solve
from fixres.training.cached_solver.solve import Problem
from tests.support.solver_problems import DATA, problem, warm

pytestmark = pytest.mark.usefixtures("few_decays")

CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a weight": lambda p: (
        p["model"].conv1.get_submodule("0").weight.data.add_(1e-3)
        if isinstance(p["model"].conv1, nn.Sequential)
        else p["model"].conv1.weight.data.add_(1e-3)
    ),
    "the size": lambda p: p.update(preprocess=Preprocess(64)),
    "the crop": lambda p: p.update(preprocess=Preprocess(48, crop_ratio=1.0)),
    "the pictures": lambda p: p.update(train=p["train"].take("train", np.arange(30))),
    "the labels": lambda p: p.update(train=DATA.split("test").take("train", np.arange(10))),
    "what moves": lambda p: p.update(plan=make_plan(p["model"], "head", 48)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_input_never_uses_old_features(tmp_path: Path, what: str) -> None:
    solve.solve(problem(warm(), tmp_path))
    (first,) = tmp_path.iterdir()
    task = vars(problem(warm(), tmp_path))
    CHANGES[what](task)
    solve.solve(Problem(**task))
    (second,) = tmp_path.iterdir()
    assert first != second


def test_a_replaced_picture_never_meets_old_features(tmp_path: Path, photos: Path) -> None:
    def solved() -> dict[str, Tensor]:
        collection = open_collection(Data(uri=f"folder:{photos}"))
        model = warm()
        reset_head(model, 2)
        task = problem(model, tmp_path / "cache", train=collection.split("train"), select=collection.split("val"))
        solve.solve(task)
        return copy_state(model)

    before = solved()
    assert not changed_tensors(before, solved())
    victim = photos / "train" / "red" / "00.jpg"
    content = victim.read_bytes()
    victim.write_bytes((photos / "train" / "blue" / "00.jpg").read_bytes())
    assert changed_tensors(before, solved())
    victim.write_bytes(content)
    assert not changed_tensors(before, solved())


def test_another_objective_is_solved_anew_on_the_same_features(tmp_path: Path) -> None:
    solve.solve(problem(warm(), tmp_path / "shared"))
    smoothed, fresh = warm(), warm()
    (folder,) = (tmp_path / "shared").iterdir()
    features = {path: path.stat().st_mtime_ns for path in folder.glob("train-*")}
    assert features
    for changes in ({"label_smoothing": 0.4}, {"class_weights": (0.2, 1.0, 1.8)}):
        smoothed, fresh = warm(), warm()
        solve.solve(problem(smoothed, tmp_path / "shared", **changes))
        solve.solve(problem(fresh, tmp_path / "fresh", **changes))
        assert not changed_tensors(copy_state(smoothed), copy_state(fresh))
    assert features == {path: path.stat().st_mtime_ns for path in folder.glob("train-*")}
