"""The command that looks at the machine: `doctor`."""

from __future__ import annotations

from collections.abc import Sequence

from fixres.cli.parse import parse_flags


def doctor(words: Sequence[str]) -> int:
    """`fixres doctor`."""
    from fixres.cli.doctor import DoctorFlags, run_doctor

    return run_doctor(parse_flags(words, DoctorFlags, "fixres doctor", "What this machine has, and what it lacks."))
