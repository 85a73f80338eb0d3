"""The command `doctor`: what this machine has, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fixres.cli.parse import parse_flags


def doctor(words: Sequence[str]) -> int:
    """`fixres doctor`."""
    flags = parse_flags(words, DoctorFlags, "fixres doctor", "What this machine has, and what it lacks.")
    from fixres.cli.doctor import run_doctor

    return run_doctor(flags)


@dataclass(frozen=True)
class DoctorFlags:
    """Flags of `fixres doctor`."""

    offline: bool = False
    """Do not try to reach the model hub."""
