"""YAML: the ways to write a number, what is refused, and that every value survives."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.config.loading import load
from fixres.config.yaml_text import dump, parse, parse_value
from fixres.errors import UserError
from tests.support.recipes import refusal


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", ".001", "1E-3", "+1e-3"])
def test_the_ways_to_write_a_thousandth(recipe_file: Path, text: str) -> None:
    recipe_file.write_text(f"optim: {{lr: {text}}}\n")
    assert load(recipe_file).optim.lr == 0.001


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e5", 1e5), ("1.", 1.0), ("010", 10), ("1_000", 1000), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"),
     ("-3", -3), ("0x10", 16), ("'1e-3'", "1e-3"), ("off", False), ("none", "none"), ("~", None), ("1e", "1e"),
     (".", ".")],
)  # fmt: skip
def test_plain_words(text: str, value: object) -> None:
    assert parse(f"key: {text}", "x").values["key"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2", "my.yaml:2:9: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\tb: 1", "my.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: *b", "my.yaml:1:4: not valid YAML: found undefined alias 'b'"),
        ("seed: \0", "my.yaml: not valid YAML: special characters are not allowed (character 0)"),
        ("seed: 1\nseed: 2", "my.yaml:2: 'seed' is given twice, first on line 1"),
        ("train:\n  lr: 1\n  size: 3\n  lr: 2", "my.yaml:4: 'train.lr' is given twice, first on line 2"),
        ("- 1", "my.yaml: a recipe is a mapping (data: ..., model: ...), not a list"),
        ("resnet18", "my.yaml: a recipe is a mapping (data: ..., model: ...), not the value 'resnet18'"),
        ("# nothing\n", "my.yaml: the file is empty; two lines are enough:"),
        ("seed: !!python/object:os.system 1", "my.yaml:1:7: not valid YAML: could not determine a constructor"
         " for the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("data: !!set {a, b}", "my.yaml:1: the tag 'tag:yaml.org,2002:set' has no meaning in a recipe"),
        ("data: &a {uri: *a}", "my.yaml: not a recipe: nested too deeply"),
        ("[a]: 1", "my.yaml:1: a key must be a word"),
        ("seed: 1\n---\nseed: 2", "my.yaml:2:1: not valid YAML: but found another document"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_in_one_line(recipe_file: Path, text: str, message: str) -> None:
    assert refusal(recipe_file, text)[0] == message


def test_a_file_that_expands_without_end_is_refused_at_once(recipe_file: Path) -> None:
    levels = [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    lines = refusal(recipe_file, "\n".join(["k0: &a0 [1]", *levels]))
    assert lines == ["my.yaml: not a recipe: it expands to more than 100,000 values"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3)))
def test_any_plain_value_survives_the_yaml(value: object) -> None:
    assert parse(dump({"key": value}), "x").values == {"key": value}


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse(text, "x").values, dict)


def test_every_key_has_the_line_it_stands_on() -> None:
    text = "seed: 1\ntrain:\n  size: 96\n\n  lr: 0.1\nstages:\n  - {size: 3}\n  - size: 4\n"
    assert parse(text, "x").lines == {
        "seed": 1,
        "train": 2,
        "train.size": 3,
        "train.lr": 5,
        "stages": 6,
        "stages.0": 7,
        "stages.0.size": 7,
        "stages.1": 8,
        "stages.1.size": 8,
    }


def test_an_empty_file_holds_nothing() -> None:
    assert (parse("", "x").values, parse("# a comment\n", "x").lines) == ({}, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("yes", True),
        ("auto", "auto"),
        ("[1, a]", [1, "a"]),
        ("", None),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_one_value_is_read_by_the_same_rules(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["{b", "x: y", "a\nb: 2\nvalue: 3"])
def test_what_is_not_one_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a YAML value"):
        parse_value(text)


def test_lists_of_plain_values_stay_on_one_line() -> None:
    values = {"sizes": [96, 128], "points": [[0, 0.1], [5, 1]], "stages": [{"size": 96}]}
    assert dump(values).splitlines() == [
        "sizes: [96, 128]",
        "points: [[0, 0.1], [5, 1]]",
        "stages:",
        "- size: 96",
    ]
