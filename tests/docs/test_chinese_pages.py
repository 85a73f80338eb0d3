"""The Chinese pages type what the English ones type, which other tests run, and give the same figures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAIRS = [("README.zh.md", "README.md"), ("docs/migration.zh.md", "docs/migration.md")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def typed(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(text, "bash") for line in block.splitlines()]


@pytest.mark.parametrize(("chinese", "english"), PAIRS)
def test_every_command_and_recipe_is_one_of_the_english_page(chinese: str, english: str) -> None:
    commands = typed(read(chinese))
    assert len(commands) >= 5
    for words in commands:
        assert words in typed(read(english)), words
    assert set(blocks(read(chinese), "yaml")) <= set(blocks(read(english), "yaml"))


@pytest.mark.parametrize(("chinese", "english"), PAIRS)
def test_the_pages_lead_to_each_other_and_to_files_that_are_there(chinese: str, english: str) -> None:
    assert f"]({Path(chinese).name})" in read(english)
    assert f"]({Path(english).name})" in read(chinese)
    for target in re.findall(r"\]\((?!http)([^)#]+)", read(chinese)):
        assert ((ROOT / chinese).parent / target).exists(), target


def test_the_figures_of_the_demo_are_those_of_the_readme() -> None:
    figures = re.findall(r"\d\d\.\d ± \d\.\d", read("README.zh.md"))
    assert len(figures) == 4
    for figure in figures:
        assert figure in read("README.md")


@pytest.mark.parametrize("words", ["ascend", "simple"])
def test_every_command_for_these_systems_is_in_the_chinese_page(words: str) -> None:
    wanted = [line for line in typed(read("docs/migration.md")) if any(words + "/" in word for word in line)]
    assert wanted
    for line in wanted:
        assert line in typed(read("docs/migration.zh.md")), line


def test_the_table_of_the_port_is_the_published_one() -> None:
    from fixres.experiments.filled_tables import filled_tables

    published = filled_tables([], everything=True)
    for cell in ("590/711", "3318/3515", "120/60"):
        assert cell in published
        assert cell in read("README.zh.md")
