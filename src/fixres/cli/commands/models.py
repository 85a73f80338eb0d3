"""The command `models`: architectures by name, with parameters, GMACs, sizes and last norms."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from fixres.cli.console import Console
from fixres.cli.parse import Positional, parse_flags
from fixres.errors import UserError

if TYPE_CHECKING:
    from fixres.models.catalogue import Architecture

MANY = 30
"""Up to so many architectures are described; of more, only the names are listed."""

_HELP = """List architectures: parameters, multiply-adds, sizes, head, last norms, published weights.

PATTERN is a name, a part of one, a pattern such as 'resnet*', or another system's name; none: these names."""


@dataclass(frozen=True)
class ModelsFlags:
    """Flags of `fixres models`."""

    patterns: Annotated[tuple[str, ...], Positional("PATTERN")] = ()
    """Name, part of a name, pattern in quotes, or another system's name."""
    json: bool = False
    """Print a list of objects."""
    full: bool = False
    """Describe every match, however many there are."""


def models(words: Sequence[str]) -> int:
    """`fixres models [PATTERN ...] [--json] [--full]`."""
    flags = parse_flags(words, ModelsFlags, "fixres models", _HELP)
    if not flags.patterns:
        sys.stdout.write(_other_names(flags.json))
        return 0
    names = _matches(flags.patterns)
    if len(names) > MANY and not (flags.full or flags.json):
        advice = f"{len(names)} match; narrow the pattern, or --full\n"
        sys.stdout.write(_columns(names) + advice)
        return 0
    found, failed = _describe_all(names)
    if flags.json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in found], indent=2) + "\n")
    elif len(names) == 1 and found:
        sys.stdout.write(_sheet(found[0]))
    elif found:
        sys.stdout.write(_table(found))
    for error in failed:
        sys.stderr.write(f"fixres: {error}\n")
    if not found:
        raise UserError("none of the architectures could be looked at")
    return 0


def _matches(patterns: Sequence[str]) -> list[str]:
    """Return what the patterns match, each name once, and say which names mean another."""
    from fixres.models.catalogue import aliases, search_architectures

    other_names = {alias.name.lower() for alias in aliases()}
    names: dict[str, None] = {}
    for pattern in patterns:
        found = search_architectures(pattern)
        if len(found) == 1 and (pattern.lower() in other_names or pattern.lower() not in found[0].lower()):
            sys.stderr.write(f"{pattern} is {found[0]}\n")
        names.update(dict.fromkeys(found))
    return list(names)


def _describe_all(names: Sequence[str]) -> tuple[list[Architecture], list[UserError]]:
    """Return the descriptions, and the errors of those that could not be looked at."""
    from fixres.models.catalogue import describe_architecture

    console = Console()
    found: list[Architecture] = []
    failed: list[UserError] = []
    for number, name in enumerate(names):
        try:
            found.append(describe_architecture(name))
        except UserError as error:
            failed.append(error)
        if len(names) > 1:
            console.progress("architectures", number + 1, len(names))
    console.close()
    return found, failed


def _other_names(as_json: bool) -> str:
    """Return the names of other systems, as text or as JSON."""
    from fixres.models.catalogue import aliases
    from fixres.models.names import architecture_names

    rows = [asdict(alias) for alias in aliases()]
    if as_json:
        return json.dumps(rows, indent=2) + "\n"
    return (
        f"{len(architecture_names()):,} architectures; 'fixres models PATTERN' describes them, and any name of timm\n"
        "can be given to model.name and --model. These names of other systems are understood as well:\n\n"
    ) + _aligned(["name", "means", "from"], [[row["name"], row["means"], row["system"]] for row in rows])


def _sheet(entry: Architecture) -> str:
    """Return everything about one architecture, a line for each thing."""
    norms = [f"{name} ({kind})" for name, kind in entry.last_norms]
    lines = {
        "architecture": entry.name,
        "also known as": ", ".join(entry.aliases),
        "parameters": f"{entry.num_parameters:,}",
        "GMACs": f"{entry.gmacs:.3f} at {entry.test_size} px" if entry.gmacs is not None else "cannot run",
        "train size": f"{entry.train_size} px",
        "test size": f"{entry.test_size} px",
        "sizes": entry.sizes,
        "head": ", ".join(entry.head) or "none",
        "last norm" if len(norms) == 1 else "last norms": ", ".join(norms) or "none",
        "moves": f"{entry.moves or 'none'}: {entry.reason}",
        "weights": ", ".join(entry.weights) or "none published",
    }
    return "".join(f"{what:<14} {text}\n" for what, text in lines.items() if text)


def _table(found: Sequence[Architecture]) -> str:
    header = ["architecture", "parameters", "GMACs", "train", "test", "sizes", "head", "last norms", "moves", "weights"]
    rows = [
        [
            entry.name,
            f"{entry.num_parameters / 1e6:.2f} M",
            f"{entry.gmacs:.2f}" if entry.gmacs is not None else "-",
            str(entry.train_size),
            str(entry.test_size),
            short_sizes(entry.sizes),
            ", ".join(entry.head) or "none",
            norms_in_words(entry),
            entry.moves or "none",
            _first_of(entry.weights),
        ]
        for entry in found
    ]
    return _aligned(header, rows, numbers=(1, 2, 3, 4))


def norms_in_words(entry: Architecture) -> str:
    """Return the last norms in a few words: the name of one, the number and type of several."""
    kinds = ", ".join(sorted({kind for _, kind in entry.last_norms}))
    if len(entry.last_norms) == 1:
        return f"{entry.last_norms[0][0]} ({kinds})"
    return f"{len(entry.last_norms)} ({kinds})" if kinds else "none"


def _first_of(items: Sequence[str]) -> str:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"{items[0]}{more}" if items else "none"


def short_sizes(sizes: str) -> str:
    """Return the rule about sizes without the reason in brackets."""
    return sizes.partition(" (")[0]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table as plain text; the columns `numbers` are aligned to the right."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = (
        "  ".join(
            f"{cell:>{w}}" if i in numbers else f"{cell:<{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _columns(names: Sequence[str], width: int = 118) -> str:
    """Return the names in columns, read downwards."""
    column = max(map(len, names)) + 2
    num_columns = max(1, width // column)
    num_rows = -(-len(names) // num_columns)
    lines = ("".join(f"{name:<{column}}" for name in names[i::num_rows]).rstrip() for i in range(num_rows))
    return "".join(f"{line}\n" for line in lines)
