"""YAML that knows its own lines: text to plain values with a line number for every key, and back.

YAML 1.2 says what a number is (`1e-3` is one, `010` is ten, `1:30` is a text, and so are dates); `yes`, `no`, `on` and
`off` are truth values all the same, because people write them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from fixres.errors import UserError

_MAX_VALUES = 100_000
_TAG = "tag:yaml.org,2002:"
_FLOAT = r"(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "tTfFyYnNoO"),
    "int": (r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (rf"[-+]?{_FLOAT}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    "null": (r"~|null|Null|NULL|", "~nN"),
}
"""What a text without quotes may be: the pattern, and the characters it may begin with."""


class _Resolver(VersionedResolver):
    processing_version = (1, 2)  # whatever the file says
    versioned_resolver: ClassVar[dict[str, list[Any]]] = {}


for _name, (_pattern, _first) in _SCALARS.items():
    for _character in (*_first, ""):
        _rule = f"{_TAG}{_name}", re.compile(f"(?:{_pattern})\\Z")
        _Resolver.versioned_resolver.setdefault(_character, []).append(_rule)


class _Representer(SafeRepresenter):
    def represent_float(self, value: float) -> ScalarNode:
        text = repr(value).replace("inf", ".inf").replace("nan", ".nan")
        return self.represent_scalar(f"{_TAG}float", text if "." in text else text.replace("e", ".0e"))

    def represent_str(self, value: str) -> ScalarNode:
        # Only escapes bring back what YAML 1.1 takes for line breaks; the two marks have a meaning within [ ].
        style = '"' if {"\x85", "\u2028", "\u2029"} & set(value) else "'" if value.startswith(("?", ":")) else None
        return self.represent_scalar(f"{_TAG}str", value, style)

    def represent_list(self, value: list[Any]) -> SequenceNode:
        return self.represent_sequence(f"{_TAG}seq", value, _is_flat(value))


for _type in (float, str, list):
    _Representer.add_representer(_type, getattr(_Representer, f"represent_{_type.__name__}"))


_NOTHING = object()


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
    yaml = _yaml()
    reader = _Reader(name, yaml.constructor)
    try:
        root = yaml.compose(text)
        values = {} if root is None else reader.read(root, "")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise UserError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except ReaderError as error:
        raise UserError(f"{name}: not valid YAML: {error.reason} (character {error.character!r})") from None
    except RecursionError:
        raise UserError(f"{name}: not a recipe: nested too deeply") from None
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"the value {values!r}"
        raise UserError(f"{name}: a recipe is a mapping (data: ..., model: ...), not {kind}")
    return Document(name, values, reader.lines)


def parse_value(text: str) -> Any:
    """Return `text` read as one YAML value: a number, a truth value, a text or a flow list; UserError if it is none."""
    try:
        return parse(f"value: {text}", "value").values["value"]
    except UserError:
        raise UserError(f"{text!r} is not a YAML value") from None


def value_at(values: Any, key: str, missing: Any = None) -> Any:
    """Return what stands at a dotted key, in mappings and, by its number, in lists; `missing` where nothing does."""
    for name in key.split("."):
        if isinstance(values, list) and name.isdecimal() and int(name) < len(values):
            values = values[int(name)]
        elif isinstance(values, Mapping) and name in values:
            values = values[name]
        else:
            return missing
    return values


def is_given(values: Any, key: str) -> bool:
    """Whether anything stands at a dotted key."""
    return value_at(values, key, _NOTHING) is not _NOTHING


def dump(values: dict[str, Any]) -> str:
    """Return `values` as YAML that `parse` reads back as the same values; lists of plain values stay on one line."""
    stream = io.StringIO()
    _yaml().dump(values, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer = _Resolver, _Representer
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.composer.warn_double_anchors = False
    return cast(YAML, yaml)


class _Reader:
    """Turns composed nodes into values and notes the line of every key."""

    def __init__(self, name: str, constructor: SafeConstructor) -> None:
        self.lines: dict[str, int] = {}
        self._name = name
        self._constructor = constructor
        self._num_values = 0

    def read(self, node: Node, key: str) -> Any:
        self._num_values += 1
        # An anchor that contains itself, or one doubled many times over, would never end.
        if self._num_values > _MAX_VALUES:
            raise UserError(f"{self._name}: not a recipe: it expands to more than {_MAX_VALUES:,} values")
        kind = str(node.tag).removeprefix(_TAG)
        if isinstance(node, ScalarNode):
            if kind != "str" and kind not in _SCALARS:
                self._constructor.construct_undefined(node)
            try:
                return self._constructor.construct_object(node)
            except (ValueError, LookupError):
                raise UserError(f"{self._where(node)}: {key}: {node.value!r} is not a value of its kind") from None
        if kind not in ("map", "seq"):
            raise UserError(f"{self._where(node)}: the tag {node.tag!r} has no meaning in a recipe")
        children = node.value
        if isinstance(node, MappingNode):
            return self._read_mapping(children, f"{key}." if key else "")
        for index, child in enumerate(children):
            self.lines.setdefault(f"{key}.{index}", child.start_mark.line + 1)
        return [self.read(child, f"{key}.{index}") for index, child in enumerate(children)]

    def _read_mapping(self, pairs: list[tuple[Node, Node]], prefix: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in pairs:
            if not isinstance(key_node, ScalarNode):
                raise UserError(f"{self._where(key_node)}: a key must be a word")
            name = str(key_node.value)
            key = f"{prefix}{name}"
            first = self.lines.setdefault(key, key_node.start_mark.line + 1)
            if name in values:
                raise UserError(f"{self._where(key_node)}: '{key}' is given twice, first on line {first}")
            values[name] = self.read(value_node, key)
        return values

    def _where(self, node: Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"


def _is_flat(values: list[Any]) -> bool:
    """Whether a list is written on one line: plain values, and lists of them such as points."""
    plain = [value for value in values if not (isinstance(value, list) and _is_flat(value))]
    return not any(isinstance(value, list | dict) for value in plain)
