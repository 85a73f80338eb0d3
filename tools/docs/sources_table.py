"""The table of schemes in docs/data.md: every kind of data that a URI can name."""

from __future__ import annotations

from fixres.data.collections import schemes
from fixres.data.sources.uri import Scheme

_HEAD = """\
| scheme | pictures | written as |
| --- | --- | --- |
"""


def sources_table() -> str:
    """Return every scheme as a row of Markdown."""
    return _HEAD + "\n".join(map(_row, schemes())) + "\n"


def _row(scheme: Scheme) -> str:
    written = scheme.grammar.example if scheme.grammar else scheme.usage
    return f"| `{scheme.name}:` | {scheme.about} | {' or '.join(map(_code, written.split(' or ')))} |"


def _code(text: str) -> str:
    return f"`{text}`" if ":" in text else text
