"""Errors meant for people: what was given, what is allowed, what to type next."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib import metadata

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75


class UserError(Exception):
    """A mistake of the user's. The command line prints the message alone and exits with 2."""


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop and is saved
    """A signal stopped the work at a place it can go on from. The command line exits with 75."""


def fixres_version() -> str:
    """Return the installed version, or "0+checkout" where nobody installed one, as in what torch.hub fetches."""
    try:
        return metadata.version("fixres")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def started_rank() -> int:
    """Return the rank torchrun or `fixres slurm` gave this process, 0 for a lone one; needs no process group."""
    return int(os.environ.get("RANK", "0"))


def printable(text: str) -> str:
    """Return text with control characters other than line ends spelt out: names in foreign files may hold any."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest of `allowed`, or an empty string when none is close."""
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.6)
    return f" - did you mean '{by_lower[close[0]]}'?" if close else ""


def require_extra(package: str, extra: str) -> UserError:
    """Return the error for a missing optional `package`, naming the pip line that installs `extra`."""
    return UserError(f"this needs the package '{package}', which is not installed\n  pip install 'fixres[{extra}]'")


def counted(num: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `counted(1, "picture")` is "1 picture", of 1200 it is "1,200 pictures"."""
    return f"{num:,} {noun if num == 1 else plural or noun + 's'}"
