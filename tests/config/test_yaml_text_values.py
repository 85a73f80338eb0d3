"""YAML in and out where libraries differ: what is a number or a truth value, tags, anchors, marks in lists."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from fixres.config.yaml_text import dump, parse
from fixres.errors import UserError

PLAIN = {
    "yes": True,
    "Off": False,
    "on": True,
    "y": "y",
    "010": 10,
    "0o10": "0o10",
    "0b1": "0b1",
    "0x1f": 31,
    "1_000": 1000,
    "1e-3": 0.001,
    "1.": 1.0,
    "-.inf": float("-inf"),
    "1:30": "1:30",
    "2026-01-02": "2026-01-02",
    "2026-01-02 10:00:00": "2026-01-02 10:00:00",
    "~": None,
    "": None,
    "=": "=",
    "!!str 5": "5",
    "!!int '5'": 5,
    "!!bool yes": True,
    "C:\\x": "C:\\x",
    "url:https://a/b#c": "url:https://a/b#c",
}


@pytest.mark.parametrize("header", ["", "%YAML 1.1\n---\n"])
@pytest.mark.parametrize("text", PLAIN)
def test_plain_values_are_what_yaml_1_2_says_and_yes_is_true(text: str, header: str) -> None:
    value = parse(f"{header}k: {text}", "x").values["k"]
    assert (type(value), value) == (type(PLAIN[text]), PLAIN[text])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!bool maybe", "x:1: a: 'maybe' is not a value of its kind"),
        ("a: !!int ''", "x:1: a: '' is not a value of its kind"),
        ("\na: !!timestamp 2026-01-02", "x:2:4: not valid YAML: could not determine a constructor for the tag"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !mine {b: 1}", "x:1: the tag '!mine' has no meaning in a recipe"),
        ("a: {b: 1, b: 2}", "x:1: 'a.b' is given twice, first on line 1"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(text, "x")
    assert says in str(refused.value)


def test_an_anchor_may_be_named_again_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse("a: &x [1, 2]\nb: *x\nc: &x {d: 3}\ne:\n  *x\n", "x")
    assert found.values == {"a": [1, 2], "b": [1, 2], "c": {"d": 3}, "e": {"d": 3}}
    assert [found.lines[key] for key in ("a", "a.1", "b", "c.d", "e")] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize("value", ["? a", "?", ": a", ":", "yes", "1e-3", "a: b", "#a", "2026-01-02", "\u2028", "- a"])
def test_a_text_in_a_list_is_read_back(value: str) -> None:
    content: dict[str, Any] = {"k": [value, [value]], "m": {"n": value}}
    assert parse(dump(content), "x").values == content


def test_small_numbers_are_written_so_that_every_reader_takes_them_for_numbers() -> None:
    assert dump({"eps": 1e-8, "big": 1e16, "half": 0.5, "inf": float("inf")}) == (
        "eps: 1.0e-08\nbig: 1.0e+16\nhalf: 0.5\ninf: .inf\n"
    )
