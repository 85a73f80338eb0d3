"""Every recipe for the demo's photographs is valid, builds its network, and says how it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.config.loading import list_recipes, load, to_yaml
from fixres.config.rules import problems
from fixres.data.collections import open_collection
from fixres.models.sizes import at_size
from fixres.training.initial_weights import starting_network

RECIPES = {name: path for name, path in list_recipes().items() if "/" not in name}


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_is_complete_and_builds(name: str, tmp_path: Path) -> None:
    recipe = load(name)
    assert not problems(recipe, require_data=True)
    text = RECIPES[name].read_text()
    for label in ("# Run:", "# Expect:", "# Source:"):
        assert label in text, f"{name} has no {label} line"
    (tmp_path / "copy.yaml").write_text(to_yaml(recipe))
    assert load(tmp_path / "copy.yaml") == recipe
    model, preprocess, note, *_ = starting_network(recipe, open_collection(recipe.data))
    for stage in recipe.run_stages:
        size = recipe.train.size if stage.size == "auto" else stage.size
        assert isinstance(size, int)
        assert at_size(model, size) is model
    if recipe.model.weights != "none":
        assert preprocess.mean == (0.5, 0.5, 0.5)
        assert note == "the head starts from random weights, for 2 classes"


def test_the_arms_of_the_comparison_differ_in_size_and_fix_only() -> None:
    demo, direct = (load(name).model_dump() for name in ("elpv-demo", "elpv-direct"))
    assert demo.pop("fix")["enabled"] is True
    assert direct.pop("fix")["enabled"] is False
    assert (demo["train"].pop("size"), direct["train"].pop("size")) == (64, 96)
    for recipe in (demo, direct):
        recipe["evaluation"].pop("sizes")
    assert demo == direct
