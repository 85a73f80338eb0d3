"""The command `tables`: the published tables, ours beside theirs, from finished runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fixres.cli.parse import Positional, parse_flags

_TABLES_HELP = """Fill the published tables of the four systems from finished runs, in Markdown.

A run belongs to the shipped recipe whose settings it has; runs of one recipe with several seeds share a row."""


@dataclass(frozen=True)
class TablesFlags:
    """Flags of `fixres tables`."""

    runs: Annotated[tuple[Path, ...], Positional("RUNS")] = ()
    """Finished runs; none: the published tables alone."""
    all: bool = False
    """Also the tables in which no row was run."""
    out: Path | None = None
    """Write to this file instead of stdout."""


def tables(words: Sequence[str]) -> int:
    """`fixres tables RUN... [--all] [--out FILE]`."""
    flags = parse_flags(words, TablesFlags, "fixres tables", _TABLES_HELP)
    from fixres.experiments.filled_tables import filled_tables
    from fixres.io.files import write_text

    text = filled_tables(flags.runs, everything=flags.all)
    if flags.out is None:
        sys.stdout.write(text)
    else:
        write_text(flags.out, text)
    return 0
