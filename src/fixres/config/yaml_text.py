"""YAML that knows its own lines: text to plain values with a line number for every key, and back.

PyYAML follows YAML 1.1, where `1e-3` is a text, `010` is eight and `1:30` is ninety. Recipes follow YAML 1.2 there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from fixres.errors import UserError

_MAX_VALUES = 100_000
_STRING = "tag:yaml.org,2002:str"
# Line breaks to YAML 1.1: only escapes bring them back.
_BREAKS = {"\x85", "\u2028", "\u2029"}
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}


class _Dumper(yaml.SafeDumper):
    pass


_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {}


_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "tTfFyYnNoO"),
    "int": (r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
}
for _name, (_pattern, _first) in _SCALARS.items():
    _tag = f"tag:yaml.org,2002:{_name}"
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})\\Z"), [*_first.replace("\0", ""), ""])


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value).replace("_", "")
    return int(text, 16 if text.startswith("0x") else 10)


_CONSTRUCTORS: dict[str, Any] = {
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "int": _construct_int,
    "float": yaml.SafeLoader.construct_yaml_float,
    "null": yaml.SafeLoader.construct_yaml_null,
    "str": yaml.SafeLoader.construct_yaml_str,
}
_Loader.yaml_constructors = {f"tag:yaml.org,2002:{name}": construct for name, construct in _CONSTRUCTORS.items()}
_Loader.yaml_constructors[None] = yaml.SafeLoader.construct_undefined
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, _is_flat(value))
)

_Dumper.add_representer(
    str, lambda dumper, value: dumper.represent_scalar(_STRING, value, '"' if _BREAKS & set(value) else None)
)


@dataclass(frozen=True)
class Document:
    """A YAML file as plain values, and the line (from 1) of every dotted key."""

    name: str
    values: dict[str, Any]
    lines: dict[str, int]


def parse(text: str, name: str) -> Document:
    """Return the mapping in `text`; `name` is what the user calls the file.

    Raises UserError with line and column for what is not YAML, a key given twice, and a file that is no mapping.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        reader = _Reader(loader, name)
        values = {} if root is None else reader.read(root, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise UserError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise UserError(f"{name}: not valid YAML: {error.reason} (character {error.character!r})") from None
    except RecursionError:
        raise UserError(f"{name}: not a recipe: nested too deeply") from None
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"the value {values!r}"
        raise UserError(f"{name}: a recipe is a mapping (data: ..., model: ...), not {kind}")
    return Document(name, values, reader.lines if root is not None else {})


def parse_value(text: str) -> Any:
    """Return `text` read as one YAML value: a number, a truth value, a text or a flow list; UserError if it is none."""
    try:
        return parse(f"value: {text}", "value").values["value"]
    except UserError:
        raise UserError(f"{text!r} is not a YAML value") from None


def dump(values: dict[str, Any]) -> str:
    """Return `values` as YAML that `parse` reads back as the same values; lists of plain values stay on one line."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)


class _Reader:
    """Turns composed nodes into values and notes the line of every key."""

    def __init__(self, loader: _Loader, name: str) -> None:
        self.lines: dict[str, int] = {}
        self._loader = loader
        self._name = name
        self._num_values = 0

    def read(self, node: yaml.Node, key: str) -> Any:
        self._num_values += 1
        # An anchor that contains itself, or one doubled many times over, would never end.
        if self._num_values > _MAX_VALUES:
            raise UserError(f"{self._name}: not a recipe: it expands to more than {_MAX_VALUES:,} values")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            raise UserError(f"{self._where(node)}: the tag {node.tag!r} has no meaning in a recipe")
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self._read_entry(child, f"{key}.{index}") for index, child in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except ValueError:
            raise UserError(f"{self._where(node)}: {key}: {node.value!r} is not a value of its kind") from None

    def _read_entry(self, node: yaml.Node, key: str) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        return self.read(node, key)

    def _read_mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{self._where(key_node)}: a key must be a word")
            name = str(key_node.value)
            child = f"{key}.{name}" if key else name
            if name in values:
                raise UserError(f"{self._where(key_node)}: '{child}' is given twice, first on line {first_line[name]}")
            first_line[name] = line
            self.lines.setdefault(child, line)
            values[name] = self.read(value_node, child)
        return values

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"


def _is_flat(values: list[Any]) -> bool:
    """Whether a list is written on one line: plain values, and lists of them such as points."""
    plain = [value for value in values if not (isinstance(value, list) and _is_flat(value))]
    return not any(isinstance(value, list | dict) for value in plain)
