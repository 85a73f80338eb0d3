"""The grammar of data URIs: `SCHEME:BODY[?key=value&key=value]`.

Bytes are escaped as in web addresses, so a `?`, `&` or `%` in a path is written %3F, %26, %25. Paths are made absolute
on reading: what is stored in a recipe means the same from any folder. A scheme without a grammar, such as `folder:`,
takes everything behind it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from fixres.config.recipe import Data
from fixres.data.splits import Split
from fixres.errors import UserError, did_you_mean

_ESCAPED = re.compile("[%?&\x00-\x1f\udc80-\udcff]")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Opener = Callable[[Data, str], tuple[str, dict[str, Split], list[str]]]
"""From the settings and what follows the scheme to the URI that is stored, the splits as they lie there, and notes."""


@dataclass(frozen=True)
class Grammar:
    """What may follow a scheme."""

    example: str
    keys: tuple[str, ...]
    paths: tuple[str, ...] = ()
    """Keys whose values are paths."""
    body: Literal["path", "folder or name", "name"] = "path"
    instead: tuple[str, ...] = ()
    """Keys of which one may stand in place of the body; then their values are paths."""
    habits: Mapping[str, str] = field(default_factory=dict)
    """What other programs call a key -> the key."""


@dataclass(frozen=True)
class Address:
    """A data URI taken apart. `str` of it is the one spelling that is stored."""

    scheme: str
    body: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        options = "&".join(f"{key}={_escape(value)}" for key, value in self.options.items())
        return f"{self.scheme}:{_escape(self.body)}" + (f"?{options}" if options else "")

    def __getitem__(self, key: str) -> str:
        return self.options.get(key, "")


@dataclass(frozen=True)
class Scheme:
    """A kind of data: what its URIs look like, what opens them, and a line about it."""

    name: str
    """What stands before the colon, in lower case."""
    usage: str
    """How it is written, in a few words: `csv:FILE`."""
    about: str
    """What it holds, for docs/data.md."""
    open: Opener
    """Raises UserError."""
    grammar: Grammar | None = None

    def parse(self, text: str) -> Address:
        """Return what follows the scheme in its parts, escapes decoded and paths made absolute.

        Raises:
            UserError: nothing where a name or path belongs, an unknown key, a key given twice or without a value.
        """
        grammar = self.grammar
        assert grammar is not None, f"{self.name}: has no grammar"
        body, mark, query = text.partition("?")
        given: dict[str, str] = {}
        for item in query.split("&") if mark else ():
            key, equals, value = item.partition("=")
            if key not in grammar.keys:
                habit = grammar.habits.get(key.lower())
                hint = f" - did you mean '{habit}={value}'?" if habit else did_you_mean(key, grammar.keys)
                raise UserError(
                    f"{self.name}: has no setting '{key}'{hint}\n"
                    f"  allowed: {', '.join(grammar.keys)}; for example {grammar.example}"
                )
            if key in given:
                raise UserError(f"{self.name}: '{key}' is given twice\n  give it once: {grammar.example}")
            if not equals or not value:
                raise UserError(f"{self.name}: '{key}' has no value\n  for example {grammar.example}")
            given[key] = _decode(value)
        body = _decode(body)
        if not body and not given.keys() & set(grammar.instead):
            raise UserError(f"nothing follows {self.name}:\n  for example {grammar.example}")
        paths = grammar.paths if body else (*grammar.paths, *grammar.instead)
        if body and (grammar.body == "path" or (grammar.body == "folder or name" and Path(body).expanduser().is_dir())):
            body = absolute(body)
        beside = Path(body).parent if body and grammar.body == "path" else None
        options = {key: given[key] for key in grammar.keys if key in given}
        return Address(self.name, body, {key: _place(v, beside) if key in paths else v for key, v in options.items()})

    def without_places(self, text: str) -> tuple[str, dict[str, str]]:
        """Return what follows the scheme without the paths in it: the name, if it is one, and the other settings.

        Raises:
            UserError: see `parse`.
        """
        address, grammar = self.parse(text), self.grammar
        assert grammar is not None, f"{self.name}: has no grammar"
        is_place = grammar.body == "path" or (grammar.body == "folder or name" and Path(address.body).is_absolute())
        places = (*grammar.paths, *grammar.instead)
        kept = {key: value for key, value in address.options.items() if key not in places}
        return "" if is_place else address.body, kept


def is_web(path: str) -> bool:
    """Return whether `path` is an address of http or https."""
    return path.lower().startswith(("http://", "https://"))


def is_remote(path: str) -> bool:
    """Return whether `path` is an address, of the web or of what else fsspec knows, such as s3://."""
    return _REMOTE.match(path) is not None


def absolute(path: str) -> str:
    """Return the path made absolute; an address as it is."""
    return path if is_remote(path) else str(Path(path).expanduser().absolute())


def _place(path: str, beside: Path | None) -> str:
    """Return a path made absolute: from here, or where there is none such from the folder the file lies in."""
    here = absolute(path)
    if beside is None or is_remote(path) or Path(here).exists() or not (beside / path).exists():
        return here
    return str(beside / path)


def _decode(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", text)
