"""Every recipe on the page about training is one, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from fixres.config.defaults import FIX, OPTIMIZERS, TRAIN, From
from fixres.config.loading import validate
from fixres.config.messages import find_field, kind_of_field
from fixres.config.recipe import Optim, Recipe, Stage
from fixres.config.rules import problems
from fixres.config.yaml_text import parse

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_recipe_of_the_page_is_valid(text: str) -> None:
    assert problems(validate(parse(text, "page").values)) == []


def test_every_key_of_the_page_exists() -> None:
    keys = {key for key in re.findall(r"`(?:--)?([a-z0-9]+\.[a-z0-9_]+)[`: ]", PAGE) if not key.endswith(".md")}
    assert len(keys) > 15
    assert [key for key in keys if find_field(key) is None] == []


def test_the_words_of_every_choice_are_on_the_page() -> None:
    for key in ("size_schedule", "schedule", "loss", "lr_rule", "batch_lr", "warmup_shape"):
        for word in kind_of_field(Stage.model_fields[key]).choices:
            assert f"`{word}`" in PAGE or f": {word}`" in PAGE, (key, word)


def test_the_table_of_optimizers_is_that_of_the_code() -> None:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| `(sgd|adamw|lamb|lion|muon)`", line)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    default = {name: Optim.model_fields[name].default for name in ("lr", "momentum", "beta2", "eps")}
    named = {}
    for names, *values in rows:
        for name in re.findall(r"`([a-z]+)`", names):
            named[name] = values
    assert set(named) == set(OPTIMIZERS) == set(get_args(Optim.model_fields["name"].annotation))
    for name, values in named.items():
        for key, text in zip(default, values, strict=True):
            if text:
                assert float(text) == {**default, **OPTIMIZERS[name]}[key], (name, key)


def test_every_stage_key_comes_from_somewhere() -> None:
    assert set(TRAIN) == set(FIX) == set(Stage.model_fields)
    for default in TRAIN.values():
        if isinstance(default, From):
            section, _, name = default.key.partition(".")
            assert name in type(Recipe.model_fields[section].default).model_fields
