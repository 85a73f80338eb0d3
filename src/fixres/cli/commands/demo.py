"""The command `demo`: the whole method on real photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.cli.parse import parse_flags


def demo(words: Sequence[str]) -> int:
    """`fixres demo [--out DIR]`."""
    flags = parse_flags(words, DemoFlags, "fixres demo", "The whole method on real photographs.")
    from fixres.cli.demo import run_demo

    return run_demo(flags)


@dataclass(frozen=True)
class DemoFlags:
    """Flags of `fixres demo`."""

    out: Path | None = None
    """Run folder; runs/demo when left out."""
    seed: int = 0
    """Seed."""
    quiet: bool = False
    """Print results only."""
