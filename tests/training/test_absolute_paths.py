"""A saved recipe runs from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixres.config.recipe import Recipe
from fixres.training.absolute_paths import with_absolute_paths

Make = Callable[..., Recipe]


def test_what_a_recipe_names_becomes_absolute_where_it_is_there(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "run").mkdir()
    found = with_absolute_paths(
        make_recipe(
            data={"uri": "folder:photos", "class_weights": "weights.csv"},
            model={"weights": "run#raw"},
            distill={"teacher": "run"},
            optim={"state": "state.safetensors"},
        )
    )
    assert (found.data.uri, found.data.class_weights) == (f"folder:{tmp_path}/photos", f"{tmp_path}/weights.csv")
    assert (found.model.weights, found.train.teacher) == (f"{tmp_path}/run#raw", f"{tmp_path}/run")
    assert found.optim.state == f"{tmp_path}/state.safetensors"
    assert with_absolute_paths(found) == found
    # What is no path of this machine stays as it was written.
    named = make_recipe(data={"class_weights": "auto"}, model={"weights": "timm:resnet18"})
    assert with_absolute_paths(named) == named
