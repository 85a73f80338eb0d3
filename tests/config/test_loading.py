"""Recipes: finding, reading, refusing, writing down."""

from __future__ import annotations

import contextlib
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.config.lab_record import read_record
from fixres.config.loading import find_recipe, list_recipes, load, to_yaml, validate
from fixres.config.messages import Kind, kind_of_field
from fixres.config.recipe import Recipe, Section, Stage
from fixres.config.yaml_text import dump, parse
from fixres.errors import UserError
from tests.support.recipes import refusal


def test_two_lines_are_enough_to_train(recipe_file: Path) -> None:
    recipe_file.write_text("data: {uri: folder:photos}\nmodel: {name: resnet18}\n")
    recipe = load(recipe_file, require_data=True)
    assert recipe.run_stages == (recipe.train,)
    assert (recipe.train.size, recipe.train.lr, recipe.train.crop_scale) == (224, 0.05, (0.08, 1.0))


def test_a_section_with_everything_commented_out_is_empty(recipe_file: Path) -> None:
    recipe_file.write_text("seed: 3\ndata:\n  # uri: folder:photos\ntrain:\n  # size: 96\n")
    assert load(recipe_file) == load(None, {"seed": 3})


def test_a_picture_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"a\.jpg' is not a recipe: not a text file"):
        load(tmp_path / "a.jpg")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "solar.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"solr\.yaml' not found - did you mean 'solar\.yaml'"):
        load(tmp_path / "solr.yaml")


def test_a_folder_of_pictures_and_a_run_folder_get_the_right_advice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder, not a recipe; to train on its pictures give --data\.uri"):
        load(tmp_path)
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"did you mean '.*recipe\.yaml'"):
        load(tmp_path)


def test_an_unknown_name_gets_the_nearest_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "solar.yaml").write_text("# cells\nseed: 5\n")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "imagenet.yaml").write_text("seed: 6\n")
    monkeypatch.setattr("fixres.config.loading.FOLDER", tmp_path)
    assert load("solar").seed == 5
    assert load("paper/imagenet").seed == 6
    assert list(list_recipes()) == ["paper/imagenet", "solar"]
    assert [read_record(file).title for file in list_recipes().values()] == ["", "cells"]
    with pytest.raises(UserError, match="unknown recipe 'solr' - did you mean 'solar'") as caught:
        find_recipe("solr")
    assert "a recipe of your own ends in .yaml" in str(caught.value)


def test_a_default_overridden_in_vain_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(to_yaml(load(None, {"fix.epochs": 1})))
    with pytest.raises(
        UserError, match=r"--optim\.lr: has no effect: train\.lr and fix\.lr are set in .*; use --train"
    ):
        load(recipe_file, {"optim.lr": 0.3})
    assert load(recipe_file, {"optim.momentum": 0.5}).optim.momentum == 0.5
    with pytest.raises(UserError, match=r"--optim\.base_lr: has no effect: train\.lr and fix\.lr are set in"):
        load(recipe_file, {"optim.base_lr": 0.3})
    recipe_file.write_text("train: {base_lr: 0.1}\n")
    with pytest.raises(UserError, match=r"--optim\.lr: has no effect: train\.base_lr is set in"):
        load(recipe_file, {"optim.lr": 0.3})
    recipe_file.write_text("train: {lr: 0.3}\nfix: {epochs: 1}\n")
    assert load(recipe_file, {"optim.lr": 0.2}).fix.lr == 0.01
    recipe_file.write_text("train: {crop: pad}\n")
    with pytest.raises(UserError, match=r"--augment\.crop: has no effect: train\.crop is set in .*; use --train\.crop"):
        load(recipe_file, {"augment.crop": "random"})


def test_train_and_fix_beside_stages_are_refused(recipe_file: Path) -> None:
    stages = "stages:\n  - {size: 96}\n  - {size: 128}\n"
    assert refusal(recipe_file, stages + "fix: {size: 3}") == [
        "my.yaml:4: fix: this recipe has 'stages', which take the place of train and fix - did you mean 'stages.1'?"
    ]
    assert refusal(recipe_file, stages, {"train.lr": 0.1}) == [
        "--train.lr: this recipe has 'stages', which take the place of train and fix - did you mean 'stages.0.lr'?"
    ]
    assert refusal(recipe_file, stages, {"stages.2.lr": 0.1}) == ["--stages.2.lr: this recipe has stages 0 to 1"]


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Draw any value that a key of this kind may have in JSON."""
    return st.one_of([_values_of(member) for member in kind.alternatives])


def _values_of(kind: Kind) -> st.SearchStrategy[Any]:
    if kind.choices:
        return st.sampled_from(kind.choices)
    if kind.spelling:
        # The only form there is: SAMPLES/PICTURES.
        return st.builds("{}/{}".format, st.integers(1, 10**9), st.integers(1, 10**9))
    if kind.elements is not None:
        element, number = kind.elements
        return st.lists(values_of(element), min_size=number or 0, max_size=number or 4)
    if typing.get_origin(kind.type) is dict:
        plain = st.one_of(st.text(max_size=9), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
        plain = plain | st.booleans() | st.none()
        return st.dictionaries(st.text(max_size=9), st.one_of(plain, st.lists(plain, max_size=2)), max_size=3)
    low, high = kind.bounds.get("ge", kind.bounds.get("gt")), kind.bounds.get("le", kind.bounds.get("lt"))
    if kind.type is int:
        return st.integers(None if low is None else int(low), 10**9 if high is None else int(high))
    if kind.type is float:
        return st.floats(low, high, exclude_min="gt" in kind.bounds, exclude_max="lt" in kind.bounds,
                         allow_nan=False, allow_infinity=False)  # fmt: skip
    return st.booleans() if kind.type is bool else st.text(max_size=20)


def sections(section: type[Section]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: values_of(kind_of_field(field)) for name, field in section.model_fields.items()}
    )


FIELDS = {name: field.annotation for name, field in Recipe.model_fields.items() if name not in ("seed", "stages")}
WHOLE = st.fixed_dictionaries({"seed": st.integers(-(10**9), 10**9), **{n: sections(s) for n, s in FIELDS.items()}})


@settings(max_examples=60, deadline=None)
@given(WHOLE, st.lists(sections(Stage), max_size=3))
def test_what_is_written_down_is_read_back_equal(values: dict[str, Any], stages: list[dict[str, Any]]) -> None:
    if stages:
        values = {**values, "stages": stages, "train": stages[0], "fix": stages[-1]}
    recipe = Recipe.model_validate_json(json.dumps(values), strict=True)
    text = to_yaml(recipe, header="what\nand why")
    assert validate(parse(text, "x").values) == recipe


NAMES = st.sampled_from([*Recipe.model_fields, *Stage.model_fields, "uri", "workers", "name", "kwargs", "mean", "zzz"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["auto", "ema", "adamw", "1e-3"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=4),
)
KEYS = st.sampled_from(
    ["optim.lr", "train.size", "fix", "fix.epochs", "stages.0.lr", "stages", "data.uri", "model.kwargs.a"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, ANYTHING, min_size=1, max_size=4), st.dictionaries(KEYS, ANYTHING, max_size=2))
def test_any_file_with_any_flags_is_a_recipe_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], overrides: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(dump(values))
    with contextlib.suppress(UserError):
        recipe = load(file, overrides)
        assert validate(parse(to_yaml(recipe), "x").values) == recipe


def test_a_saved_recipe_repeats_itself(recipe_file: Path) -> None:
    recipe = load(None, {"data.uri": "folder:a", "train.size": 96, "fix.epochs": 3, "model.kwargs.drop_rate": 0.1})
    recipe_file.write_text(to_yaml(recipe, header="repeat: fixres train recipe.yaml"))
    assert load(recipe_file) == recipe
    assert read_record(recipe_file).title == "repeat: fixres train recipe.yaml"


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_is_complete_and_described(name: str) -> None:
    assert load(name).run_stages
    assert len(read_record(list_recipes()[name]).title) > 20
