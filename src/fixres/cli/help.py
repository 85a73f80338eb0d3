"""`--help`: every word and option of a command with its type in words, its default, and what it is for."""

from __future__ import annotations

import functools
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from pydantic.fields import FieldInfo

from fixres.config.messages import expected, keys_of, kind_of_field
from fixres.config.recipe import Recipe, Section

RECIPE_HELP = """Train a recipe: small first, then the fix at a larger size.

Every key of the recipe is a flag and shows the value it has in RECIPE. Lists are separated by commas or spaces;
anything the network takes is --model.kwargs.NAME VALUE."""


class Entry(NamedTuple):
    """A word or an option as the help shows it."""

    name: str
    kind: str
    """What has to follow, in words; empty: nothing."""
    default: Any
    text: str


def print_help(usage: str, description: str, groups: Mapping[str, Iterable[Entry]]) -> NoReturn:
    """Print the help, the entries in groups by title, then raise SystemExit(0)."""
    wrap = textwrap.TextWrapper(min(shutil.get_terminal_size().columns, 120), break_on_hyphens=False)
    lines = wrap.wrap(f"usage: {usage}")
    for paragraph in filter(None, description.split("\n\n")):
        lines += ["", *wrap.wrap(paragraph)]
    wrap.subsequent_indent = " " * 8
    for title, entries in groups.items():
        lines += ["", *wrap.wrap(title)]
        for entry in entries:
            default = _in_words(entry.default)
            facts = "; ".join(filter(None, [entry.kind, default and f"default {default}"]))
            lines += [*wrap.wrap(f"  {entry.name}  {facts}".rstrip()), *wrap.wrap(" " * 8 + entry.text)]
    sys.stdout.write("\n".join(lines) + "\n")
    raise SystemExit(0)


def recipe_groups(recipe: Recipe) -> dict[str, list[Entry]]:
    """Return the keys of a recipe with their values, by section."""
    groups = {"": [_entry("seed", Recipe.model_fields["seed"], recipe.seed)]}
    sections = {name: value for name, value in recipe if isinstance(value, Section)}
    if recipe.stages:
        del sections["train"], sections["fix"]
        sections |= {f"stages.{number}": stage for number, stage in enumerate(recipe.stages)}
    for name, section in sections.items():
        about = getattr(Recipe.model_fields.get(name), "description", None) or type(section).__doc__
        groups[f"{name}: {about}"] = [
            _entry(f"{name}.{key}", field, functools.reduce(getattr, key.split("."), section))
            for key, field in keys_of(type(section))
        ]
    return groups


def _entry(key: str, field: FieldInfo, value: Any) -> Entry:
    if isinstance(value, dict):
        return Entry(f"--{key}.NAME", "a value", None, field.description or "")
    return Entry(f"--{key}", expected(kind_of_field(field)), value, field.description or "")


def _in_words(value: Any) -> str:
    """Return a default as it is typed; empty where there is none."""
    if isinstance(value, tuple):
        return ",".join(map(_in_words, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
