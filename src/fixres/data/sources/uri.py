"""The grammar of data URIs: `SCHEME:BODY[?key=value&key=value]`.

Bytes are escaped as in web addresses, so a `?`, `&` or `%` in a path is written %3F, %26, %25. Paths are made absolute
on reading: what is stored in a recipe means the same from any folder. `folder:` stands outside the grammar: everything
behind it is the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from fixres.errors import UserError, did_you_mean

_ESCAPED = re.compile("[%?&\x00-\x1f\udc80-\udcff]")


@dataclass(frozen=True)
class Grammar:
    """What may follow a scheme."""

    example: str
    keys: tuple[str, ...]
    paths: tuple[str, ...] = ()
    """Keys whose values are paths."""
    body: Literal["path", "folder or name", "name"] = "path"


GRAMMARS = {
    "csv": Grammar(
        "csv:FILE?root=DIR&image=path&label=label&split=split", ("root", "image", "label", "split"), ("root",)
    ),
    "torchvision": Grammar(
        "torchvision:NAME?root=DIR&download=true", ("root", "download", "variant"), ("root",), "name"
    ),
    "hf": Grammar("hf:NAME?image=image&label=label", ("image", "label", "config", "revision"), (), "folder or name"),
    "wds": Grammar(
        "wds:DIR/train-{0000..0012}.tar or wds:DIR?train=a-*.tar&val=b-*.tar",
        ("train", "val", "test", "classes"),
        ("classes",),
    ),
}


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


def parse_address(scheme: str, text: str) -> Address:
    """Return what follows `scheme:` in its parts, escapes decoded and paths made absolute.

    Raises:
        UserError: nothing where a name or path belongs, an unknown key, a key given twice or without a value.
    """
    grammar = GRAMMARS[scheme]
    body, mark, query = text.partition("?")
    given: dict[str, str] = {}
    for item in query.split("&") if mark else ():
        key, equals, value = item.partition("=")
        if key not in grammar.keys:
            raise UserError(
                f"{scheme}: has no setting '{key}'{did_you_mean(key, grammar.keys)}\n"
                f"  allowed: {', '.join(grammar.keys)}; for example {grammar.example}"
            )
        if key in given:
            raise UserError(f"{scheme}: '{key}' is given twice\n  give it once: {grammar.example}")
        if not equals or not value:
            raise UserError(f"{scheme}: '{key}' has no value\n  for example {grammar.example}")
        given[key] = _decode(value)
    body = _decode(body)
    options = {key: given[key] for key in grammar.keys if key in given}
    if not body and not (scheme == "wds" and {"train", "val", "test"} & set(options)):
        raise UserError(f"nothing follows {scheme}:\n  for example {grammar.example}")
    paths = grammar.paths
    if grammar.body == "path" and not body:
        # Without a folder of their own, the patterns of the splits are paths too.
        paths = (*paths, "train", "val", "test")
    elif grammar.body == "path" or (grammar.body == "folder or name" and Path(body).expanduser().is_dir()):
        body = absolute(body)
    return Address(scheme, body, {key: absolute(v) if key in paths else v for key, v in options.items()})


def is_web(path: str) -> bool:
    """Return whether `path` is an address of http or https."""
    return path.lower().startswith(("http://", "https://"))


def absolute(path: str) -> str:
    """Return the path made absolute; an address of the web as it is."""
    return path if is_web(path) else str(Path(path).expanduser().absolute())


def _decode(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", text)
