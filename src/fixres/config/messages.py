"""The recipe's types in words, and what is wrong with a value in words.

The same description serves error messages, the reading of command-line values and the reference page.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fixres.config.recipe import DROPPED_TRACKERS, Recipe, Section, Stage
from fixres.config.registry import NameIn
from fixres.config.yaml_text import value_at
from fixres.errors import did_you_mean

_MAX_SHOWN = 60
_LOOKS_PLAIN = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|true|false|yes|no|on|off", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """The type of a value: the bare type, and its bounds as given by `Field`."""

    type: Any
    bounds: Mapping[str, float]
    names: tuple[str, ...] = ()
    """Of a text that must be a name in a table, the names there are."""
    spelling: str = ""
    """Of a text of one form, that form."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words allowed by a `Literal` or a table, otherwise empty."""
        return get_args(self.type) if get_origin(self.type) is Literal else self.names

    @property
    def alternatives(self) -> tuple[Kind, ...]:
        """The members of a union, None left out, or the type itself."""
        if get_origin(self.type) in (Union, types.UnionType):
            return tuple(kind_of(member) for member in get_args(self.type) if member is not types.NoneType)
        return (self,)

    @property
    def elements(self) -> tuple[Kind, int | None] | None:
        """Type and number (None: any) of the elements of a tuple or list; None when it is neither."""
        if get_origin(self.type) not in (tuple, list):
            return None
        members = get_args(self.type)
        is_open = members[-1] is Ellipsis or get_origin(self.type) is list
        return kind_of(members[0]), None if is_open else len(members)


def kind_of(annotation: Any) -> Kind:
    """Return the kind of an annotation such as `Annotated[int, Field(ge=1)]`."""
    metadata: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        metadata.extend(extra)
    flat = [bound for item in metadata for bound in (item.metadata if isinstance(item, FieldInfo) else [item])]
    bounds = {name: getattr(item, name) for item in flat for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    names = tuple(name for item in flat if isinstance(item, NameIn) for name in item.table)
    spelling = next((item.title for item in metadata if isinstance(item, FieldInfo) and item.title), "")
    return Kind(annotation, bounds, names, spelling)


def kind_of_field(field: FieldInfo) -> Kind:
    """Return the kind of a field of a section."""
    return kind_of(Annotated[field.annotation, field]) if field.metadata else kind_of(field.annotation)


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section class of an annotation, or None for a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def find_field(key: str) -> FieldInfo | None:
    """Return the field that the dotted `key` names (`train.lr`, `stages.0.lr`), a section included; None if unknown."""
    section: type[Section] | None = Recipe
    field: FieldInfo | None = None
    parts = key.split(".")
    while parts:
        name = parts.pop(0)
        if section is None or name not in section.model_fields:
            return None
        field = section.model_fields[name]
        section = section_of(field.annotation)
        if name == "stages" and parts and parts[0].isdecimal():
            parts.pop(0)
            section = Stage
    return field


def keys_of(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and field of every value below `section`, in the order of the file."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def expected(kind: Kind) -> str:
    """Return what is allowed, in words: ``an integer >= 1``, ``one of 'sgd', 'adamw'``, ``2 numbers from 0 to 1``."""
    if get_origin(kind.type) in (Union, types.UnionType):
        return " or ".join(
            " or ".join(map(repr, member.choices)) if member.choices else expected(member)
            for member in kind.alternatives
        )
    if kind.choices:
        return f"one of {', '.join(map(repr, kind.choices))}" if len(kind.choices) > 1 else repr(kind.choices[0])
    if kind.spelling:
        return kind.spelling
    if kind.elements is not None:
        element, number = kind.elements
        if element.elements is not None:
            return f"a list of [{', '.join(['number'] * (element.elements[1] or 1))}]"
        words = _NAMES.get(element.type, _OTHER)[1] + _bounds(element.bounds)
        return f"{number} {words}" if number is not None else f"a list of {words}"
    if get_origin(kind.type) is dict:
        return "a mapping"
    return _NAMES.get(kind.type, _OTHER)[0] + _bounds(kind.bounds)


def show(value: Any) -> str:
    """Return `value` as an error message quotes it, shortened."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def mistakes(error: ValidationError, raw: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong, by dotted key: one message for each key, however many pydantic gives."""
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False):
        key, unknown = _split_location(detail["loc"], detail["type"])
        last = str(detail["loc"][-1])
        if unknown and "." in last:
            found[key] = (
                f"unknown key '{last}'; in a file write {': {'.join(last.split('.'))}: ...{'}' * last.count('.')}"
            )
        else:
            found.setdefault(
                key, f"unknown key '{key}'{suggest_key(key)}" if unknown else _wrong_value(key, value_at(raw, key))
            )
    return found


def suggest_key(key: str, show_key: Callable[[str], str] = str) -> str:
    """Return `` - did you mean 'x'?``, or the keys allowed in that place; `show_key` writes a key as the user does."""
    parent, _, name = key.rpartition(".")
    section = _inner_section(find_field(parent)) if parent else Recipe
    siblings = list(section.model_fields) if section else []
    every = [leaf for leaf, _ in keys_of(Recipe)]
    near = [f"{parent}.{sibling}".lstrip(".") for sibling in get_close_matches(name, siblings, n=1)]
    near += [leaf for leaf in every if leaf.rpartition(".")[2] == name] + get_close_matches(key, every, n=1)
    if near:
        return f" - did you mean '{show_key(near[0])}'?"
    return f" (allowed here: {', '.join(siblings)})" if siblings else ""


_NAMES: dict[Any, Sequence[str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "truth values"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
}
_OTHER = ("a value", "values")


def _bounds(bounds: Mapping[str, float]) -> str:
    number = {name: f"{value:g}" for name, value in bounds.items()}
    low = f">= {number['ge']}" if "ge" in number else f"> {number['gt']}" if "gt" in number else ""
    high = f"<= {number['le']}" if "le" in number else f"< {number['lt']}" if "lt" in number else ""
    if "ge" in number and "le" in number:
        return f" from {number['ge']} to {number['le']}"
    return f" {low} and {high}" if low and high else f" {low}{high}" if low or high else ""


def _wrong_value(key: str, value: Any) -> str:
    field = find_field(key)
    if field is None:
        return f"{key}: cannot be {show(value)}"
    section = _inner_section(field)
    if section is not None:
        what = (
            "a list of stages" if key == "stages" else f"a mapping of {', '.join(list(section.model_fields)[:3])}, ..."
        )
        return f"{key}: expected {what}, got {show(value)}"
    if key == "output.tracker" and set(DROPPED_TRACKERS) & set(value if isinstance(value, list) else [value]):
        return (
            f"{key}: {', '.join(DROPPED_TRACKERS)} were dropped; there are tensorboard, wandb, mlflow and trackio - "
            "name some of these, or none and let yours read metrics.jsonl in the run folder"
        )
    kind = kind_of_field(field)
    words = [word for member in kind.alternatives for word in member.choices]
    # Three letters resemble too much, 'gpu' is not a misspelt 'xpu', unless they are the same ones: 'sdg'.
    if isinstance(value, str) and len(value) <= 3:
        words = [word for word in words if sorted(word) == sorted(value.lower())]
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    quoted = " (a text)" if isinstance(value, str) and _LOOKS_PLAIN.fullmatch(value) else ""
    return f"{key}: expected {expected(kind)}, got {show(value)}{quoted}{hint}"


def _inner_section(field: FieldInfo | None) -> type[Section] | None:
    if field is None:
        return None
    return Stage if get_args(field.annotation)[:1] == (Stage,) else section_of(field.annotation)


def _split_location(location: tuple[int | str, ...], kind: str) -> tuple[str, bool]:
    """Cut pydantic's location, which goes on into unions and tuples, to the key the user knows."""
    parts = [str(part) for part in location]
    if kind == "extra_forbidden":
        return ".".join(parts), True
    for length in range(1, len(parts) + 1):
        key = ".".join(parts[:length])
        field = find_field(key)
        if field is None:
            return ".".join(parts[: length - 1]), False
        if _inner_section(field) is None:
            return key, False
    return ".".join(parts), False
