"""A stage setting stands in one place: its section of the recipe has the same field."""

from __future__ import annotations

import pytest

from fixres.config.loading import load
from fixres.config.messages import find_field, kind_of_field
from fixres.config.recipe import Recipe
from fixres.config.stage import SETTINGS, Stage


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.key])
def test_a_setting_for_every_stage_is_the_field_of_the_stage(name: str) -> None:
    field, own = find_field(SETTINGS[name].key), Stage.model_fields[name]
    assert field is not None
    assert (kind_of_field(field), field.default, field.description) == (
        kind_of_field(own),
        own.default,
        own.description,
    )


def test_what_a_setting_needs_is_a_setting_and_a_value_it_can_have() -> None:
    for setting in SETTINGS.values():
        for other, values in setting.needs.items():
            assert set(values) <= set(kind_of_field(Stage.model_fields[other]).choices)


def test_a_section_lists_its_keys_in_the_order_of_a_saved_recipe() -> None:
    recipe = load(None)
    assert list(type(recipe.optim).model_fields)[:5] == ["name", "lr", "base_lr", "lr_rule", "momentum"]
    assert list(type(recipe.augment).model_fields)[:3] == ["policy", "crop", "crop_scale"]
    assert list(type(recipe.ema).model_fields) == ["enabled", "decay", "rule", "ramp_steps"]
    assert list(type(recipe.data).model_fields)[-2:] == ["sampler", "class_weights"]
    assert list(recipe.model_dump()) == list(Recipe.model_fields)
